"""Text on its way to a terminal or a pipe, from threads that must not wait for whoever reads it.

A pipe is full after some 64 KiB that nobody reads, and a terminal can be stopped: whoever writes to one then stands
still. A thread writes instead; what waits for it is bounded, and what does not fit is dropped and counted.
Libraries that are not Python's write to the descriptor itself, which therefore does not wait either.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TextIO

#: Lines that may wait: some 4 MB of a busy server's.
MOST_LINES = 10_000
#: Seconds that the last lines have to be taken, once there will be no more.
LAST_LINES_S = 1.0
#: Microseconds that who writes to the descriptor of a socket waits for room, once for each time that it writes.
_SOCKET_WAIT_US = 1000
#: Of setsockopt(2): a `struct timeval`, seconds and microseconds.
_TIMEVAL = struct.Struct("@ll")


class QueuedOutput:
    """Writes to a stream in a thread; as far as `print` and `logging` need one, it is a text stream itself.

    It may be used in a handler of a signal, also one that comes while it is being used.

    Args:
        stream: what is written to in the end; nothing but its descriptor is used where it has one, so that no lock
            of its buffer is ever held. None, as `sys.stderr` is where it was closed: all is dropped.
        most: texts that may wait.
        on_resumed: called in the thread, with how many were dropped, when there is room again.
    """

    def __init__(
        self,
        stream: TextIO | None,
        most: int = MOST_LINES,
        on_resumed: Callable[[int], object] = lambda dropped: None,
    ) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._most = most
        self._on_resumed = on_resumed
        # Unlike `Queue`, it takes no lock that a handler of a signal could wait for in vain.
        self._waiting: SimpleQueue[str | threading.Event] = SimpleQueue()
        self._overflowed = 0
        self._failed = 0
        self._reported = 0
        self._closed = False
        # It may be stuck for ever, and the process has to end all the same.
        threading.Thread(target=self._run, name="prunepool-output", daemon=True).start()

    @property
    def dropped(self) -> int:
        """How many texts were dropped: there was no room, or the stream could not be written to."""
        return self._overflowed + self._failed

    @property
    def encoding(self) -> str:
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Queue a text, or drop it if there is no room; returns its length."""
        if self._closed or self._waiting.qsize() >= self._most:
            self._overflowed += 1
        else:
            self._waiting.put(text)
        return len(text)

    def flush(self) -> None:
        """Does nothing: the thread writes what is queued, and the caller must not wait for it."""

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream.

        Raises:
            OSError: it has none.
        """
        if self._descriptor is None:
            raise OSError("this stream has no descriptor")
        return self._descriptor

    def drain(self, timeout_s: float = LAST_LINES_S) -> bool:
        """Wait until all that is queued is written, for so many seconds at most; whether it was."""
        written = threading.Event()
        self._waiting.put(written)
        return written.wait(timeout_s)

    def close(self, timeout_s: float = LAST_LINES_S) -> None:
        """Write what is queued, for so many seconds at most, and end the thread if it is not stuck. Idempotent."""
        if not self._closed:
            self._closed = True
            self.drain(timeout_s)

    def _run(self) -> None:
        next_one: str | threading.Event | None = None
        while True:
            item = self._waiting.get() if next_one is None else next_one
            next_one = None
            if isinstance(item, threading.Event):
                item.set()
                if self._closed:
                    return
                continue
            texts, size = [item], len(item)
            # Several at a time, but no more than a pipe takes in one piece: other processes write to it too.
            while next_one is None and (taken := self._next()) is not None:
                if isinstance(taken, str) and size + len(taken) <= select.PIPE_BUF:
                    texts.append(taken)
                    size += len(taken)
                else:
                    next_one = taken
            if not self._write("".join(texts)):
                self._failed += len(texts)
            elif self._overflowed > self._reported and self._waiting.qsize() <= self._most // 2:
                dropped, self._reported = self._overflowed - self._reported, self._overflowed
                self._on_resumed(dropped)

    def _next(self) -> str | threading.Event | None:
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None

    def _write(self, text: str) -> bool:
        """Write a text, however long that takes; whether the stream took all of it."""
        if self._stream is None:
            return False
        try:
            if self._descriptor is None:
                self._stream.write(text)
                self._stream.flush()
                return True
            left = memoryview(text.encode(self.encoding, "backslashreplace"))
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except (
                    BlockingIOError
                ):  # it does not wait, or another process has made the terminal of both so
                    poll = select.poll()
                    poll.register(self._descriptor, select.POLLOUT)
                    poll.poll()
        except (OSError, ValueError):  # the reader is gone, the disk is full, or the stream is closed
            return False
        return True


@contextmanager
def written_without_waiting(stream: TextIO | None) -> Iterator[None]:
    """Have whoever writes to the descriptor of a stream lose what does not fit, instead of waiting.

    libtiff writes a line for each broken image, from the thread that decodes it. :class:`QueuedOutput` still waits.

    Pipes and terminals are opened anew, so that nothing changes for other processes that share them. A socket, as
    systemd's journal gives one, cannot be: it gets a time-out, which holds for whoever shares it meanwhile.
    """
    descriptor = _descriptor_of(stream)
    if descriptor is None:
        yield
        return
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        with _sent_in_time(descriptor):
            yield
    elif stat.S_ISFIFO(mode) or os.isatty(descriptor):
        with _opened_anew(descriptor):
            yield
    else:
        yield


@contextmanager
def _opened_anew(descriptor: int) -> Iterator[None]:
    try:
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # it belongs to another user, or to another container
        yield
        return
    before = os.dup(descriptor)
    os.dup2(opened, descriptor)
    os.close(opened)
    try:
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)


@contextmanager
def _sent_in_time(descriptor: int) -> Iterator[None]:
    option = (socket.SOL_SOCKET, socket.SO_SNDTIMEO)
    with socket.socket(fileno=os.dup(descriptor)) as same:
        before = same.getsockopt(*option, _TIMEVAL.size)
        same.setsockopt(*option, _TIMEVAL.pack(0, _SOCKET_WAIT_US))
        try:
            yield
        finally:
            same.setsockopt(*option, before)


def _descriptor_of(stream: TextIO | None) -> int | None:
    if stream is None:
        return None
    with suppress(Exception):  # a stream of our own raises an error of its own
        stream.flush()  # what is in its buffer comes first
    try:
        return stream.fileno()
    except (OSError, ValueError):  # it writes to memory, or is closed
        return None
