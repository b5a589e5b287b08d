"""What a caller may choose, read from query, header, form fields and JSON keys alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from prunepool.errors import InvalidParameter
from prunepool.serving.types import Options

#: Stricter than float() and int(), which take nan, underscores and the digits of every script.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_LONGEST_NAME = 200

HEADER = "X-Reduction-Ratio"


@dataclass(frozen=True, slots=True)
class Given:
    """One option as it was written.

    Attributes:
        place: where, in words: `query`, `header`, `form`, `JSON body`.
        name: what the caller called it.
        value: text, or a JSON value.
    """

    place: str
    name: str
    value: object


def read_options(given: Iterable[Given]) -> Options:
    """Options from everything that was given, in any order; what the model allows is not checked here.

    Raises:
        InvalidParameter: there is no such option, it cannot be read, or two places contradict each other.
    """
    seen: dict[str, tuple[Given, object]] = {}
    for item in given:
        name = "reduction_ratio" if item.place == "header" else item.name
        read = _READERS.get(name)
        if read is None:
            limit = f"left out: the {item.place} takes no such option; there are {', '.join(_READERS)}"
            raise InvalidParameter(item.name[:100], item.value, limit)
        value = read(item.name, item.value)
        first, before = seen.setdefault(name, (item, value))
        if before != value:
            both = f"{first.value} ({first.place}) and {item.value} ({item.place})"
            raise InvalidParameter(name, both, "given once, or the same each time")
    return Options(**{name: value for name, (_, value) in seen.items()})  # type: ignore[arg-type]


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise InvalidParameter(name, value, "a number")


def _ratio_or_auto(name: str, value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        return _number(name, value)
    except InvalidParameter as error:
        raise InvalidParameter(name, value, "a number or auto") from error


def _integer(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise InvalidParameter(name, value, "an integer")


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise InvalidParameter(name, value, "true or false")


def _model_name(name: str, value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME:
        return value
    raise InvalidParameter(name, value, f"a name of 1 to {_LONGEST_NAME} characters")


_READERS: dict[str, Callable[[str, object], object]] = {
    "model": _model_name,
    "reduction_ratio": _ratio_or_auto,
    "max_reduction_ratio": _number,
    "max_accuracy_drop": _number,
    "top_k": _integer,
    "deadline_ms": _number,
    "explain": _flag,
}
