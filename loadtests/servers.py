"""Real `prunepool serve` processes, started and stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_STOP_S = 30


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        name: what it is called in reports.
        url: where it is.
        flags: how it was started.
    """

    name: str
    url: str
    flags: tuple[str, ...]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port


@contextmanager
def serving(name: str, flags: Sequence[str]) -> Iterator[Server]:
    """A server on a free port, ready; stopped at the end.

    Raises:
        RuntimeError: it ended before it served; with what it printed.
    """
    program = str(Path(sys.executable).with_name("prunepool"))
    command = [program, "serve", "--port", "0", "--log-level", "warning", *flags]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PRUNEPOOL_")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        printed = ""
        for line in process.stdout:
            printed += line
            if found := re.search(r"at (http://\S+)", line):
                yield Server(name, found[1], tuple(flags))
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended before it served: {printed}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
