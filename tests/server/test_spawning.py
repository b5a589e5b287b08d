"""A process is started in whatever surroundings the parent finds itself."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from prunepool.server.spawning import ended, start


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of this process, until the end of the test."""
    folder = tmp_path / "working directory"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    return folder


async def status() -> int | None:
    """That of a process, once it has ended."""
    process = multiprocessing.get_context("spawn").Process(target=len, args=((),))
    start(process)
    await ended(process)
    return process.exitcode


async def test_the_working_directory_may_be_removed(working_directory: Path) -> None:
    os.rmdir(working_directory)  # noqa: PTH106
    assert await status() == 0


async def test_files_of_the_working_directory_are_no_modules_of_python(working_directory: Path) -> None:
    for name in ("signal", "tempfile", "multiprocessing"):
        (working_directory / f"{name}.py").write_text("raise SystemExit('this is no module of Python')\n")
    assert await status() == 0
