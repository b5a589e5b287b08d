"""The real server, as a process, with the embedded ten-class model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from prunepool.settings import Settings


@dataclass(frozen=True)
class ServerProcess:
    """A running `prunepool serve`."""

    process: subprocess.Popen[str]
    url: str


Start = Callable[..., AbstractContextManager[ServerProcess]]

#: Few classes, and surely right: tests ask what the service does, not how good a model is. A later flag wins.
MODEL = ("--model", "deit_tiny_imagenette")


@contextmanager
def running(folder: Path, *flags: str, program: Path | None = None) -> Iterator[ServerProcess]:
    """Start the server on a free port, wait until it says that it serves, stop it at the end.

    Args:
        folder: where it runs.
        flags: of `prunepool serve`.
        program: another environment's `prunepool`; without what this one has on `PYTHONPATH`.
    """
    ours = Path(sys.executable).with_name("prunepool")
    command = [str(program or ours), "serve", "--port", "0", "--dtype", "float32", *MODEL, *flags]
    if program is None:  # by PyTorch, whatever other tests have converted meanwhile; a later flag wins
        command[2:2] = ["--cpu-openvino", "false"]
    hidden = ("PRUNEPOOL_",) if program is None else ("PRUNEPOOL_", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    # A file takes any number of log lines, where a pipe that nobody reads would stop the server.
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed below, with the process
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"at (http://\S+)", line):
                yield ServerProcess(process, found[1])
                break
        else:
            log.seek(0)
            pytest.fail(f"the server ended before it served: {log.read()}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        log.close()


@pytest.fixture(scope="session")
def server(root: Path) -> Iterator[ServerProcess]:
    """One server for all tests that do not end it."""
    with running(root) as process:
        yield process


@pytest.fixture(scope="session")
def default_server(root: Path) -> Iterator[ServerProcess]:
    """One server as a newcomer starts it, with the default model: what the documentation shows."""
    with running(root, "--model", Settings().model) as process:
        yield process


@pytest.fixture
def start(root: Path) -> Start:
    """Starts a server of its own for a test that ends or stresses it, here or in another folder."""
    return lambda *flags, folder=root, program=None: running(folder, *flags, program=program)
