"""Reads the options of a request, from the query, a header, form fields or JSON keys."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from prunepool.errors import InvalidParameter
from prunepool.serving.options import InferenceOptions

#: Stricter than float() and int(), which accept nan, underscores and the digits of every script.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: Numbers that are read as integers; a float beyond may stand for another integer than was written.
_LARGEST_INTEGER = 2**53
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_MAX_NAME_LENGTH = 200
#: Sources of text alone, where a blank value is a field that its user left empty.
_TEXT_SOURCES = frozenset({"query", "header", "form"})

HEADER = "X-Reduction-Ratio"


@dataclass(frozen=True, slots=True)
class RawOption:
    """One option as the caller wrote it.

    Attributes:
        source: where it stood: `query`, `header`, `form`, `JSON body`.
        name: the caller's name for it.
        value: text, or a JSON value.
    """

    source: str
    name: str
    value: object


def read_options(raw: Iterable[RawOption]) -> InferenceOptions:
    """Read options in any order; whether the model allows their values is checked later.

    An option is not given if its value is null, or blank in a query, a header or a form.

    Raises:
        InvalidParameter: an option is unknown, cannot be read, or has two different values.
    """
    seen: dict[str, tuple[RawOption, object]] = {}
    for item in raw:
        name = "reduction_ratio" if item.source == "header" else item.name
        read = _READERS.get(name)
        if read is None:
            limit = f"left out: it is not an option; the options are {', '.join(_READERS)}"
            raise InvalidParameter(item.name[:100], item.value, limit)
        if not _is_given(item):
            continue
        value = read(item.name, item.value)
        first, before = seen.setdefault(name, (item, value))
        if before != value:
            both = f"{first.value} ({first.source}) and {item.value} ({item.source})"
            raise InvalidParameter(name, both, "given once, or the same each time")
    return InferenceOptions(**{name: value for name, (_, value) in seen.items()})  # type: ignore[arg-type]


def _is_given(item: RawOption) -> bool:
    if isinstance(item.value, str) and item.source in _TEXT_SOURCES:
        return bool(item.value.strip())
    return item.value is not None


def _number(name: str, value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        with suppress(OverflowError):
            return float(value)  # type: ignore[arg-type] # a number or text of one
    raise InvalidParameter(name, value, "a number")


def _ratio_or_auto(name: str, value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        return _number(name, value)
    except InvalidParameter as error:
        raise InvalidParameter(name, value, "a number or auto") from error


def _integer(name: str, value: object) -> int:
    """Read an integer, also as `3.0`: JSON has one kind of numbers, and some clients have only floats."""
    try:
        number = _number(name, value)
    except InvalidParameter:
        number = math.nan
    if number.is_integer() and abs(number) <= _LARGEST_INTEGER:
        return int(number)
    raise InvalidParameter(name, value, "an integer")


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise InvalidParameter(name, value, "true or false")


def _model_name(name: str, value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= _MAX_NAME_LENGTH:
        return value
    raise InvalidParameter(name, value, f"a name of 1 to {_MAX_NAME_LENGTH} characters")


_READERS: dict[str, Callable[[str, object], object]] = {
    "model": _model_name,
    "reduction_ratio": _ratio_or_auto,
    "max_reduction_ratio": _number,
    "max_accuracy_drop": _number,
    "top_k": _integer,
    "deadline_ms": _number,
    "explain": _flag,
}
