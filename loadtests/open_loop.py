"""An open-loop client: sends each request at its time, whether or not earlier ones are answered.

A connection for each request under way, kept for the next one when it is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import cast

import httptools
import orjson

#: Largest number of idle connections.
_MOST_IDLE = 256
#: Codes of requests without a connection, and without a response.
NO_CONNECTION, NO_ANSWER = "no connection", "no answer"


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome of a request.

    Attributes:
        at: when it was due, in seconds since the beginning.
        seconds: from then to its answer.
        status: of the answer; 0: there was none.
        code: of the error, if it was one.
        ratio: the reduction ratio applied to its image; None without an answer.
    """

    at: float
    seconds: float
    status: int
    code: str
    ratio: float | None


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: the connection is open."""
        self._transport, self.open = cast("asyncio.Transport", transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: the connection is closed; ends the current request."""
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((0, b""))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body, or status 0 if the connection closed first."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        if not self.open:
            return 0, b""
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: data of the response."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser: data of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser: the response is complete."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._body))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class Sender:
    """Sends requests to a server.

    Args:
        host: its address.
        port: its port.
        images: encoded JPEGs, sent in turn.
        queries: of the requests, in turn, as in `reduction_ratio=0.5`.
    """

    def __init__(self, host: str, port: int, images: Sequence[bytes], *queries: str) -> None:
        self._host, self._port = host, port
        host_and_type = f"Host: {host}:{port}\r\nContent-Type: image/jpeg\r\n"
        self._requests = cycle(
            [
                f"POST /classify?top_k=1&{query} HTTP/1.1\r\n{host_and_type}"
                f"Content-Length: {len(image)}\r\n\r\n".encode()
                + image
                for image in images
                for query in queries or ("",)
            ]
        )
        self._idle: list[Connection] = []

    async def follow(self, times: Sequence[float], grace_period_s: float) -> list[Seen]:
        """Send a request at each of these times; give up those not answered some time after the last."""
        begin = time.perf_counter()
        tasks = []
        for at in times:
            wait = begin + at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._one(begin, at)))
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_period_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return [
            Seen(at, time.perf_counter() - begin - at, 0, NO_ANSWER, None)
            if task.cancelled()
            else task.result()
            for at, task in zip(times, tasks, strict=True)
        ]

    async def saturate(self, clients: int, seconds: float) -> float:
        """Measure saturated responses per second, in a closed loop."""
        begin = time.perf_counter()

        async def client() -> int:
            answered = 0
            while time.perf_counter() - begin < seconds:
                answered += (await self._one(begin, time.perf_counter() - begin)).status == 200
            return answered

        answered = sum(await asyncio.gather(*(client() for _ in range(clients))))
        return answered / (time.perf_counter() - begin)

    async def _one(self, begin: float, at: float) -> Seen:
        try:
            connection = await self._connection()
        except OSError:
            return Seen(at, time.perf_counter() - begin - at, 0, NO_CONNECTION, None)
        try:
            status, body = await connection.ask(next(self._requests))
        except asyncio.CancelledError:
            connection.close()
            raise
        seconds = time.perf_counter() - begin - at
        if connection.open and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        answer = orjson.loads(body) if body else {"code": NO_ANSWER}
        ratio = answer["reduction"]["applied"] if status == 200 else None
        return Seen(at, seconds, status, answer.get("code", ""), ratio)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self._host, self._port))[1]

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()
