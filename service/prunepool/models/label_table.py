"""Labels in a table: CSV, as spreadsheets and pandas write it."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

#: The separator is the first of these that the first line has: spreadsheets write semicolons in many countries.
_SEPARATORS = ",;\t"
_INDEX_COLUMNS = ("index", "id", "idx", "class_id", "class_index", "class_idx", "label_index", "label_id", "")
_NAME_COLUMNS = ("name", "label", "class", "class_name", "label_name", "title", "description", "words")
_INDEX = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
_SYNSET = re.compile(r"n\d{8}", re.ASCII)


class TableInvalid(ValueError):
    """A table has no labels in it; the message is a clause that says why."""


class Row(NamedTuple):
    """A class.

    Attributes:
        line: of the file, from 1.
        number: of the class, as it is there; None where the order of the lines is that of the classes.
        name: of the class.
    """

    line: int
    number: str | None
    name: str


def read_table(text: str) -> list[Row]:
    """The classes of a table, in the order of its lines.

    With a header, its columns are found by their names, and others are ignored; without one, a line is an index and
    a name in either order, a WordNet id and a name, or a name alone.

    Raises:
        TableInvalid: no column is one of names, or a line has too few.
    """
    separator = next((one for one in _SEPARATORS if one in text.partition("\n")[0]), ",")
    lines = text.replace("\r\n", "\n").split("\n")
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend(
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))
        )
    except csv.Error as error:
        raise TableInvalid(f"line {reader.line_num}: {error}") from None
    if not rows:
        raise TableInvalid("it is empty")
    index, name, first = _columns([row for _, row in rows])
    found: list[Row] = []
    for line, row in rows[first:]:
        if len(row) <= max(name, index or 0):
            raise TableInvalid(f"line {line} has {len(row)} columns, separated by {separator!r}")
        found.append(Row(line, None if index is None else row[index], row[name]))
    if not found:
        raise TableInvalid("it has a header and no line after it")
    return found


def _columns(rows: Sequence[Sequence[str]]) -> tuple[int | None, int, int]:
    """The column of indices, that of names, and the first row after the header."""
    head = [cell.lower() for cell in rows[0]]
    names = [head.index(one) for one in _NAME_COLUMNS if one in head]
    if names and not any(map(_INDEX.fullmatch, head)):
        return next((head.index(one) for one in _INDEX_COLUMNS if one in head), None), names[0], 1
    if len(head) == 1:
        return None, 0, 0
    for index, name in ((0, 1), (1, 0)):
        if all(len(row) > 1 and _INDEX.fullmatch(row[index]) for row in rows):
            return index, name, 0
    if all(len(row) > 1 and _SYNSET.fullmatch(row[0]) for row in rows):
        return None, 1, 0
    columns = ", ".join(map(repr, rows[0]))
    wanted = " or ".join(_NAME_COLUMNS[:3])
    raise TableInvalid(f"line 1 has {columns}: it names no column {wanted}, and not all lines have an index")
