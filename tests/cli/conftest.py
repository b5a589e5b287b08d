"""The command line in this process, with an environment of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from prunepool import cli
from prunepool.server import factory
from prunepool.testing import FakeService


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting in the environment."""
    for name in list(os.environ):
        if name.startswith("PRUNEPOOL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run one command line."""

    def run(*arguments: str) -> Result:
        status = cli.run(arguments)
        out, err = capfd.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    """The engine that commands use instead of loading a model."""
    made = FakeService()
    monkeypatch.setattr(factory, "create_local_service", lambda settings, metrics: made)
    return made


@pytest.fixture
def refused() -> Callable[[Result], str]:
    """Return the only line of a call with wrong usage."""

    def check(result: Result) -> str:
        assert (result.status, result.out) == (2, "")
        (line,) = result.err.splitlines()
        assert line.startswith("prunepool: ")
        return line

    return check
