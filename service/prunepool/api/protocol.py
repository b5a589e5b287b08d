"""HTTP/1.1 as uvicorn and httptools speak it, with a limit on what comes before the body."""

from __future__ import annotations

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prunepool.api.problems import MEDIA_TYPE

#: As much as common servers and proxies let through.
MAX_HEAD_BYTES = 32 * 1024


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends a connection whose request line and headers do not end; httptools itself would collect them."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Count what arrives before the headers are complete, then parse it."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """From here on the body is counted, by who reads it."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another request's head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def _refuse(self) -> None:
        document = {
            "type": "urn:prunepool:error:headers_too_large",
            "title": "Request Header Fields Too Large",
            "status": 431,
            "code": "headers_too_large",
            "detail": f"the request line and headers must end within {MAX_HEAD_BYTES} bytes",
        }
        body = orjson.dumps(document)
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
