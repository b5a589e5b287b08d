"""The labels of a model's classes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset

from prunepool.errors import InvalidParameter


def read_labels(path: Path) -> tuple[str, ...]:
    """Read labels from a file: `.txt` with one label a line, or `.json` with a list or `{"0": "tench", …}`.

    Raises:
        InvalidParameter: the file is unreadable or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter("labels", str(path), f"a readable file of UTF-8 text ({error})") from error
    if path.suffix.lower() == ".json":
        return _from_json(text, path)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        line = lines.index("") + 1 if lines else 1
        raise InvalidParameter("labels", str(path), f"one label a line; line {line} is empty")
    return tuple(lines)


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    limit = 'a JSON list of strings, or an object of "0", "1", … to strings'
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidParameter("labels", str(path), f"{limit} ({error})") from error
    if isinstance(document, dict):
        document = [document.get(str(index)) for index in range(len(document))]
    if not isinstance(document, list) or not document:
        raise InvalidParameter("labels", str(path), limit)
    for index, label in enumerate(document):
        if not isinstance(label, str) or not label:
            raise InvalidParameter("labels", str(path), f"{limit}; number {index} is {label!r}")
    return tuple(document)


def imagenet_labels(classes: int) -> tuple[str, ...] | None:
    """The labels of the ImageNet variant with that many classes (1000, 11821, 21841, …); None if no variant has.

    The lists come with timm. A class is called by its first name if no other class has that name, else by all its
    names, else by its names with its definition.
    """
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    full = info.label_descriptions()
    first = [label.partition(",")[0] for label in full]
    times, times_full = Counter(first), Counter(full)
    return tuple(
        short if times[short] == 1 else long if times_full[long] == 1 else detailed
        for short, long, detailed in zip(first, full, info.label_descriptions(detailed=True), strict=True)
    )
