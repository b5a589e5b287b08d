"""A large body is parsed beside the event loop: other requests go on meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import pkgutil
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prunepool.api import base64_images
from prunepool.testing import FakeService

SMALL = b"\xff\xd8 a photo"
LARGE = b"\xff\xd8" + bytes(range(256)) * 16_000
#: Long enough for a slow machine; only a failure waits for it to pass.
TIMEOUT_S = 10.0


def form(image: bytes) -> dict[str, Any]:
    return {"url": "/classify", "files": [("file", image)]}


def base64_json(image: bytes) -> dict[str, Any]:
    return {"url": "/classify", "json": {"image": base64.b64encode(image).decode()}}


def open_inference(image: bytes) -> dict[str, Any]:
    tensor = {"name": "images", "shape": [1, 1], "datatype": "BYTES"}
    data = [base64.b64encode(image).decode()]
    return {"url": "/v2/models/fake_jpeg/infer", "json": {"inputs": [{**tensor, "data": data}]}}


def open_inference_with_length(image: bytes) -> dict[str, Any]:
    """The same with the header that bytes may follow the JSON, and none that do."""
    request = open_inference(image)
    body = json.dumps(request.pop("json")).encode()
    return {**request, "content": body, "headers": {"Inference-Header-Content-Length": str(len(body))}}


class HeldParser:
    """Stands before a library's parser, and lets no call through until another request has been answered.

    Args:
        parse: the library's.
        timeout_s: for a call that keeps that other request from being answered.
    """

    def __init__(self, parse: Callable[..., Any], timeout_s: float) -> None:
        self._parse = parse
        self._timeout_s = timeout_s
        self.called = threading.Event()
        self.other_answered = threading.Event()
        self.was_let_through = False

    def __call__(self, *arguments: Any) -> Any:
        self.called.set()
        self.was_let_through = self.other_answered.wait(self._timeout_s)
        return self._parse(*arguments)


FORMS = [
    (form, "prunepool.api.multipart.MultipartParser"),
    (base64_json, "prunepool.api.json_bodies.orjson.loads"),
    (open_inference, "prunepool.api.json_bodies.orjson.loads"),
    (open_inference_with_length, "prunepool.api.json_bodies.orjson.loads"),
]


def held(monkeypatch: pytest.MonkeyPatch, target: str, timeout_s: float) -> HeldParser:
    module, _, name = target.rpartition(".")
    parser = HeldParser(getattr(pkgutil.resolve_name(module), name), timeout_s)
    monkeypatch.setattr(target, parser)
    return parser


@pytest.mark.parametrize(("body", "target"), FORMS)
async def test_another_request_is_answered_while_a_large_body_is_parsed(
    http: httpx.AsyncClient,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[bytes], dict[str, Any]],
    target: str,
) -> None:
    request = body(LARGE)
    parser = held(monkeypatch, target, TIMEOUT_S)
    large = asyncio.create_task(http.post(**request))
    assert await asyncio.to_thread(parser.called.wait, TIMEOUT_S)
    assert (await http.get("/healthz")).status_code == 200
    parser.other_answered.set()
    assert (await large).status_code == 200
    assert parser.was_let_through
    assert [image for image, _ in service.calls] == [LARGE]


@pytest.mark.parametrize(("body", "target"), FORMS)
async def test_a_small_body_is_parsed_without_a_thread(
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[bytes], dict[str, Any]],
    target: str,
) -> None:
    """A thread costs more than it saves here."""
    threads = []
    module, _, name = target.rpartition(".")
    parse = getattr(pkgutil.resolve_name(module), name)
    monkeypatch.setattr(target, lambda *given: (threads.append(threading.current_thread()), parse(*given))[1])
    assert (await http.post(**body(SMALL))).status_code == 200
    assert threads == [threading.current_thread()]


async def test_a_large_image_by_itself_needs_no_thread(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to parse in it."""
    threads = []
    to_thread = asyncio.to_thread

    async def counted(*work: Any) -> Any:
        threads.append(work)
        return await to_thread(*work)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    assert (await http.post("/classify", content=LARGE)).status_code == 200
    assert threads == []


def test_base64_is_decoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the decoder holds the interpreter's lock, so the event loop waits for the longest one."""
    lengths = []
    decode = base64_images.binascii.a2b_base64

    def recorded(data: bytes, **how: bool) -> bytes:
        lengths.append(len(data))
        return decode(data, **how)

    monkeypatch.setattr(base64_images.binascii, "a2b_base64", recorded)
    assert base64_images.decode_image_text(base64.b64encode(LARGE).decode()) == LARGE
    assert max(lengths) <= 512 * 1024
