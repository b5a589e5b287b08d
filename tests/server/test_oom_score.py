"""Which process the kernel ends first."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.server.oom_score import ENGINE, FRONTEND, raise_oom_score


@pytest.mark.parametrize(("before", "by", "after"), [(0, 500, 500), (-500, 200, -300), (900, 500, 1000)])
def test_a_score_is_raised_and_never_beyond_the_highest(
    tmp_path: Path, before: int, by: int, after: int
) -> None:
    file = tmp_path / "oom_score_adj"
    file.write_text(f"{before}\n")
    raise_oom_score(by, file)
    assert int(file.read_text()) == after


def test_where_the_kernel_has_no_such_thing_nothing_happens(tmp_path: Path) -> None:
    raise_oom_score(500, tmp_path / "none" / "oom_score_adj")


def test_an_engine_ends_before_a_front_end() -> None:
    assert ENGINE > FRONTEND > 0
