"""What others named is shown, and cannot control the terminal."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.cli.terminal import as_json, shown

UTF8 = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
ASCII = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
#: ESC, CSI as one character, bell, newlines of all kinds, and what turns the direction of text.
CONTROLS = "\x1b\x9b\x07\n\r\x0b\x0c\x1c\x7f\x85\u2028\u2029\u202e\u2066"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog.jpg", "dog.jpg"),
        ("Türe, 犬 🐟 \N{ZERO WIDTH JOINER}", "Türe, 犬 🐟 \N{ZERO WIDTH JOINER}"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\tc", r"a\nb\tc"),
        ("tench\u2028fish", r"tench\u2028fish"),
        ("\x9b31m", r"\x9b31m"),
        ("exe.\u202egpj", r"exe.\u202egpj"),
        (os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg"),
        ("\ud83d golf", r"\ud83d golf"),
    ],
)
def test_a_text_is_shown_as_one_line(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(st.characters() | st.sampled_from(CONTROLS)))
def test_nothing_shown_controls_a_terminal(text: str) -> None:
    line = shown(text)
    assert not set(line) & set(CONTROLS)
    line.encode("utf-8")


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(documents, st.sampled_from([UTF8, ASCII]), st.sampled_from([None, 2]))
def test_json_says_the_same_and_controls_nothing(document: Any, stream: Any, indent: int | None) -> None:
    text = as_json(document, stream, indent=indent)
    assert json.loads(text) == document
    text.encode(stream.encoding)
    assert not set(text) & (set(CONTROLS) - {"\n"})
    assert indent is not None or "\n" not in text


def test_json_has_the_bytes_of_a_name_that_is_no_unicode() -> None:
    assert json.loads(as_json({"file": os.fsdecode(b"\xff.jpg")}, UTF8)) == {"file": r"\xff.jpg"}
