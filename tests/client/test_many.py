"""`classify_many`: order, errors, concurrency, and what ends a run."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from prunepool.client import (
    AsyncClient,
    Classification,
    Classified,
    Client,
    ImageUnreadable,
    Retries,
    ServerUnreachable,
)
from prunepool.client.streaming import in_order, in_order_by_threads
from prunepool.errors import ImageUndecodable, InvalidParameter, Overloaded, PrunepoolError, Unauthorized

ONCE = Retries(attempts=1)
#: Streams images through a client, plain or asynchronous.
Stream = Callable[..., list[Classified]]


def answer(label: str) -> dict[str, Any]:
    return {
        "model": "fake",
        "predictions": [{"index": 0, "label": label, "score": 1.0}],
        "reduction": {
            "requested": "auto",
            "applied": 0.5,
            "reason": "auto:default",
            "tokens": [197],
            "gmacs": 1.0,
            "macs_saved": 0.0,
        },
        "timing_ms": {"decode": 1, "queue": 1, "inference": 1, "total": 3},
        "batch_size": 1,
    }


def models(requested_by_default: float | str = "auto") -> dict[str, Any]:
    """What `GET /models` returns: two models, of which the second is the default one."""
    ratios = {"default_reduction_ratio": 0.5, "requested_by_default": requested_by_default}
    figures = {"input_size": 224, "classes": 2, "max_reduction_ratio": 0.87, "gmacs": 1.0, "parameters": 1}
    words = {"architecture": "a", "device": "cpu", "dtype": "float32", "licence": "l"}
    listed = [
        {"name": name, "ready": True, **figures, **words, **ratios, "default_reduction_ratio": own}
        for name, own in (("other", 0.25), ("fake", 0.5))
    ]
    return {"default": "fake", "models": listed, "failed": []}


def respond(request: httpx.Request) -> httpx.Response:
    """Return the image, or the error that it names."""
    if request.method == "GET":
        return httpx.Response(200, json=models())
    image = request.content.decode()
    if image.startswith("error "):
        _, status, code = image.split()
        problem = {"code": code, "status": int(status), "detail": "d", "parameter": "p", "retry_after": 1}
        return httpx.Response(int(status), json=problem)
    return httpx.Response(200, json=answer(image))


def plainly(images: Iterable[Any], respond: Any = respond, **options: Any) -> list[Classified]:
    with Client("http://x", retries=ONCE, transport=httpx.MockTransport(respond)) as client:
        return list(client.classify_many(images, **options))


def asynchronously(images: Iterable[Any], respond: Any = respond, **options: Any) -> list[Classified]:
    async def stream() -> list[Classified]:
        transport = httpx.MockTransport(respond)
        async with AsyncClient("http://x", retries=ONCE, transport=transport) as client:
            return [classified async for classified in client.classify_many(images, **options)]

    return asyncio.run(stream())


both = pytest.mark.parametrize("stream", [plainly, asynchronously])


def labels(results: list[Classified]) -> list[str]:
    found = []
    for classified in results:
        assert isinstance(classified.result, Classification)
        found.append(classified.result.predictions[0].label)
    return found


@both
@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_results_keep_the_order_of_the_images(stream: Stream, concurrency: int) -> None:
    images = [f"image {i}".encode() for i in range(100)]
    results = stream(iter(images), concurrency=concurrency)
    assert [classified.image for classified in results] == images
    assert labels(results) == [image.decode() for image in images]


@both
@pytest.mark.parametrize(
    ("options", "by_default", "asked"),
    [
        ({}, "auto", "0.5"),
        ({"model": "other"}, "auto", "0.25"),
        ({"max_reduction_ratio": 0.3}, "auto", "0.3"),
        ({"max_reduction_ratio": 0.6}, "auto", "0.5"),
        ({"reduction_ratio": "auto"}, "auto", "auto"),
        ({"reduction_ratio": 0}, "auto", "0"),
        ({"max_accuracy_drop": 1}, "auto", None),
        ({}, 0.7, None),
    ],
)
def test_many_images_get_the_ratio_of_their_model_and_not_what_their_own_load_makes_of_auto(
    stream: Stream, options: dict[str, Any], by_default: float | str, asked: str | None
) -> None:
    """63 photos sent to an idle server came back at 0.87, and at 0.5 in process."""
    ratios = []

    def served(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=models(by_default))
        ratios.append(request.url.params.get("reduction_ratio"))
        return respond(request)

    assert labels(stream([b"one", b"two"], served, **options)) == ["one", "two"]
    assert ratios == [asked, asked]


@both
def test_no_images(stream: Stream) -> None:
    assert stream([]) == []


@both
def test_files_bytes_and_functions(stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "file.jpg").write_bytes(b"from a file")
    images = [tmp_path / "file.jpg", b"bytes", lambda: b"made when needed"]
    results = stream(images)
    assert labels(results) == ["from a file", "bytes", "made when needed"]
    assert [classified.image for classified in results] == images


@both
def test_an_error_of_one_image_stands_in_its_place(stream: Stream, tmp_path: Path) -> None:
    images = [
        b"one",
        b"error 400 image_undecodable",
        tmp_path / "missing.jpg",
        b"error 503 overloaded",
        b"two",
    ]
    results = [classified.result for classified in stream(images)]
    assert [type(result) for result in results] == [
        Classification,
        ImageUndecodable,
        ImageUnreadable,
        Overloaded,
        Classification,
    ]
    missing = results[2]
    assert isinstance(missing, PrunepoolError)
    assert missing.detail == "No such file or directory"


@both
def test_what_is_no_regular_file_is_an_error_and_not_waited_for(stream: Stream, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    pipe, zeros, one = (classified.result for classified in stream([*sorted(tmp_path.iterdir()), b"one"]))
    assert (str(pipe), str(zeros)) == (
        "is a named pipe; only regular files are read",
        "is a device; only regular files are read",
    )
    assert isinstance(one, Classification)


@both
@pytest.mark.parametrize(
    ("image", "kind"),
    [(b"error 401 unauthorized", Unauthorized), (b"error 422 invalid_parameter", InvalidParameter)],
)
def test_an_error_that_affects_every_image_ends_the_run(stream: Stream, image: bytes, kind: Any) -> None:
    with pytest.raises(kind):
        stream(itertools.chain([b"one", image], itertools.repeat(b"more")))


@both
def test_no_server_ends_the_run(stream: Stream) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ServerUnreachable):
        stream(itertools.repeat(b"more"), refuse)


@both
def test_options_are_those_of_every_image(stream: Stream) -> None:
    asked = []

    def note(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.query, "ascii"))
        return respond(request)

    stream([b"one", b"two"], note, reduction_ratio=0.25, top_k=None, explain=True)
    assert asked == ["reduction_ratio=0.25&explain=true"] * 2


class Counting:
    """Records the largest concurrency."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


