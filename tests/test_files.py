"""Only regular files are read, and never more of them than allowed."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest

from prunepool.files import read_regular


def refusal(path: Path, limit: int = 100) -> OSError:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the caller looks at it
        read_regular(path, limit)
    return caught.value


@pytest.mark.parametrize("length", [0, 1, 99, 100])
def test_a_file_of_up_to_the_limit_is_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * length)
    assert read_regular(tmp_path / "file", 100) == b"x" * length


def test_a_longer_one_is_refused_with_both_lengths(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1101)
    error = refusal(tmp_path / "file", 1100)
    assert (error.errno, error.strerror) == (errno.EFBIG, "has 1,101 bytes; at most 1,100 are read")


def test_a_huge_one_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    assert "1,099,511,627,776 bytes" in str(refusal(tmp_path / "sparse").strerror)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"linked")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 100) == b"linked"


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").strerror == "is a named pipe; only regular files are read"


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    assert refusal(tmp_path / "zeros.jpg").strerror == "is a device; only regular files are read"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).strerror == "is a folder; only regular files are read"


def test_a_file_without_a_stated_size_is_read_and_bounded() -> None:
    assert read_regular("/proc/self/stat", 100_000)
    assert refusal(Path("/proc/self/stat"), 10).errno == errno.EFBIG


def test_what_is_not_there_stays_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 1)
