"""Parses JSON bodies strictly: one value for each key. Pure functions."""

from __future__ import annotations

import codecs
import json
import re
import reprlib
from typing import NamedTuple

import orjson

from prunepool.errors import InvalidParameter

#: What follows each key of each object; in a string it can stand only behind an escaped quotation mark.
_END_OF_KEY = re.compile(rb'"[ \t\n\r]*:')
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

    A key that an object has twice is refused, unless its values are equal: of two values, parsers take the first or
    the last, so the caller and a proxy on the way could each mean another one.

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
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.startswith(_UTF_16):
            raise InvalidParameter("body", "UTF-16", "JSON in UTF-8") from None
        raise InvalidParameter("body", str(error), "valid JSON") from error
    if len(_END_OF_KEY.findall(text)) != _keys_in(document):
        _refuse_duplicates(text)
    return document


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


def _refuse_duplicates(text: bytes) -> None:
    """Raise if an object has a key with two different values; slow, so only if there may be one."""
    try:
        json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise InvalidParameter("body", "deeper nesting", "JSON nested a few hundred levels at most") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a dictionary of the members of an object."""
    members = dict(pairs)
    if len(members) < len(pairs):
        for key, value in pairs:
            if value != members[key]:
                both = f"{reprlib.repr(value)} and {reprlib.repr(members[key])} (JSON body)"
                raise InvalidParameter(key[:_MAX_NAME_LENGTH], both, "given once, or the same each time")
    return members
