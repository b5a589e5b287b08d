"""Reads a CSV of images and their classes."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prunepool.errors import InvalidParameter
from prunepool.files import NotUtf8, read_text

#: Columns; case and surrounding spaces do not matter.
FILE, LABEL = "file", "label_index"
#: Some ten million images.
_MAX_BYTES = 1 << 30
#: The separator is the first of these that the first line has: spreadsheets write semicolons in many countries.
_SEPARATORS = ",;\t"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A row of the CSV.

    Attributes:
        name: of the file, as it is there.
        label: class index.
        line: of the CSV, from 1.
    """

    name: str
    label: int
    line: int


def read_label_csv(path: Path, classes: int) -> tuple[LabelledFile, ...]:
    """Read the class of each image.

    Args:
        path: UTF-8, with or without a byte order mark; columns are separated by commas, semicolons or tabs. Other
            columns than `file` and `label_index` are ignored, and so are empty lines.
        classes: number of classes of the model.

    Returns:
        The rows, in the order of their lines.

    Raises:
        InvalidParameter: it cannot be read, or a value cannot be; names line and column.
    """
    found: dict[str, LabelledFile] = {}
    for line, row in _rows(path):
        name = (row[FILE] or "").strip()
        if not name:
            raise InvalidParameter(
                FILE, row[FILE], f"the name of an image ({path}, line {line}, column {FILE})"
            )
        if name in found:
            limit = f"there once ({path}, line {line}, column {FILE}; line {found[name].line} has it too)"
            raise InvalidParameter(FILE, name, limit)
        label = _index(row[LABEL], classes, f"{path}, line {line}, column {LABEL}")
        found[name] = LabelledFile(name, label, line)
    return tuple(found.values())


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    """Yield each row with the number of its line."""
    try:
        text = read_text(path, _MAX_BYTES)
    except OSError as error:
        raise InvalidParameter(
            "labels", str(path), f"a CSV that can be read ({error.strerror or error})"
        ) from error
    except NotUtf8 as error:
        raise InvalidParameter("labels", str(path), f"a CSV of UTF-8 text; {error}") from None
    lines = text.replace("\r\n", "\n").split("\n")
    separator = next((one for one in _SEPARATORS if one in lines[0]), ",")
    rows = csv.reader((line + "\n" for line in lines), delimiter=separator, strict=True)
    try:
        head = [name.strip().lower() for name in next(rows)]
        for name in (FILE, LABEL):
            if head.count(name) != 1:
                has = f"line 1 has {', '.join(map(repr, head)) or 'none'}, separated by {separator!r}"
                raise InvalidParameter(
                    "labels", str(path), f"a CSV with the columns {FILE} and {LABEL}; {has}"
                )
        for row in rows:
            if row:
                values = dict(zip(head, row, strict=False))
                yield rows.line_num, {name: values.get(name) for name in (FILE, LABEL)}
    except csv.Error as error:
        raise InvalidParameter(
            "labels", str(path), f"a CSV that can be read (line {rows.line_num}: {error})"
        ) from error


def _index(text: str | None, classes: int, where: str) -> int:
    digits = (text or "").strip()
    # Ten digits at most: Python refuses to read thousands, and no model has that many classes.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 10 and int(digits) < classes):
        raise InvalidParameter(LABEL, text, f"an integer from 0 to {classes - 1} ({where})")
    return int(digits)
