"""Connections are as many as the files that the process may have open allow."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from prunepool.server import open_files
from prunepool.settings import Settings

INFINITE = resource.RLIM_INFINITY


class Limits:
    """`ulimit -n` of a process that has some files open."""

    def __init__(self, soft: int, hard: int, open_now: int) -> None:
        self.now = (soft, hard)
        self.open_now = open_now

    def lowered(self, max_connections: int, grpc_port: int | None = None) -> tuple[int, list[Any]]:
        """The connections that there may be, and the lines of the log."""
        with pytest.MonkeyPatch.context() as patch, capture_logs() as lines:
            patch.setattr(open_files.resource, "getrlimit", lambda _: self.now)
            patch.setattr(open_files.resource, "setrlimit", self._set)
            patch.setattr(open_files, "_open_now", lambda: self.open_now)
            found = open_files.within_open_files(
                Settings(max_connections=max_connections, grpc_port=grpc_port)
            )
        return found.max_connections, lines

    def _set(self, _: int, limits: tuple[int, int]) -> None:
        soft, hard = limits
        assert hard == self.now[1], "the hard limit is the operator's"
        assert hard == INFINITE or soft <= hard
        self.now = limits


@pytest.mark.parametrize("hard", [INFINITE, 10_000])
def test_the_soft_limit_is_raised_as_far_as_it_is_needed(hard: int) -> None:
    limits = Limits(256, hard, 40)
    assert limits.lowered(900) == (900, [])
    assert limits.now == (1040, hard)


def test_grpc_has_as_many_connections_beside_those_of_http() -> None:
    limits = Limits(256, INFINITE, 40)
    assert limits.lowered(900, grpc_port=0) == (900, [])
    assert limits.now == (1940, INFINITE)
    connections, (line,) = Limits(256, 256, 40).lowered(900, grpc_port=0)
    assert connections == line["lowered_to"] == 152 // 2


def test_a_limit_that_is_high_enough_stays() -> None:
    limits = Limits(5000, 10_000, 40)
    assert limits.lowered(900) == (900, [])
    assert limits.now == (5000, 10_000)


def test_where_no_more_is_allowed_there_are_fewer_connections_and_the_log_says_so() -> None:
    connections, (line,) = Limits(256, 256, 40).lowered(900)
    assert connections == 256 - 40 - 64
    assert (line["max_connections"], line["lowered_to"], line["open_files_allowed"]) == (900, 152, 256)
    assert "ulimit -n" in line["event"]


@given(
    soft=st.integers(3, 3000),
    more=st.integers(0, 3000),
    open_now=st.integers(3, 200),
    wanted=st.integers(1, 2000),
)
def test_there_is_room_for_every_connection_and_what_else_is_open(
    soft: int, more: int, open_now: int, wanted: int
) -> None:
    limits = Limits(soft, soft + more, open_now)
    connections, lines = limits.lowered(wanted)
    assert connections == wanted if not lines else 1 <= connections < wanted or wanted == 1
    assert connections == 1 or connections + open_now <= limits.now[0]
    assert limits.now[0] >= soft


def test_files_that_are_open_are_counted() -> None:
    before = open_files._open_now()
    with Path("/dev/null").open():
        assert open_files._open_now() == before + 1
