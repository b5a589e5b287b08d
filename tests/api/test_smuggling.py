"""Where one request ends and the next begins is never in doubt: what others could read differently is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from raw_http import RawConnection

from prunepool.settings import Settings
from prunepool.testing import FakeService

NEXT = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"5\r\nphoto\r\n0\r\n\r\n"


def post(headers: bytes = b"", body: bytes = b"", *, start: bytes = b"POST /classify HTTP/1.1") -> bytes:
    return start + b"\r\nHost: x\r\n" + headers + b"\r\n" + body


def get(start: bytes = b"GET /healthz HTTP/1.1", headers: bytes = b"Host: x\r\n") -> bytes:
    return start + b"\r\n" + headers + b"\r\n"


AMBIGUOUS = {
    "length and chunks": post(b"Content-Length: 5\r\n" + CHUNKED, CHUNKS),
    "chunks and length": post(CHUNKED + b"Content-Length: 5\r\n", CHUNKS),
    "length of the first of two requests, and chunks": post(b"Content-Length: 4\r\n" + CHUNKED, b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 5\r\nContent-Length: 40\r\n", b"photo"),
    "the same length twice": post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"photo"),
    "a list of lengths": post(b"Content-Length: 5, 5\r\n", b"photo"),
    "length with a sign": post(b"Content-Length: +5\r\n", b"photo"),
    "negative length": post(b"Content-Length: -5\r\n", b"photo"),
    "length in hexadecimal": post(b"Content-Length: 0x5\r\n", b"photo"),
    "length with a space": post(b"Content-Length: 1 5\r\n", b"photo"),
    "no length": post(b"Content-Length: \r\n", b"photo"),
    "length that overflows": post(b"Content-Length: 18446744073709551621\r\n", b"photo"),
    "space before the colon": post(b"Content-Length : 5\r\n", b"photo"),
    "space before the colon of chunks": post(b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "identity": post(b"Transfer-Encoding: identity\r\n"),
    "another coding": post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS),
    "another coding after chunks": post(b"Transfer-Encoding: chunked, gzip\r\n", CHUNKS),
    "chunks twice": post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKS),
    "chunks in two headers": post(CHUNKED * 2, CHUNKS),
    "coding that ends like chunks": post(b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "chunks with a parameter": post(b"Transfer-Encoding: chunked;q=1\r\n", CHUNKS),
    "chunks in quotes": post(b'Transfer-Encoding: "chunked"\r\n', CHUNKS),
    "chunks after a vertical tab": post(b"Transfer-Encoding: \x0bchunked\r\n", CHUNKS),
    "chunks in HTTP/1.0": post(CHUNKED, CHUNKS, start=b"POST /classify HTTP/1.0"),
    "chunks in a connection of HTTP/1.0 that is kept": post(
        CHUNKED + b"Connection: keep-alive\r\n", CHUNKS, start=b"POST /classify HTTP/1.0"
    ),
    "folded line": post(b"X: a\r\n b\r\nContent-Length: 5\r\n", b"photo"),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKS),
    "space before the first header": get(headers=b" X: y\r\nHost: x\r\n"),
    "lines that end with LF": post(b"Content-Length: 5\r\n", b"photo").replace(b"\r\n", b"\n"),
    "one line that ends with LF": post(b"X: a\nContent-Length: 5\r\n", b"photo"),
    "one line that ends with CR": post(b"X: a\rContent-Length: 5\r\n", b"photo"),
    "NUL in a value": get(headers=b"Host: x\r\nX: a\x00b\r\n"),
    "a line without a colon": get(headers=b"Host: x\r\nno colon\r\n"),
    "a header without a name": get(headers=b"Host: x\r\n: y\r\n"),
    "a name with brackets": get(headers=b"Host: x\r\nA(b): y\r\n"),
    "two hosts": get(headers=b"Host: x\r\nHost: y\r\n"),
    "the same host twice": get(headers=b"Host: x\r\nhOST: x\r\n"),
    "two hosts in HTTP/1.0": get(b"GET /healthz HTTP/1.0", b"Host: x\r\nHost: y\r\n"),
    "no host": get(headers=b""),
    "a list of hosts": get(headers=b"Host: x, y\r\n"),
    "a host with a path": get(headers=b"Host: x/y\r\n"),
    "a host with a user": get(headers=b"Host: x@y\r\n"),
    "a host with a wrong port": get(headers=b"Host: x:8a\r\n"),
    "HTTP/2.0": get(b"GET /healthz HTTP/2.0"),
    "HTTP/1.2": get(b"GET /healthz HTTP/1.2"),
    "HTTP/0.9": get(b"GET /healthz HTTP/0.9"),
    "HTTP/1.10": get(b"GET /healthz HTTP/1.10"),
    "HTTP/1": get(b"GET /healthz HTTP/1"),
    "no version": get(b"GET /healthz"),
    "version in lower case": get(b"GET /healthz http/1.1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method in lower case": get(b"get /healthz HTTP/1.1"),
    "tabs in the request line": get(b"GET\t/healthz\tHTTP/1.1"),
    "bytes of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "words": b"HELLO\r\n\r\n",
    "HTTP/2.0 with an upgrade": get(
        b"GET /healthz HTTP/2.0", b"Host: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    ),
    "two hosts with an upgrade": get(
        headers=b"Host: x\r\nHost: y\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    ),
    **{
        f"chunk size {size!r}": post(CHUNKED, size + b"\r\nphoto\r\n0\r\n\r\n")
        for size in (
            b"",
            b"g",
            b"+5",
            b"-5",
            b"0x5",
            b" 5",
            b"5 ",
            b"5 ;a",
            b"5\n",
            b"1_0",
            b"10000000000000005",
        )
    },
    "chunk that ends with LF": post(CHUNKED, b"5\r\nphoto\n0\r\n\r\n"),
    "chunk without an end": post(CHUNKED, b"5\r\nphoto0\r\n\r\n"),
    "chunk longer than its size": post(CHUNKED, b"4\r\nphoto\r\n0\r\n\r\n"),
    "extension that ends with LF": post(CHUNKED, b"5;a\nphoto\r\n0\r\n\r\n"),
    "extension with CR": post(CHUNKED, b"5;a\rb\r\nphoto\r\n0\r\n\r\n"),
    "extension with NUL": post(CHUNKED, b"5;\x00\r\nphoto\r\n0\r\n\r\n"),
    "a length as trailer": post(CHUNKED, b"5\r\nphoto\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "a coding as trailer": post(CHUNKED, b"5\r\nphoto\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
}

CLEAR = {
    "a body": post(b"Content-Length: 5\r\n", b"photo"),
    "a length with zeros": post(b"Content-Length: 005\r\n", b"photo"),
    "a length between tabs": post(b"Content-Length:\t5\t\r\n", b"photo"),
    "chunks": post(CHUNKED, CHUNKS),
    "chunks in another case": post(b"tRANSFER-eNCODING: cHUNKED\r\n", CHUNKS),
    "small chunks": post(CHUNKED, b"2\r\nph\r\n003\r\noto\r\n00\r\n\r\n"),
    "extensions": post(CHUNKED, b'5;a=b;c="d;\\"e"\r\nphoto\r\n0;f\r\n\r\n'),
    "trailers": post(
        CHUNKED, b"5\r\nphoto\r\n0\r\nX: y\r\nHost: z\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    ),
    "an offer of h2c, as Java's HttpClient makes it": post(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\nContent-Length: 5\r\n",
        b"photo",
    ),
    "an offer with chunks": post(b"Connection: upgrade\r\nUpgrade: h2c\r\n" + CHUNKED, CHUNKS),
    "an offer of a WebSocket": post(
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n", b"photo"
    ),
    "an offer without Connection": post(b"Upgrade: h2c\r\nContent-Length: 5\r\n", b"photo"),
    "several offers": post(
        b"Upgrade: h2c\r\nConnection: upgrade\r\nUpgrade: TLS/1.0, foo\r\nContent-Length: 5\r\n", b"photo"
    ),
    "empty lines before": b"\r\n\r\n" + post(b"Content-Length: 5\r\n", b"photo"),
    "a name and a port": get(headers=b"Host: photos.example:8000\r\n"),
    "an address": get(headers=b"Host: [::1]:8000\r\n"),
    "an empty host": get(headers=b"Host:\r\n"),
    "an offer without a body": get(headers=b"Host: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"),
    "an absolute target": get(b"GET http://x/healthz HTTP/1.1"),
}


@pytest.fixture(scope="module")
def address(serving: Any) -> Iterator[tuple[str, int]]:
    """The address of a server over a fake engine."""
    with serving(Settings.model_construct(request_timeout_s=5.0), FakeService()) as url:
        yield httpx.URL(url).host, httpx.URL(url).port or 0


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


ways = pytest.mark.parametrize("cut", [lambda data: [data], bytewise], ids=["at once", "bytewise"])


@ways
@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_is_ambiguous_is_refused_and_nothing_after_it_is_read(
    address: tuple[str, int], sent: bytes, cut: Callable[[bytes], list[bytes]]
) -> None:
    with RawConnection(address) as connection:
        connection.send(*cut(sent), SMUGGLED)
        (response,) = connection.responses()
    assert (response.status, response.code) == (400, "bad_request")
    assert response.headers["connection"] == "close"


@ways
@pytest.mark.parametrize("sent", CLEAR.values(), ids=CLEAR.keys())
def test_what_is_clear_is_answered_once_and_the_connection_goes_on(
    address: tuple[str, int], sent: bytes, cut: Callable[[bytes], list[bytes]]
) -> None:
    with RawConnection(address) as connection:
        for _ in range(2):
            connection.send(*cut(sent))
            response = connection.response()
            assert response is not None
            assert response.status == 200, response.body
            assert "connection" not in response.headers
        connection.send(sent + sent + NEXT)
        answers = [connection.response() for _ in range(3)]
        assert [answer and answer.status for answer in answers] == [200, 200, 200]
        assert answers[2] is not None
        assert answers[2].body == b'{"alive":true}'


@ways
def test_a_body_that_no_route_reads_is_no_request(
    address: tuple[str, int], cut: Callable[[bytes], list[bytes]]
) -> None:
    """Whether the connection goes on depends on whether the body was there before the response began."""
    with RawConnection(address) as connection:
        connection.send(*cut(get(headers=b"Host: x\r\nContent-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED))
        connection.send(get(headers=b"Host: x\r\nConnection: close\r\n"))
        responses = connection.responses()
    assert {response.body for response in responses} == {b'{"alive":true}'}
    assert "close" in responses[-1].headers["connection"]


def test_a_body_under_an_offered_upgrade_is_the_body(serving: Any) -> None:
    service = FakeService()
    with serving(Settings.model_construct(), service) as url:
        head = post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n" % len(SMUGGLED))
        with RawConnection((httpx.URL(url).host, httpx.URL(url).port or 0)) as connection:
            for pieces in ([head + SMUGGLED], [head, SMUGGLED]):
                response = connection.send(*pieces).response()
                assert response is not None
                assert response.status == 200
    assert [image for image, _ in service.calls] == [SMUGGLED, SMUGGLED]


@pytest.mark.parametrize(
    "sent",
    [
        get(b"CONNECT x:80 HTTP/1.1"),
        get(b"CONNECT x:80 HTTP/1.1", b"Host: x\r\nContent-Length: 35\r\n"),
        get(b"CONNECT x:80 HTTP/1.1", b"Host: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"),
    ],
)
def test_no_tunnel_is_opened(address: tuple[str, int], sent: bytes) -> None:
    with RawConnection(address) as connection:
        (response,) = connection.send(sent, SMUGGLED).responses()
    assert (response.status, response.code) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "endless",
    [b"0\r\nX: " + b"x" * 200_000, b"5;" + b"x" * 200_000, b"0\r\n" + b"X: y\r\n" * 40_000],
    ids=["trailer", "extension", "trailers"],
)
def test_trailers_and_extensions_come_to_an_end(address: tuple[str, int], endless: bytes) -> None:
    with RawConnection(address) as connection:
        (response,) = connection.send(post(CHUNKED), endless).responses()
    assert (response.status, response.code) == (400, "bad_request")
    assert b"must end within 32768 bytes" in response.body


def test_a_trailer_is_no_header(serving: Any) -> None:
    """A proxy checks and sets headers before the body; what comes after it must not add to them."""
    service = FakeService()
    sent = post(CHUNKED, b"5\r\nphoto\r\n0\r\nX-Reduction-Ratio: 0.5\r\n\r\n")
    with (
        serving(Settings.model_construct(), service) as url,
        RawConnection((httpx.URL(url).host, httpx.URL(url).port or 0)) as connection,
    ):
        assert connection.send(sent).response() is not None
    ((_, options),) = service.calls
    assert options.reduction_ratio is None


def test_pipelined_requests_are_answered_before_what_is_refused(address: tuple[str, int]) -> None:
    with RawConnection(address) as connection:
        sent = post(b"Content-Length: 5\r\n", b"photo") + NEXT + AMBIGUOUS["two hosts"] + SMUGGLED
        responses = connection.send(sent).responses()
    assert [response.status for response in responses] == [200, 200, 400]


def test_nothing_is_read_after_a_request_that_closes_the_connection(address: tuple[str, int]) -> None:
    with RawConnection(address) as connection:
        sent = get(headers=b"Host: x\r\nConnection: close\r\n") + SMUGGLED
        (response,) = connection.send(sent).responses()
    assert (response.status, response.headers["connection"]) == (200, "close")


def test_a_refused_head_request_gets_no_body(address: tuple[str, int]) -> None:
    with RawConnection(address) as connection:
        connection.send(get(b"HEAD /healthz HTTP/1.1", b""))
        response = connection.response(to_head=True)
        assert response is not None
        assert response.status == 400
        assert connection.response() is None


def test_a_client_that_is_refused_before_its_body_is_told_that_the_connection_closes(
    address: tuple[str, int],
) -> None:
    """It may send the body all the same, or leave it out: the server could not know what comes next."""
    with RawConnection(address) as connection:
        sent = b"POST /nope HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 35\r\n\r\n"
        responses = connection.send(sent).response(), connection.send(SMUGGLED).response()
    assert responses[0] is not None
    assert (responses[0].status, responses[0].headers["connection"]) == (404, "close")
    assert responses[1] is None
