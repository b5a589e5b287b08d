"""Settings that cannot be honoured are refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.errors import InvalidParameter
from prunepool.server.settings_check import check
from prunepool.settings import Settings


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "keys.toml"
    with pytest.raises(InvalidParameter, match="a file of keys that can be read"):
        check(Settings(api_keys_file=missing))
    missing.write_text("alice = 1\n")
    with pytest.raises(InvalidParameter, match="alice"):
        check(Settings(api_keys_file=missing))
    missing.write_text("")
    check(Settings(api_keys_file=missing))
