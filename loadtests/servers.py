"""Real `prunepool serve` processes, started and stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

_STOP_S = 30
_INSTALLED = Path(sys.executable).with_name("prunepool")
#: The default program; it needs only the package on the path.
PRUNEPOOL = (
    (str(_INSTALLED),)
    if _INSTALLED.exists()
    else (sys.executable, "-c", "from prunepool.cli import main; main()")
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        name: what it is called in reports.
        url: where it is.
        flags: how it was started.
        process: its first process.
        log: where its log goes, if that is a file.
    """

    name: str
    url: str
    flags: tuple[str, ...]
    process: subprocess.Popen[str]
    log: Path | None = None

    def pause(self) -> None:
        """Pause all processes of the server."""
        tell(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume them."""
        tell(self.process.pid, signal.SIGCONT)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port


def family(root: int) -> list[psutil.Process]:
    """Return a process and its descendants, without those that have ended."""
    try:
        first = psutil.Process(root)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tell(root: int, number: signal.Signals) -> None:
    """Send a signal to a process and its descendants."""
    for process in family(root):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def serving(
    name: str,
    flags: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    program: Sequence[str] = PRUNEPOOL,
) -> Iterator[Server]:
    """Start a server on a free port; stop it at the end.

    Args:
        name: what it is called in reports.
        flags: of `prunepool serve`.
        environment: variables that it gets besides this process's.
        log: a file for its log; this process's standard error, if not given.
        program: what is started.

    Raises:
        RuntimeError: it ended before it served; with what it printed.
    """
    command = [*program, "serve", "--port", "0", "--log-level", "warning", *flags]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PRUNEPOOL_")}
    with nullcontext() if log is None else log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            env={**inherited, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if found := re.search(r"at (http://\S+)", line):
                yield Server(name, found[1], tuple(flags), process, log)
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended before it served: {printed}")
    finally:
        if process.poll() is None:
            tell(process.pid, signal.SIGCONT)  # a paused one would not hear
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