class Source:
    """Numbers, and how many were iterated."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.taken += 1
            yield self.taken


async def test_concurrency_is_never_exceeded() -> None:
    counting = Counting()

    async def work(item: int) -> int:
        with counting:
            for _ in range(item % 5):
                await asyncio.sleep(0)
            return item

    results = [pair async for pair in in_order(range(200), work, 7)]
    assert results == [(item, item) for item in range(200)]
    assert counting.most == 7


def test_the_number_of_threads_is_never_exceeded() -> None:
    counting = Counting()
    together = threading.Barrier(3)

    def work(item: int) -> int:
        with counting:
            together.wait(20)
            return item

    results = list(in_order_by_threads(range(99), work, 3))
    assert results == [(item, item) for item in range(99)]
    assert counting.most == 3


async def test_a_slow_first_does_not_stop_the_others() -> None:
    first = asyncio.Event()
    begun = []

    async def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            await first.wait()
        elif item == 7:
            first.set()
        return item

    results = [item async for item, _ in in_order(range(8), work, 2)]
    assert results == list(range(8))


async def test_images_are_iterated_as_needed() -> None:
    source = Source()

    async def work(item: int) -> int:
        return item

    stream = in_order(source, work, 4)
    for _ in range(3):
        await anext(stream)
    assert source.taken < 30
    await stream.aclose()


def test_threads_iterate_images_as_needed_too() -> None:
    source = Source()
    stream = in_order_by_threads(source, lambda item: item, 4)
    for _ in range(3):
        next(stream)
    assert source.taken < 30
    stream.close()  # type: ignore[attr-defined]


async def test_stopping_early_leaves_nothing_behind() -> None:
    dropped = []

    async def work(item: int) -> int:
        if item == 1:
            return item
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            dropped.append(item)
            raise
        return item

    stream: AsyncIterator[tuple[int, int]] = in_order(iter([1, 2, 3]), work, 3)
    assert await anext(stream) == (1, 1)
    await stream.aclose()  # type: ignore[attr-defined]
    assert sorted(dropped) == [2, 3]


async def test_a_failure_ends_the_others() -> None:
    dropped = []

    async def work(item: int) -> int:
        if item == 0:
            raise ValueError("broken")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            dropped.append(item)
            raise
        return item

    with pytest.raises(ValueError, match="broken"):
        await anext(in_order(range(4), work, 4))
    # Those that had not begun were not begun.
    assert set(dropped) <= {1, 2, 3}


@pytest.mark.parametrize("terminal", [True, False])
@both
def test_a_bar_on_a_terminal(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: terminal))
    stream([b"one", b"two"], progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("2/2" in err) == terminal
