"""A converted pass in a file: what is read is what was written, whatever became of the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.backends.pass_file import ConvertedPass, PassFileInvalid, read, write

WRITTEN = ConvertedPass(b"<net name='small'/>", bytes(range(256)) * 3)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted") / "one.pass"


@given(xml=st.binary(max_size=100), weights=st.binary(max_size=1000))
def test_what_is_written_is_read(xml: bytes, weights: bytes, file: Path) -> None:
    write(file, ConvertedPass(xml, weights))
    assert read(file) == (xml, weights)


@given(data=st.data())
def test_a_file_that_was_changed_anywhere_is_refused(data: st.DataObject, file: Path) -> None:
    write(file, WRITTEN)
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = data.draw(
        st.sampled_from(
            [
                whole[:at],
                whole + whole[at:],
                whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :],
                bytes(len(whole)),
            ]
        )
    )
    file.write_bytes(changed)
    with pytest.raises(PassFileInvalid):
        read(file)


def test_a_header_that_promises_more_than_there_is_takes_no_memory(file: Path) -> None:
    write(file, WRITTEN)
    with file.open("r+b") as changed:
        changed.seek(8)
        changed.write((1 << 60).to_bytes(8, "little"))
    with pytest.raises(PassFileInvalid, match=r"it has \d+ bytes, not 1152921504606847"):
        read(file)


def test_a_named_pipe_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(PassFileInvalid, match="no regular file"):
            read(path)


def test_no_file_is_no_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.pass")
