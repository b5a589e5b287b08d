"""A front end that cannot be made, here in this process: its parent says why."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunepool.errors import InvalidParameter
from prunepool.server import frontend_process
from prunepool.server.control_pipe import ControlPipe


@pytest.fixture(autouse=True)
def stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ControlPipe]]:
    """The end of a front end's pipe is not the end of this process."""
    pipes: list[ControlPipe] = []

    def watch_parent(connection: Any, handlers: Any, folder: Path) -> ControlPipe:
        pipes.append(ControlPipe(connection, handlers, lambda: None))
        return pipes[0]

    monkeypatch.setattr(frontend_process, "watch_parent", watch_parent)
    yield pipes
    for pipe in pipes:
        pipe.close()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "there is too little memory"),
        (RuntimeError("can't start new thread"), "the system has no thread left to give: raise the limit"),
        (InvalidParameter("api_keys_file", "keys.toml", "a file"), "api_keys_file must be a file"),
        (KeyError("unforeseen"), "KeyError: 'unforeseen'"),
    ],
)
async def test_it_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, why: str
) -> None:
    said: list[str] = []

    async def failed(reason: str) -> None:
        said.append(reason)

    def prepare(*_: object) -> None:
        raise error

    monkeypatch.setattr(frontend_process, "_prepare", prepare)
    ours, theirs = multiprocessing.Pipe()
    parent = ControlPipe(ours, {"failed": failed}, lambda: None)
    spec: Any = SimpleNamespace(place=SimpleNamespace(parent=theirs, folder=tmp_path))
    nothing: Any = None
    assert await frontend_process._serve(spec, nothing, None) == 1
    assert [reason[: len(why)] for reason in said] == [why]
    parent.close()
