"""Published figures say on which processor and in which number format they were measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from prunepool import processor

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("performance.md", "elastic.md"))]
DTYPES = ("float32", "bfloat16", "int8")
#: A table row with a number of images per second, of milliseconds, or a factor.
FIGURES = re.compile(r"^\|.*(images/s|\bms\b|×\d).*\|$", re.MULTILINE)


def sections() -> Iterator[Any]:
    for page in PAGES:
        for text in re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE):
            if FIGURES.search(text):
                yield pytest.param(page, text, id=f"{page.name}: {text.splitlines()[0][:40]}")


@pytest.mark.parametrize(("page", "text"), list(sections()))
def test_a_section_with_figures_names_instructions_and_format(page: Path, text: str) -> None:
    assert re.search(r"AVX2|AVX-512", text), "which instructions does the processor have?"
    assert any(dtype in text for dtype in DTYPES), "which number format ran?"
    for link in re.findall(r"\(([^()]*benchmarks/[^()]*\.json)\)", text):
        report = orjson.loads((page.parent / link).read_bytes())
        if "environment" in report:
            widest = processor.summary(report["environment"]["instructions"]).split(",")[0]
            assert widest in text, f"{link} was measured with {widest}"
