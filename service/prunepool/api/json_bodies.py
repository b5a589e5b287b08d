"""Parses JSON bodies strictly: one value for each key. Pure functions."""

from __future__ import annotations

import codecs
import re
import reprlib
from itertools import islice
from typing import NamedTuple

import orjson

from prunepool.errors import InvalidParameter

#: The end of each key; also an escaped quotation mark in a string, or the first one of a text that begins with a
#: colon.
_QUOTE_AND_COLON = re.compile(rb'"[ \t\n\r]*:')
#: No request has more than a few dozen.
_MAX_KEYS = 10_000
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_NAME_LENGTH = 100


class MarksLimit(NamedTuple):
    """How many of some characters a document may have.

    Each can become a Python object twenty times its size: without a limit, the largest body would block the process
    for seconds.

    Attributes:
        marks: the characters, each as bytes.
        most: limit on their number, all together.
        words: what they are called, in the plural.
    """

    marks: tuple[bytes, ...]
    most: int
    words: str


def brackets_and_commas(most: int) -> MarksLimit:
    """Limit lists and objects, and what is in them."""
    return MarksLimit((b"[", b"{", b","), most, "brackets and commas")


def parse_json(body: bytes, limit: MarksLimit) -> object:
    """Parse a JSON body; a byte-order mark before it is passed over.

    A key that an object has twice is refused, unless its values are equal and no objects: of two values, parsers
    take the first or the last, so the caller and a proxy on the way could each mean another one.

    Args:
        body: the body.
        limit: how much a document may hold.

    Raises:
        InvalidParameter: the body is not JSON in UTF-8, exceeds the limit, or has a key with two different values.
    """
    marks = sum(map(body.count, limit.marks))
    if marks > limit.most:
        raise InvalidParameter("body", marks, f"JSON with at most {limit.most} {limit.words}")
    text = body.removeprefix(codecs.BOM_UTF8)
    candidates = _may_end_keys(text)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.startswith(_UTF_16):
            raise InvalidParameter("body", "UTF-16", "JSON in UTF-8") from None
        raise InvalidParameter("body", str(error), "valid JSON") from error
    keys = _keys_in(document)
    if len(candidates) != keys:
        ends = _ends_of_keys(text, candidates)
        if len(ends) != keys:
            _refuse_duplicates(text, ends)
    return document


def _may_end_keys(text: bytes) -> list[int]:
    """Return the positions of all quotation marks before a colon: every closing one of a key, and few others.

    Raises:
        InvalidParameter: there are too many.
    """
    found = [match.start() for match in islice(_QUOTE_AND_COLON.finditer(text), _MAX_KEYS + 1)]
    if len(found) > _MAX_KEYS:
        raise InvalidParameter("body", f"more than {_MAX_KEYS}", f"JSON with at most {_MAX_KEYS} keys")
    return found


def _ends_of_keys(text: bytes, candidates: list[int]) -> list[int]:
    """Return those of the quotation marks in valid JSON that close keys: not escaped, and the end of a string."""
    ends, before, in_string = [], 0, False
    for at in candidates:
        part = text[before:at]
        escaped = (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
        quotes = part.replace(rb"\\", b"").replace(rb"\"", b"").count(b'"')
        in_string ^= quotes % 2 == 1
        if not escaped:
            if in_string:
                ends.append(at)
            in_string = not in_string
        before = at + 1
    return ends


def _keys_in(document: object) -> int:
    """Count the keys of all objects, but for objects in lists of lists: too few only costs time."""
    found, rest = 0, [document]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            found += len(value)
            rest += value.values()
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rest += value
    return found


def _refuse_duplicates(text: bytes, ends: list[int]) -> None:
    """Raise if an object has a key with two different values.

    The document is parsed again with a number behind each key, so that none replaces another.
    """
    pieces, before = [], 0
    for number, end in enumerate(ends):
        pieces += [text[before:end], b"#%d" % number]
        before = end
    rest: list[object] = [orjson.loads(b"".join([*pieces, text[before:]]))]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            _refuse_conflict(value)
            rest += value.values()
        elif isinstance(value, list):
            rest += [inner for inner in value if isinstance(inner, dict | list)]


def _refuse_conflict(numbered: dict[str, object]) -> None:
    """Raise if two keys of an object are the same but for their numbers, and their values are not."""
    members: dict[str, object] = {}
    for key, value in numbered.items():
        name = key.rpartition("#")[0]
        first = members.setdefault(name, value)
        if first != value:
            both = f"{_shown(first)} and {_shown(value)} (JSON body)"
            raise InvalidParameter(name[:_MAX_NAME_LENGTH], both, "given once, or the same each time")


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return reprlib.repr(value)
