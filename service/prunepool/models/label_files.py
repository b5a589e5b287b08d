"""Reads the names of a model's classes from the files that people have them in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunepool.errors import InvalidParameter
from prunepool.files import NotUtf8, read_text
from prunepool.models.label_table import TableInvalid, read_table

#: Bytes; the labels of ImageNet's 21,841 classes have about one million.
_LONGEST_FILE = 64 << 20
#: Suffixes of files with one label a line, and of tables.
_LINES = frozenset({"", ".txt", ".text", ".names"})
_TABLES = frozenset({".csv", ".tsv"})
#: Members of JSON documents that hold labels, the first one that is there; in `pretrained_cfg` too, as timm has it.
_MEMBERS = ("id2label", "label_names", "labels", "classes", "names", "label2id", "class_to_idx")
_NESTED = "pretrained_cfg"
#: Members of an object that is a class.
_NAME_OF, _INDEX_OF = ("name", "label", "class"), ("id", "index", "label_index")
_SYNSET = re.compile(r"n\d{8}", re.ASCII)
_INDEX = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_JSON = "a JSON list of names, an object of indices to names or of names to indices, or one with a member "
_JSON += ", ".join(_MEMBERS)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read labels from a file.

    Text has a label a line; a line ends at a newline, with or without a carriage return, and nowhere else. Lines
    that all begin with a WordNet id (`n01440764 tench`) are labels without it. JSON has one of these forms, or one
    of them as the member `id2label` (Hugging Face), `label_names` (timm), `labels`, `classes`, `names`, `label2id`
    or `class_to_idx` (torchvision):

        ["tench", …]    [{"id": 0, "name": "tench"}, …]    {"0": "tench", …}    {"0": ["n01440764", "tench"], …}
        {"tench": 0, …}

    A table (.csv, .tsv) has an index and a name a line, in the columns that its header names so, or without a
    header `0,tench`, `tench,0`, `n01440764,tench` or `tench`.

    Raises:
        InvalidParameter: the file is unreadable or has another form; names the place and the value.
    """
    suffix = path.suffix.lower()
    if suffix not in (".json", *_LINES, *_TABLES):
        raise _refused(path, f"a .txt file with a label a line, .json or .csv; it is a {suffix}")
    text = _text_of(path)
    if suffix == ".json":
        labels = _from_json(text, path)
    else:
        labels = _from_table(text, path) if suffix in _TABLES else _from_lines(text, path)
    for index, label in enumerate(labels):
        if found := _CONTROL.search(label):
            place = f"line {index + 1}" if suffix in _LINES else f"number {index}"
            raise _refused(
                path, f"text without control characters; {place} has {found[0]!r} in {label[:80]!r}"
            )
    return labels


def _text_of(path: Path) -> str:
    try:
        return read_text(path, _LONGEST_FILE)
    except OSError as error:
        raise _refused(path, f"a readable file ({error.strerror or error})") from error
    except NotUtf8 as error:
        raise _refused(path, f"a readable file of UTF-8 text; {error}") from None


def _from_lines(text: str, path: Path) -> tuple[str, ...]:
    # Not splitlines(), which also splits at U+2028, U+0085 and others: the labels after it would move by one.
    lines = [line.removesuffix("\r").strip(" \t") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        line = lines.index("") + 1 if lines else 1
        raise _refused(path, f"one label a line; line {line} is empty")
    with_ids = [line.split(maxsplit=1) for line in lines]
    if all(len(parts) == 2 and _SYNSET.fullmatch(parts[0]) for parts in with_ids):
        return tuple(name for _, name in with_ids)
    return tuple(lines)


def _from_table(text: str, path: Path) -> tuple[str, ...]:
    form = "a table of indices and names"
    try:
        rows = read_table(text)
    except TableInvalid as error:
        raise _refused(path, f"{form}; {error}") from None
    for row in rows:
        if not row.name:
            raise _refused(path, f"{form}, none of them empty; line {row.line} has no name")
    if all(row.number is None for row in rows):
        return tuple(row.name for row in rows)
    numbers = (row.number or "" for row in rows)
    indices = [int(text) if _INDEX.fullmatch(text) else text for text in numbers]
    pairs = list(zip(indices, (row.name for row in rows), strict=True))
    return tuple(str(name) for name in _numbered(pairs, path, "a table"))


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        document = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, path))
    except RecursionError:
        raise _refused(path, f"{_JSON}; it is nested too deeply") from None
    except ValueError as error:
        hint = "; it may have a document a line" if str(error).startswith("Extra data") else ""
        raise _refused(path, f"{_JSON} (it is not JSON: {error}{hint})") from error
    labels = _described(document, _labels_in(document))
    if isinstance(labels, Mapping):
        labels = _in_order(labels, path)
    if not isinstance(labels, Sequence) or isinstance(labels, str) or not labels:
        raise _refused(path, f"{_JSON}; it is {_kind(labels)}")
    labels = _of_objects(labels, path)
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise _refused(path, f"JSON with names of text that is not empty; number {index} is {label!r}")
    return tuple(str(label) for label in labels)


