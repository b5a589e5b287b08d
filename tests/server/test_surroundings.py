"""What the account and the language of a server may lack."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from prunepool.errors import InvalidParameter
from prunepool.server import factory
from prunepool.settings import Settings


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: str) -> None:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(factory, "user_cache_path", nowhere)
    with pytest.raises(
        InvalidParameter, match="cpu_openvino_folder must be a folder where the user has no home"
    ):
        factory.openvino_folder(Settings())


def test_a_locale_that_is_ascii_keeps_no_server_from_starting() -> None:
    """Our own files are UTF-8, whatever the locale says; it is ASCII where Python is told not to change it."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = "import locale, prunepool.backends.cpu_choice; print(locale.getpreferredencoding(False))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "ANSI_X3.4-1968\n", done.stderr
