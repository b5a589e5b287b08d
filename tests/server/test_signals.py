"""Signals that come before a server serves, to a process that is the first of a container."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

TIMEOUT_S = 30.0
PROGRAM = """
import signal, sys, time
from prunepool.server.signals import defer, deliver, prepare_to_serve

def said(number, _):
    print(signal.Signals(number).name, flush=True)

prepare_to_serve()
print("prepared", flush=True)
sys.stdin.readline()
for number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, said)
defer()
for number in (signal.SIGHUP, signal.SIGUSR1):
    deliver(number)
print("serving", flush=True)
time.sleep(60)
"""

#: Blocks every signal and ignores the ends of its children, and becomes another program then.
LAUNCHER = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
LAUNCHED = """
import subprocess, sys
from prunepool.server.signals import prepare_to_serve

prepare_to_serve()
print(subprocess.run([sys.executable, "-c", "raise SystemExit(3)"]).returncode, flush=True)
sys.stdin.readline()
"""


class Starting:
    """A process that starts to serve, the first one of its namespace where that can be had."""

    def __init__(self, first: list[str]) -> None:
        self._outer = subprocess.Popen(
            [*first, sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "prepared"
        inner = psutil.Process(self._outer.pid).children()
        self.process = inner[0] if inner else psutil.Process(self._outer.pid)

    def line(self) -> str:
        assert self._outer.stdout is not None
        return self._outer.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._outer.stdin is not None
        self._outer.stdin.write("\n")
        self._outer.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Exit status, and what was said of it."""
        _, errors = self._outer.communicate(timeout=TIMEOUT_S)
        return self._outer.returncode, errors

    def kill(self) -> None:
        self._outer.kill()
        if self.process.is_running():
            self.process.kill()
        self._outer.communicate()


def namespace() -> list[str]:
    program = shutil.which("unshare")
    command = [str(program), "--pid", "--fork"]
    if program is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a namespace of processes cannot be had here")
    return command


@pytest.fixture(params=["first of its namespace", "one of many"])
def starting(request: pytest.FixtureRequest) -> Iterator[Starting]:
    made = Starting(namespace() if request.param == "first of its namespace" else [])
    yield made
    made.kill()


def test_a_sigterm_ends_a_server_that_is_starting(starting: Starting) -> None:
    starting.process.send_signal(signal.SIGTERM)
    status, errors = starting.end()
    assert status == 128 + signal.SIGTERM
    assert errors == "prunepool: SIGTERM: ending now\n"


def test_other_signals_wait_until_they_are_handled(starting: Starting) -> None:
    for number in (signal.SIGUSR1, signal.SIGHUP):
        starting.process.send_signal(number)
    time.sleep(0.05)  # one that is not deferred would have ended it by now
    starting.go_on()
    assert [starting.line() for _ in range(3)] == ["SIGHUP", "SIGUSR1", "serving"]
    starting.process.send_signal(signal.SIGTERM)  # deferred: it has no handler that could act on it yet
    time.sleep(0.05)
    assert starting.process.is_running()


def test_nothing_is_inherited_of_signals_that_whoever_starts_a_server_blocks_or_ignores() -> None:
    command = [sys.executable, "-c", LAUNCHER, LAUNCHED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "3\n"  # the end of a process is known
            server.terminate()
            assert server.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        finally:
            server.kill()
