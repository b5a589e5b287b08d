"""Where one request ends and the next begins: uvicorn's protocol, stricter about what has more than one reading."""

from __future__ import annotations

from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prunepool.api.connection import Arrival
from prunepool.api.exchange import Exchange
from prunepool.api.head import fault_of, without_upgrade
from prunepool.api.refusal import Refusal, bad_request

#: As large as common servers and proxies allow.
MAX_HEAD_BYTES = 32 * 1024


class FramedHttpProtocol(HttpToolsProtocol):
    """Reads the requests of a connection, and refuses those that are ambiguous or whose headers are too long.

    A subclass says how a request is refused, and sets `_arrival` when one begins.
    """

    _arrival: Arrival
    _exchange: Exchange  #: the newest
    _running: Exchange | None = None  #: the one whose application runs, or ran last
    _in_head = True  #: between two bodies
    _head_bytes = 0
    _framing_bytes = 0  #: since the last byte of a body
    _upgrade_offered = False
    _ended = False  #: no further request is read

    def _refuse(self, refusal: Refusal) -> None:
        """Send the last response of the connection, after those that are still due, and read no more."""
        raise NotImplementedError

    def _note(self, refusal: Refusal) -> None:
        """Count a request that no route sees."""
        raise NotImplementedError

    def _unserved(self) -> Refusal | None:
        """Return why no request of this connection is served; None if they are."""
        raise NotImplementedError

    def _read(self, data: bytes) -> int:
        """Parse data in pieces, so that no more than `MAX_HEAD_BYTES` of headers are ever parsed.

        Returns:
            How many bytes are left, because they come after the last request.
        """
        rest = memoryview(data)
        while rest and not self._ended and not self.transport.is_closing():
            piece = MAX_HEAD_BYTES - self._head_bytes + 1 if self._in_head else MAX_HEAD_BYTES
            self._parse(rest[:piece])
            rest = rest[piece:]
        return len(rest)

    def _parse(self, data: memoryview) -> None:
        """Parse a piece, and limit the bytes that are not part of a body."""
        if self._in_head:
            self._head_bytes += len(data)
        else:
            self._framing_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            if not self._ended:
                self._refuse_bytes(f"the bytes are no HTTP request: {error}")
        if self._ended:
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            limit = f"the request line and headers must end within {MAX_HEAD_BYTES} bytes"
            self._refuse(Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", limit))
        elif not self._in_head and self._framing_bytes > MAX_HEAD_BYTES:
            self._refuse_bytes(f"chunk extensions and trailers must end within {MAX_HEAD_BYTES} bytes")

    def _feed(self, data: memoryview) -> None:
        """Feed the parser. Upgrades that are offered are not taken: their requests are parsed without the offer.

        The parser itself takes what follows such headers for another protocol, and so a body for the next request.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                self._upgrade_offered = False
                method, version = self.parser.get_method(), self.parser.get_http_version()
                self.parser = _new_parser(self)
                self.parser.feed_data(without_upgrade(method, self.url, version, self.headers))
            else:
                return

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers, which come after the body, are ignored."""
        if self._in_head:
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to answer; :func:`read_body` counts the bytes of the body."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if self.parser.should_upgrade() and method != b"CONNECT":
            self._upgrade_offered = True
            return
        refusal = self._unserved() or fault_of(method, version, self.headers)
        if refusal is not None:
            self._refuse(refusal)
            raise httptools.HttpParserCallbackError("refused")  # stops the parser
        if version == "1.0":
            self.expect_100_continue = False
        self.app = self._exchange = Exchange(self.config.loaded_app, self._on_begin)
        super().on_headers_complete()
        self._exchange.cycle = self.cycle
        self.cycle.keep_alive = self.parser.should_keep_alive()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """Let the reader of the body have a piece."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Prepare for the headers of the next request."""
        if self._upgrade_offered:
            return
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = self._framing_bytes = 0
        self._ended = not self.parser.should_keep_alive()

    def _on_begin(self, exchange: Exchange) -> None:
        self._running = exchange

    def _refuse_bytes(self, detail: str) -> None:
        """Refuse what the parser does not take: in the headers, or in the body of a request that is answered."""
        if self._in_head:
            self._refuse(bad_request(detail))
            return
        self._ended = True
        if self._exchange.begun:
            self._arrival.fail(detail)
        else:
            self._exchange.refusal = bad_request(detail)
            self._note(self._exchange.refusal)


def _new_parser(protocol: FramedHttpProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(protocol)
    # As uvicorn has it: what follows a request with `Connection: close` is ignored, and no error.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
