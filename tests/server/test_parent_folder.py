"""What a parent leaves behind when it is killed, and who removes it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from prunepool.errors import InvalidParameter
from prunepool.server.parent_folder import parent_folder, remove, remove_after_parent

PARENT = """
import time
from prunepool.server.parent_folder import parent_folder
with parent_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files are, for this process and those that it starts; short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


@contextmanager
def parent() -> Iterator[Path]:
    """The folder of another process, which is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            folder = process.stdout.readline().strip()
            assert folder, "it made none"
            yield Path(folder)
        finally:
            process.kill()


def made_long_ago(folder: Path) -> None:
    os.utime(folder, (time.time() - 3600,) * 2)


def test_a_child_removes_everything_of_a_dead_parent_and_nothing_of_one_that_lives(temporary: Path) -> None:
    with parent() as folder:
        remove_after_parent(folder, timeout_s=0.0)
        assert (folder / "metrics").is_dir()
    remove_after_parent(folder)
    remove_after_parent(folder)  # another child does so as well
    assert list(temporary.iterdir()) == []


def test_the_next_server_removes_what_was_left_by_one_that_had_no_child(temporary: Path) -> None:
    with parent() as dead:
        pass
    with parent() as living, parent() as just_killed, parent_folder() as ours:
        made_long_ago(living)
        made_long_ago(dead)
        foreign = temporary / "prunepool-notes"
        (foreign / "metrics").mkdir(parents=True)
        made_long_ago(foreign)
        with parent_folder() as another:
            assert not dead.exists()
            assert all(one.exists() for one in (living, just_killed, ours, another, foreign))


@pytest.mark.parametrize("name", [".", "", "prunepool-notes", "/tmp"])
def test_no_folder_but_one_of_a_server_is_ever_removed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(temporary)
    (temporary / "work").touch()
    (temporary / "prunepool-notes").mkdir()
    for removing in (remove, remove_after_parent):
        with pytest.raises(ValueError, match="is not removed"):
            removing(Path(name))
    assert (temporary / "work").exists()


def refused() -> str:
    """Why there is no folder, in one line."""
    with pytest.raises(InvalidParameter) as caught, parent_folder():
        pass
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_a_folder_whose_name_is_too_long_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        long = Path(root) / ("x" * 80)
        long.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(long))
        said = re.search(r"^TMPDIR must be a folder whose name is shorter by (\d+) bytes", refused())
        assert said is not None
        assert list(long.iterdir()) == []
        longest = long.with_name("x" * (80 - int(said[1])))
        longest.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(longest))
        with parent_folder() as folder, closing(socket.socket(socket.AF_UNIX)) as one:
            one.bind(str(folder / "engine-9999.sock"))


def test_a_folder_whose_name_is_no_utf8_is_refused(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = temporary / os.fsdecode(b"\xff")
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert refused().startswith("TMPDIR must be a folder whose name is UTF-8")
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "file"))
    assert refused().startswith("TMPDIR must be a folder that can be written to (Not a directory)")
