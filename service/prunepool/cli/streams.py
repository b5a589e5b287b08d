"""The standard streams of a command: closed, full, without a reader, or of another encoding than UTF-8."""

from __future__ import annotations

import errno
import io
import os
import sys

#: Status of a program whose output nobody reads, as a shell reports it: 128 + SIGPIPE.
NOBODY_READS = 141

_NAMES = ("stdin", "stdout", "stderr")


class OutputLost(Exception):
    """Standard output cannot be written.

    It is no OSError, because the libraries between take some of those for theirs.

    Args:
        why: the error of the operating system.
    """

    def __init__(self, why: OSError) -> None:
        super().__init__(f"standard output cannot be written: {why.strerror}")
        #: Whether only its reader has gone, as with `| head -1`.
        self.unread = why.errno == errno.EPIPE


class _Output(io.TextIOWrapper):
    """Standard output, which raises `OutputLost`."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from error


def prepare() -> None:
    """Make the standard streams usable.

    A descriptor that is closed (`>&-`) is taken, so that no file or socket gets its number and then what a library
    writes: input and output fail when they are used, and errors are swallowed. What an encoding cannot express is
    written as an escape sequence.
    """
    for number, name in enumerate(_NAMES):
        if getattr(sys, name) is None:
            _take(number)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 - stays open
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output(
            open(1, "wb", closefd=False),  # noqa: SIM115 - stays open
            encoding=sys.stdout.encoding,
            errors="backslashreplace",
            line_buffering=sys.stdout.line_buffering or sys.stdout.write_through,
        )


def _take(number: int) -> None:
    """Open the null device as a descriptor: the wrong way round for input and output, so that using it fails."""
    opened = os.open(os.devnull, (os.O_WRONLY, os.O_RDONLY, os.O_RDWR)[number])
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)


def flush() -> OutputLost | None:
    """Write out what is buffered; return why that cannot be done, or None."""
    try:
        sys.stdout.flush()
    except OutputLost as lost:
        return lost
    return None


def give_up_output() -> None:
    """Drop the rest of the output, so that the interpreter does not fail on it once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    sys.stdout.flush()
