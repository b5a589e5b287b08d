"""How a command writes the lines beside its log: as text, or as JSON where a server logs JSON.

The line that says where a server listens and the one that says why it ended are not of the log, which has not begun
yet or has ended already. Who collects JSON lines gets these as JSON too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import orjson

_VARIABLE = "PRUNEPOOL_LOG_FORMAT"


class LineForm:
    """The form of the lines; one for the process."""

    def __init__(self) -> None:
        self._json = False

    def begin(self, serves: bool, environment: Mapping[str, str] = os.environ) -> None:
        """Begin a command, before its settings are known.

        Args:
            serves: whether the command is a server: others write text.
            environment: environment variables of the process.
        """
        self._json = serves and environment.get(_VARIABLE, "").lower() == "json"

    def settle(self, form: Literal["console", "json"]) -> None:
        """Take the form that a server's settings name."""
        self._json = form == "json"

    def line(self, text: str, level: str, prefix: str = "") -> str:
        """A line with its end.

        Args:
            text: of one line.
            level: `info` or `error`, as in the log.
            prefix: stands before it, if it is no JSON.
        """
        if not self._json:
            return f"{prefix}{text}\n"
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        document = {"event": text, "logger": "prunepool.cli", "level": level, "timestamp": now}
        return orjson.dumps(document).decode() + "\n"


form = LineForm()
