"""Log lines of ours and of libraries have the configured form and level."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import StringIO
from typing import Literal

import pytest
import structlog

from prunepool.logs import level_by_signal, logging_to, serving_logs
from prunepool.metrics import Metrics

Configure = Callable[[Literal["console", "json"], str], StringIO]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Send all lines to a stream until the end of the test."""
    with ExitStack() as stack:

        def configure(form: Literal["console", "json"], level: str) -> StringIO:
            stream = StringIO()
            stack.enter_context(logging_to(stream, form, level))
            return stream

        yield configure


def test_json_is_one_object_a_line(configure: Configure) -> None:
    stream = configure("json", "info")
    structlog.stdlib.get_logger("ours").info("served", ratio=0.5)
    logging.getLogger("theirs").warning("%s happened", "it")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["ratio"], ours["level"], ours["logger"]) == ("served", 0.5, "info", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("it happened", "warning", "theirs")
    assert ours["timestamp"].endswith("Z")


def test_json_has_names_of_files_that_are_no_utf8_and_numbers_of_any_length(configure: Configure) -> None:
    stream = configure("json", "info")
    structlog.stdlib.get_logger("ours").info("read", file=os.fsdecode(b"\xff.bin"), number=1 << 70)
    (line,) = stream.getvalue().splitlines()
    assert os.fsencode(json.loads(line)["file"]) == b"\xff.bin"
    assert json.loads(line)["number"] == 1 << 70


def test_an_exception_stays_on_its_line(configure: Configure) -> None:
    stream = configure("json", "info")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "broken" in str(json.loads(line)["exception"])


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_does_not_show_the_values_of_variables(
    configure: Configure, form: Literal["console", "json"]
) -> None:
    """They may be an image or an API key; and to print them all takes seconds, on the loop that serves."""
    stream = configure(form, "info")
    api_key = "pp_" + "secret"
    try:
        raise ValueError(f"a key of {len(api_key)} characters")
    except ValueError:
        structlog.stdlib.get_logger("ours").exception("failed")
    try:
        raise ValueError(f"a key of {len(api_key)} characters")
    except ValueError:
        logging.getLogger("theirs").exception("failed")
    written = stream.getvalue()
    assert written.count("a key of 9 characters") >= 2
    assert written.count("test_logs.py") >= 2
    assert api_key not in written


def test_the_console_is_for_people(configure: Configure) -> None:
    stream = configure("console", "info")
    structlog.stdlib.get_logger("ours").info("served", ratio=0.5)
    assert "served" in stream.getvalue()
    assert "ratio=0.5" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(("level", "written"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_lines_below_the_level_are_left_out(configure: Configure, level: str, written: int) -> None:
    stream = configure("json", level)
    log = structlog.stdlib.get_logger("ours")
    log.debug("a")
    log.info("b")
    log.warning("c")
    assert len(stream.getvalue().splitlines()) == written


def test_details_of_the_server_are_logged_at_debug_level(configure: Configure) -> None:
    stream = configure("json", "info")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert stream.getvalue() == ""


def test_configuring_again_does_not_double_the_lines(configure: Configure) -> None:
    configure("json", "info")
    stream = configure("json", "info")
    structlog.stdlib.get_logger("ours").info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_afterwards_logging_is_restored() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, structlog.get_config())
    with logging_to(StringIO(), "json", "error"):
        assert root.level == logging.ERROR
    assert (list(root.handlers), root.level, structlog.get_config()) == before


@pytest.mark.parametrize(("level", "seen"), [("warning", ["debug"]), ("debug", ["debug", "debug"])])
def test_a_signal_switches_the_level_and_another_switches_back(
    configure: Configure, level: str, seen: list[str]
) -> None:
    assert threading.current_thread() is threading.main_thread(), "no other thread can handle signals"
    stream = configure("json", level)
    log = structlog.stdlib.get_logger("ours")
    with level_by_signal(level):
        for _ in range(3):
            log.debug("detail")
            signal.raise_signal(signal.SIGUSR1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines if line["event"] == "detail"] == seen
    other = "info" if level == "debug" else "debug"
    # Whichever way it goes, the change itself is seen.
    assert [line["least"] for line in lines if line["event"] == "log level"] == [other, level, other]


def test_a_log_that_nobody_reads_stops_nothing_and_its_lines_are_counted(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    log = structlog.stdlib.get_logger("ours")
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as writer:
        monkeypatch.setattr("sys.stderr", writer)
        with serving_logs("json", "info") as lines:
            metrics.follow(metrics.log_lines_dropped, lambda: lines.dropped)
            total = 0
            while lines.dropped < 10:
                log.info("served", number=total)
                total += 1
            metrics.refresh()
            metrics.refresh()
            dropped = lines.dropped
            assert metrics.registry.get_sample_value("prunepool_log_lines_dropped_total") == dropped == 10
            read = [json.loads(reader.readline()) for _ in range(total - dropped)]
            assert [line["number"] for line in read] == list(range(total - dropped))
            told = json.loads(reader.readline())
            assert (told["event"].split(",")[0], told["lines"]) == ("log lines were dropped", 10)
            sys.stderr.write("by a library\n")
            assert reader.readline() == "by a library\n"
        assert sys.stderr is writer