def _object(pairs: list[tuple[str, object]], path: Path) -> dict[str, object]:
    counts = Counter(key for key, _ in pairs)
    for key, count in counts.items():
        if count > 1:
            raise _refused(path, f"JSON whose keys are there once; {key!r} is there {count} times")
    return dict(pairs)


def _labels_in(document: object) -> object:
    """Take the labels out of a configuration; anything else is returned as it is."""
    if not isinstance(document, Mapping):
        return document
    for holder in (document, document.get(_NESTED)):
        if isinstance(holder, Mapping):
            for member in _MEMBERS:
                if isinstance(holder.get(member), Mapping | list):
                    return holder[member]
    return document


def _described(document: object, labels: object) -> object:
    """Replace WordNet ids, as timm's configurations have them, by the descriptions beside them."""
    if not isinstance(document, Mapping) or not isinstance(labels, list):
        return labels
    nested = document.get(_NESTED)
    for holder in (document, nested if isinstance(nested, Mapping) else {}):
        texts = holder.get("label_descriptions")
        ids = all(isinstance(label, str) and _SYNSET.fullmatch(label) for label in labels)
        if ids and isinstance(texts, Mapping) and all(label in texts for label in labels):
            return [texts[label] for label in labels]
    return labels


def _in_order(labels: Mapping[str, object], path: Path) -> list[object]:
    """Put the labels of an object in the order of their indices, which are its keys or its values."""
    if labels and all(isinstance(v, int) and not isinstance(v, bool) for v in labels.values()):
        return _numbered([(index, name) for name, index in labels.items()], path)
    if labels and all(_SYNSET.fullmatch(key) for key in labels):
        # ImageNet's classes are in the order of their WordNet ids.
        return [labels[key] for key in sorted(labels)]
    return _numbered([(int(k) if _INDEX.fullmatch(k) else k, name) for k, name in labels.items()], path)


def _of_objects(labels: Sequence[object], path: Path) -> Sequence[object]:
    """Take the names out of `["n01440764", "tench"]` or of `{"id": 0, "name": "tench"}`."""
    if all(isinstance(one, list) and len(one) == 2 for one in labels):
        return [one[1] for one in labels if isinstance(one, list)]
    if not all(isinstance(one, Mapping) for one in labels):
        return labels
    pairs = []
    for number, one in enumerate(labels):
        assert isinstance(one, Mapping)
        index = next((one[key] for key in _INDEX_OF if key in one), number)
        pairs.append((index, next((one[key] for key in _NAME_OF if key in one), None)))
    return _numbered(pairs, path)


def _numbered(pairs: Sequence[tuple[object, object]], path: Path, form: str = "JSON") -> list[object]:
    """Put names in the order of their indices, which must be 0, 1, …"""
    found: dict[int, object] = {}
    limit = f"{form} with the indices 0 to {len(pairs) - 1}"
    for index, name in pairs:
        if not isinstance(index, int) or isinstance(index, bool):
            raise _refused(path, f"{limit}; it has {str(index)[:80]!r}")
        if index in found:
            raise _refused(path, f"{limit}, each once; {found[index]!r} and {name!r} have {index}")
        found[index] = name
    missing = next((index for index in range(len(pairs)) if index not in found), None)
    if missing is not None:
        raise _refused(path, f"{limit}; {missing} is missing")
    return [found[index] for index in range(len(pairs))]


def _kind(document: object) -> str:
    if isinstance(document, list | dict):
        return "empty"
    return "null" if document is None else f"{json.dumps(document)[:80]}"


def _refused(path: Path, limit: str) -> InvalidParameter:
    return InvalidParameter("labels", str(path), limit)
