"""The ids of requests, which answers repeat and log lines show."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers

#: Printable ASCII, without spaces at the ends: safe in a header and in a log line.
_VALID = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?")


def new_id() -> str:
    """Make an id that no other request has."""
    return str(uuid.uuid4())


def request_id(headers: Headers, make_id: Callable[[], str] = new_id) -> str:
    """Return the id that a request brings in `X-Request-ID`, or a new one in place of an unsafe one or none."""
    given = headers.get("x-request-id", "")
    return given if _VALID.fullmatch(given) else make_id()
