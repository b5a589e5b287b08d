"""Logging: text for people or JSON for machines, for our log lines and those of libraries."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from typing import Any, Literal, NoReturn, TextIO, cast

import orjson
import structlog
import structlog.tracebacks
from structlog.types import EventDict, Processor

from prunepool.queued_output import QueuedOutput, written_without_waiting

#: Seconds that the last lines have to be taken where a process ends in a hurry.
_LAST_WORDS_S = 0.5


@contextmanager
def serving_logs(
    form: Literal["console", "json"], level: str, process: str | None = None
) -> Iterator[QueuedOutput]:
    """Send all log lines of a process that serves to standard error, without ever waiting for who reads it.

    Whatever else is written to `sys.stderr` while the block runs goes the same way. What libraries write to its
    descriptor is lost where nobody reads it.

    Args:
        form: `console` for people, or `json` for machines.
        level: the lowest level that is logged: debug, info, warning or error.
        process: name of this process in its log lines, if there are several processes.

    Yields:
        What counts the lines that were dropped because nobody read them.
    """
    log = structlog.stdlib.get_logger("prunepool.logs")

    def tell(dropped: int) -> None:
        log.warning("log lines were dropped, nobody had read those before them", lines=dropped)

    before = sys.stderr
    with written_without_waiting(before), closing(QueuedOutput(before, on_resumed=tell)) as output:
        sys.stderr = cast("TextIO", output)
        try:
            with logging_to(cast("TextIO", output), form, level, process):
                yield output
        finally:
            sys.stderr = before


def exit_now(status: int) -> NoReturn:
    """End the process at once; only lines that are on their way to whoever reads them are waited for, shortly."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, QueuedOutput):
            stream.drain(_LAST_WORDS_S)
    os._exit(status)


@contextmanager
def logging_to(
    stream: TextIO, form: Literal["console", "json"], level: str, process: str | None = None
) -> Iterator[None]:
    """Send all log lines of the process to one stream while the block runs.

    Args:
        stream: the stream.
        form: `console` for people, or `json` for machines.
        level: the lowest level that is logged: debug, info, warning or error.
        process: name of this process in its log lines, if there are several processes.
    """

    def name_process(_: Any, __: str, line: EventDict) -> EventDict:
        return line if process is None else {**line, "process": process}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        name_process,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(form, stream),
            ],
        )
    )
    root = logging.getLogger()
    handlers, before = root.handlers, {name: logging.getLogger(name).level for name in _levels(level)}
    structured = structlog.get_config()
    try:
        root.handlers = [handler]
        set_level(level)
        logging.captureWarnings(True)
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *shared,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
        yield
    finally:
        structlog.configure(**structured)
        logging.captureWarnings(False)
        for name, least_before in before.items():
            logging.getLogger(name).setLevel(least_before)
        root.handlers = handlers


def set_level(level: str) -> None:
    """Set the lowest level that is logged: debug, info, warning or error."""
    for name, least in _levels(level).items():
        logging.getLogger(name).setLevel(least)


@contextmanager
def level_by_signal(level: str, then: Callable[[int], object] = lambda number: None) -> Iterator[None]:
    """While the block runs, let SIGUSR1 switch between a level and debug (or info, if the level is debug).

    Only the main thread can handle signals; in other threads this does nothing.

    Args:
        level: the initial level.
        then: called with the signal number after each switch.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    log = structlog.stdlib.get_logger("prunepool.server")
    now, other = level, "info" if level == "debug" else "debug"

    def switch(*_: object) -> None:
        nonlocal now, other
        now, other = other, now
        set_level("info")  # so that the change itself is always logged
        log.info("log level", least=now)
        set_level(now)
        then(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, switch)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))  # one that came before waits for this
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _levels(level: str) -> dict[str, str]:
    """Return the level of each logger; libraries log details only at debug level."""
    libraries = "DEBUG" if level == "debug" else "WARNING"
    return {"": level.upper(), **dict.fromkeys(("uvicorn", "httpx", "httpcore", "PIL", "asyncio"), libraries)}


def _rendering(form: Literal["console", "json"], stream: TextIO) -> list[Processor]:
    # By default, both would add the value of every variable to a traceback: images, API keys, and seconds of work.
    if form == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer(_dumps)]
    plain = structlog.dev.plain_traceback
    colors = stream.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=8, exception_formatter=plain)]


def _dumps(line: object, default: Any) -> str:
    try:
        return orjson.dumps(line, default=default, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # it names a file whose name is no UTF-8, or has a number of more than 64 bits
        return json.dumps(line, default=default)


def request_fields(scope: MutableMapping[str, Any]) -> dict[str, object]:
    """Return the dict whose items a request's log line shows; handlers add to it, but never image data."""
    fields: dict[str, object] = scope.setdefault("state", {}).setdefault("log_fields", {})
    return fields
