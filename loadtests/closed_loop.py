"""Closed-loop clients, cheap enough to run on the server's machine."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson
from open_loop import Connection
from throughput import throughput

_BOUNDARY = "photo-boundary"
#: How long the last responses may take.
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """The requests to send.

    Attributes:
        host: its address.
        port: its port.
        path: with its query.
        form: the name of the form field that takes the photo; None: it is the body.
    """

    host: str
    port: int
    path: str
    form: str | None = None

    def request(self, image: bytes) -> bytes:
        """Encode an HTTP/1.1 request with a photo."""
        kind, body = "image/jpeg", image
        if self.form is not None:
            kind = f"multipart/form-data; boundary={_BOUNDARY}"
            head = (
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{self.form}"; filename="photo.jpg"'
            )
            start = f"{head}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
            body = start + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
        lines = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: {kind}\r\n"
        return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Phase:
    """The clients' measurements of a phase.

    Attributes:
        images_per_s: good answers.
        latencies: of those, in seconds.
        errors: what else came, as text.
    """

    images_per_s: float
    latencies: tuple[float, ...]
    errors: tuple[str, ...]


async def saturate(
    target: Target, images: Sequence[bytes], *, clients: int, seconds: float, settle_s: float
) -> Phase:
    """Send requests all the time; count the responses after the settling time.

    Args:
        target: what is asked.
        images: encoded photos, sent in turn.
        clients: that ask at the same time.
        seconds: that count.
        settle_s: before that.

    Raises:
        TimeoutError: answers that never came.
        OSError: the server does not listen.
    """
    requests: Iterator[bytes] = itertools.cycle([target.request(image) for image in images])
    start = time.perf_counter() + settle_s
    end = start + seconds
    latencies: list[float] = []
    times: list[float] = []
    errors: list[str] = []
    loop = asyncio.get_running_loop()

    async def client() -> None:
        connection: Connection | None = None
        while (sent := time.perf_counter()) < end:
            if connection is None or not connection.open:
                connection = (await loop.create_connection(Connection, target.host, target.port))[1]
            status, body = await connection.ask(next(requests))
            done = time.perf_counter()
            if not start <= done < end:
                continue
            problem = _problem(status, body)
            if problem is None:
                latencies.append(done - sent)
                times.append(done)
            else:
                errors.append(problem)
                await asyncio.sleep(0.05)
        if connection is not None:
            connection.close()

    async with asyncio.timeout(settle_s + seconds + _TIMEOUT_S):
        await asyncio.gather(*(client() for _ in range(clients)))
    return Phase(throughput(times, start, end), tuple(latencies), tuple(errors))


def _problem(status: int, body: bytes) -> str | None:
    """Return why a response is wrong; None if it names five classes."""
    if status != 200:
        return f"status {status}: {body[:100]!r}"
    answer = orjson.loads(body)
    if isinstance(answer, list):  # BentoML answers the one photo of a request as a list of one
        (answer,) = answer
    best = answer.get("predictions", ())
    return None if len(best) == 5 else f"{len(best)} classes, not 5"
