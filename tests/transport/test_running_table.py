"""What an engine shows of its device, for those who look after its death."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

from prunepool.transport.zmq.running_table import RunningTable


def test_only_what_is_on_the_device_is_shown_and_to_its_own_front_end() -> None:
    table = RunningTable()
    rows = [table.row(frontend, number) for frontend in (0, 1) for number in (1, 2**40)]
    for row in rows[1:]:
        assert row is not None
        row.set()
    assert (set(table.numbers(0)), set(table.numbers(1)), set(table.numbers(2))) == (
        {2**40},
        {1, 2**40},
        set(),
    )
    assert rows[1] is not None
    rows[1].clear()
    assert set(table.numbers(0)) == set()
    table.clear()
    assert set(table.numbers(1)) == set()


def test_a_row_is_used_again_and_one_that_is_over_changes_nothing() -> None:
    table = RunningTable(rows=1)
    first = table.row(0, 1)
    assert first is not None
    assert table.row(0, 2) is None
    first.set()
    first.free()
    second = table.row(0, 3)
    assert second is not None
    second.set()
    first.clear()
    first.set()
    assert set(table.numbers(0)) == {3}


def run(table: RunningTable, connection: Connection) -> None:
    row = table.row(0, 5)
    assert row is not None
    row.set()
    connection.send(b"")
    connection.recv()


def test_it_outlives_the_process_that_wrote_it() -> None:
    context = multiprocessing.get_context("spawn")
    table = RunningTable()
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(table, theirs))
    process.start()
    assert ours.poll(30)
    process.kill()
    process.join(30)
    assert set(table.numbers(0)) == {5}
