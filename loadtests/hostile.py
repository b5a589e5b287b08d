"""Misbehaving clients: they disconnect, send slowly, or send invalid requests."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import orjson
from ledger import VANISHED
from servers import Server


def request(server: Server, body: bytes, *, kind: str = "image/jpeg", length: int | None = None) -> bytes:
    """Encode a classification request.

    Args:
        server: whom to ask.
        body: of the request.
        kind: what it says that it is.
        length: what it says that its length is; its length, if not given.
    """
    host, port = server.address
    head = (
        f"POST /classify?top_k=1 HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


async def vanish(server: Server, image: bytes, source: random.Random) -> str:
    """Send a request and disconnect while it is sent, queued or running; return its outcome."""
    reader, writer = await asyncio.open_connection(*server.address)
    whole = request(server, image)
    try:
        if source.random() < 0.2:
            writer.write(whole[: source.randrange(1, len(whole))])
            await asyncio.sleep(source.uniform(0.0, 0.1))
            return VANISHED
        writer.write(whole)
        try:
            async with asyncio.timeout(source.uniform(0.0, 0.4)):
                return "ok" if b" 200 " in await reader.readline() else VANISHED
        except TimeoutError:
            return VANISHED
    finally:
        writer.transport.abort()


async def dawdle(server: Server, image: bytes, seconds: float) -> tuple[float, str]:
    """Send a byte now and then; return how long the server accepted that, and its response."""
    reader, writer = await asyncio.open_connection(*server.address)
    begin = time.perf_counter()
    ended = asyncio.create_task(reader.read())
    try:
        for byte in request(server, image):
            writer.write(bytes([byte]))
            done, _ = await asyncio.wait([ended], timeout=0.2)
            if done or time.perf_counter() - begin > seconds:
                break
    finally:
        writer.transport.abort()
    with suppress(ConnectionError):
        answer = await ended
        if body := answer.partition(b"\r\n\r\n")[2]:
            return time.perf_counter() - begin, orjson.loads(body)["code"]
    return time.perf_counter() - begin, VANISHED


def rubbish(server: Server, image: bytes, source: random.Random) -> Iterator[bytes]:
    """Yield invalid requests without end, each wrong in one way."""
    noise = source.randbytes(4000)
    wrong: Sequence[bytes] = (
        request(server, image[: len(image) // 2]),
        request(server, image[:200] + noise),
        request(server, noise),
        request(server, b""),
        request(server, image, kind="text/plain"),
        request(server, noise, kind="multipart/form-data; boundary=x"),
        request(server, b'{"image": "?"}', kind="application/json"),
        request(server, b"", length=10**12),
        request(server, image).replace(b"top_k=1", b"reduction_ratio=7"),
        request(server, image).replace(b"HTTP/1.1", b"HTTP/9.9"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise[:200],
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    )
    while True:
        yield from wrong


async def refused(server: Server, raw: bytes) -> tuple[int, str]:
    """Send bytes; return status and code of the response, or 0 and "" if the connection was closed."""
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(raw)
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(found[1]) if found else 0)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0, ""
    finally:
        writer.transport.abort()
    return int(head.split()[1]), orjson.loads(body)["code"] if body else ""
