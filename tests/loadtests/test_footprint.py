"""The footprint of the service without PyTorch: what is counted, and when it is too much."""

from __future__ import annotations

from pathlib import Path

import pytest
from footprint import LIMITS, disk_mb, exceeded, table

FOUND = {
    "disk_mb": 400.0,
    "model_mb": 24.0,
    "very_first_answer_s": 4.0,
    "first_answer_s": 2.0,
    "before_mb": 200.0,
    "peak_mb": 300.0,
    "clients": 64,
    "ratio": "0.755",
    "images_per_s": 50.0,
}


def test_files_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "one.so").write_bytes(bytes(2_000_000))
    (tmp_path / "lib64").symlink_to("lib")
    (tmp_path / "python").symlink_to("/usr/bin/env")
    assert disk_mb(tmp_path) == 2.0


def test_within_the_limits_nothing_is_said() -> None:
    assert exceeded(FOUND) == []
    assert "| memory at most, 64 clients | 300 MB |" in table(FOUND, "int8")


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_is_one(name: str) -> None:
    (said,) = exceeded({**FOUND, name: LIMITS[name] * 1.01})
    assert said.startswith(f"{name} is ")
