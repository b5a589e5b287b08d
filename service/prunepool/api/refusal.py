"""Errors that the connection itself answers, before or without a route: their bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import orjson
from starlette.types import Send

from prunepool.api.problems import MEDIA_TYPE
from prunepool.errors import problem_document


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last response on a connection: a problem document.

    Attributes:
        status: HTTP status.
        code: error code of the document.
        detail: one sentence for people.
        retry_after_s: seconds for the Retry-After header; None for no such header.
    """

    status: HTTPStatus
    code: str
    detail: str
    retry_after_s: int | None = None

    def response(self, *, head_only: bool) -> bytes:
        """Return the whole response as it is sent.

        Args:
            head_only: leave out the body, as for HEAD.
        """
        body = self._body()
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}".encode("ascii")]
        lines += [name + b": " + value for name, value in self._headers(body)]
        return b"\r\n".join([*lines, b"", b"" if head_only else body])

    async def send(self, send: Send) -> None:
        """Send it as an ASGI application would."""
        body = self._body()
        headers = self._headers(body)
        await send({"type": "http.response.start", "status": self.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self) -> bytes:
        later = {} if self.retry_after_s is None else {"retry_after": self.retry_after_s}
        status = self.status
        return orjson.dumps(problem_document(self.code, status.phrase, status.value, self.detail, **later))

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        later = [] if self.retry_after_s is None else [(b"retry-after", b"%d" % self.retry_after_s)]
        return [
            *later,
            (b"content-type", MEDIA_TYPE.encode("ascii")),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]


def bad_request(detail: str) -> Refusal:
    """Make the refusal of what is not HTTP as RFC 9112 has it."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad_request", detail)
