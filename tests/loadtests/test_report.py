"""Reports are written where they belong, and those of two kinds of processor stay apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import report
from report import save


def measured(*instructions: str) -> dict[str, Any]:
    where = {"device": "a processor", "cores": 2, "torch": "2", "instructions": list(instructions)}
    return {"environment": where}


def test_figures_of_another_kind_of_processor_keep_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "kind", lambda: "avx512-vnni")
    first, path = measured("avx2"), tmp_path / "new" / "speed.json"
    save(first, path)
    save(measured("avx2", "avx512f", "avx512_vnni"), path)
    assert orjson.loads(path.read_bytes()) == first
    other = orjson.loads((tmp_path / "new" / "speed-avx512-vnni.json").read_bytes())
    assert "avx512_vnni" in other["environment"]["instructions"]
    again = {**measured("avx2"), "seconds": 1}
    save(again, path)
    assert orjson.loads(path.read_bytes()) == again, "of the same kind it is replaced"


@pytest.mark.parametrize("there", [b"", b"[]", b'{"environment": null}', b'{"rows": []}'])
def test_what_says_nothing_of_its_processor_is_replaced(there: bytes, tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_bytes(there)
    save(measured("avx2"), path)
    assert orjson.loads(path.read_bytes()) == measured("avx2")
