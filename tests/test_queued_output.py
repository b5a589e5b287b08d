"""Output that nobody waits for: in order, bounded, and what does not fit is counted."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunepool.queued_output import QueuedOutput, written_without_waiting

#: Long enough for a slow machine; nothing waits for it to pass.
TIMEOUT_S = 20.0


@contextmanager
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """The ends of a pipe that takes a page, to read and to write."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with (
        os.fdopen(reading, encoding="utf-8", newline="") as reader,
        os.fdopen(writing, "w", encoding="utf-8") as writer,
    ):
        yield reader, writer


class Stopped(StringIO):
    """A terminal that was stopped: who writes to it waits until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.goes_on.wait(TIMEOUT_S)
        return super().write(text)


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30)))
def test_what_is_written_arrives_in_order(texts: list[str]) -> None:
    stream = StringIO()
    with closing(QueuedOutput(stream)) as output:
        for text in texts:
            assert output.write(text) == len(text)
        assert output.drain(TIMEOUT_S)
        assert stream.getvalue() == "".join(texts)
    assert output.dropped == 0


@given(before=st.integers(1, 20), more=st.integers(0, 20), most=st.integers(1, 15))
def test_what_does_not_fit_is_dropped_and_counted_and_told_once_there_is_room(
    before: int, more: int, most: int
) -> None:
    stream = Stopped()
    told: list[int] = []
    output = QueuedOutput(stream, most, told.append)
    output.write("0\n")
    assert stream.reached.wait(TIMEOUT_S)
    for number in range(1, before + 1):
        output.write(f"{number}\n")
    stream.goes_on.set()
    assert output.drain(TIMEOUT_S)
    assert output.dropped == max(0, before - most)
    for number in range(more):
        output.write(f"more {number}\n")
        assert output.drain(TIMEOUT_S)
    output.close(TIMEOUT_S)
    kept = [*range(min(before, most) + 1), *(f"more {number}" for number in range(more))]
    assert stream.getvalue().splitlines() == list(map(str, kept))
    assert told == ([output.dropped] if before > most else [])


def test_nobody_waits_for_a_pipe_that_is_full() -> None:
    lines = [f"{number:99}\n" for number in range(5000)]
    with pipe() as (reader, writer):
        output = QueuedOutput(writer, most=100)
        for line in lines:  # would stand still at a page's end, if it were not for the thread
            output.write(line)
        assert not output.drain(0.01)
        output.close(0.01)
        written: list[str] = []
        while len(written) + output.dropped < len(lines):
            written.append(reader.readline())
        assert 100 <= len(written) < len(lines)
        assert written[:100] == lines[:100]


def test_what_is_longer_than_a_pipe_takes_arrives_whole() -> None:
    text = "é" * 10_000 + "\n"
    with pipe() as (reader, writer), closing(QueuedOutput(writer)) as output:
        output.write(text)
        assert reader.readline() == text


def test_a_terminal_that_another_process_made_non_blocking_gets_everything() -> None:
    with pipe() as (reader, writer), closing(QueuedOutput(writer)) as output:
        os.set_blocking(writer.fileno(), False)
        lines = [f"{number:100}\n" for number in range(1000)]
        for line in lines:
            output.write(line)
        assert [reader.readline() for _ in lines] == lines
        assert output.dropped == 0


def test_what_nobody_can_read_any_more_is_dropped_and_counted() -> None:
    with pipe() as (reader, writer), closing(QueuedOutput(writer)) as output:
        reader.close()
        output.write("a\n")
        assert output.drain(TIMEOUT_S)
        assert output.dropped == 1


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_a_stream_everything_is_dropped(stream: str | None) -> None:
    """`sys.stderr` is None where a process is started with `2>&-`."""
    closed = StringIO()
    closed.close()
    with closing(QueuedOutput(None if stream is None else closed)) as output:
        output.write("a\n")
        assert output.drain(TIMEOUT_S)
        assert output.dropped == 1


def test_a_signal_may_come_at_any_time() -> None:
    """Its handler logs, also while its thread is about to."""
    stream = StringIO()
    output = QueuedOutput(stream)
    signals, lines = 0, 0

    def write(*_: object) -> None:
        nonlocal signals
        signals += 1
        output.write("signal\n")

    before = signal.signal(signal.SIGALRM, write)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while signals < 100:
            output.write("line\n")
            lines += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    output.close(TIMEOUT_S)
    written = stream.getvalue().splitlines()
    assert len(written) + output.dropped == signals + lines
    assert set(written) == {"signal", "line"}


def test_texts_for_the_log_of_another_process_are_not_cut_in_pieces() -> None:
    """A pipe takes up to PIPE_BUF bytes in one piece; what is longer may be mixed with what others write."""
    sizes: list[int] = []

    class Noting(StringIO):
        def write(self, text: str) -> int:
            sizes.append(len(text))
            return super().write(text)

    stream = Noting()
    with closing(QueuedOutput(stream)) as output:
        for _ in range(1000):
            output.write("x" * 99 + "\n")
    assert stream.getvalue() == ("x" * 99 + "\n") * 1000
    assert max(sizes) <= 4096
    assert all(size % 100 == 0 for size in sizes)


def test_who_writes_to_the_descriptor_of_a_full_pipe_does_not_wait() -> None:
    with pipe() as (reader, writer):
        with written_without_waiting(writer), closing(QueuedOutput(writer)) as output:
            assert os.write(writer.fileno(), b"x" * 4096) == 4096
            with pytest.raises(BlockingIOError):
                os.write(writer.fileno(), b"lost")
            output.write("kept")
            assert os.read(reader.fileno(), 4096) == b"x" * 4096
            assert output.drain(TIMEOUT_S)
            assert os.read(reader.fileno(), 4096) == b"kept"
        assert os.get_blocking(writer.fileno())  # as it was


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_who_writes_to_the_descriptor_of_a_full_socket_does_not_wait(kind: socket.SocketKind) -> None:
    """Standard error of a service of systemd is a socket of its journal."""
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    with near, far, os.fdopen(os.dup(near.fileno()), "w", encoding="utf-8") as writer:
        with written_without_waiting(writer), closing(QueuedOutput(writer)) as output:
            filled = 0
            with suppress(BlockingIOError):
                while filled < 1 << 24:
                    filled += os.write(writer.fileno(), b"x" * 4096)
            output.write("kept")
            read = b""
            while not read.endswith(b"kept"):
                read += far.recv(1 << 20)
            assert len(read) == filled + len("kept")
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO) == 0  # it waits, as before


def test_a_file_is_written_on_where_it_ended(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        file.write("first\n")
        with written_without_waiting(file), closing(QueuedOutput(file)) as output:
            output.write("second\n")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "first\nsecond\n"


#: Serves no request, but logs like a server, and decodes a file that libtiff complains of.
_DECODE = """
import sys
from prunepool.errors import ImageUndecodable
from prunepool.imaging import ImageLimits, Preprocess, decode
from prunepool.logs import serving_logs

with serving_logs("console", "warning"):
    for _ in range(3):
        try:
            decode(sys.stdin.buffer.read(), Preprocess(), ImageLimits())
        except ImageUndecodable:
            print("refused", flush=True)
        sys.stdin.seek(0)
"""


def test_a_full_pipe_holds_no_image_that_libtiff_complains_of(tmp_path: Path) -> None:
    file = tmp_path / "broken.tif"
    Image.effect_noise((64, 64), 90).save(file, compression="tiff_lzw")
    data = bytearray(file.read_bytes())
    data[8:108] = b"\xff" * 100  # of its one strip
    file.write_bytes(data)
    with pipe() as (_, writer), file.open("rb") as image:
        os.write(writer.fileno(), b"x" * 4096)
        answer = subprocess.run(
            [sys.executable, "-c", _DECODE], stdin=image, stdout=subprocess.PIPE, stderr=writer, timeout=60
        )
    assert answer.stdout == b"refused\n" * 3
