"""Hostile bodies cause no crash, no 5xx and no memory leak."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from budget import EXAMPLES, examples
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from prometheus_client import CollectorRegistry

from prunepool.api.app import create_app
from prunepool.api.forms import ParsedBody, parse_body
from prunepool.api.oip.requests import InferRequest, parse
from prunepool.api.oip.views import View
from prunepool.errors import RequestError
from prunepool.imaging import ImageLimits, Preprocess, decode
from prunepool.logs import logging_to
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Image as EncodedImage
from prunepool.serving.types import Inference
from prunepool.settings import Settings
from prunepool.testing import FakeService, fake_model

# As in service: what Pillow warns of goes on.
pytestmark = pytest.mark.filterwarnings("ignore")

MAX_IMAGES = 4
MAX_BODY = 200_000
BOUNDARY = b"XX"
#: Requests after which nothing may be left behind.
LONG_RUN = max(2000, 20 * EXAMPLES)
#: More than noise; less than if each request of the shortest run left two kilobytes behind.
GROWTH_BYTES = 3 * 2**20


@dataclass
class Asked:
    """A request."""

    path: str
    body: bytes
    headers: dict[str, bytes] = field(default_factory=dict)
    query: bytes = b""


class DecodingEngine(FakeService):
    """Decodes encoded images."""

    async def infer(self, image: EncodedImage, options: InferenceOptions) -> Inference:
        if isinstance(image, bytes):
            decode(image, Preprocess(size=16), ImageLimits(100_000))
        return await super().infer(image, options)

    async def classify(self, image: bytes, options: InferenceOptions) -> Any:
        decode(image, Preprocess(size=16), ImageLimits(100_000))
        return await super().classify(image, options)


class App:
    """The service without a socket."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.service = DecodingEngine()
        chosen = Settings.model_construct(max_body_bytes=MAX_BODY, max_images_per_request=MAX_IMAGES)
        app = create_app(self.service, chosen, Metrics(CollectorRegistry()))
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=True), base_url="http://test"
        )

    def ask(self, asked: Asked) -> httpx.Response:
        url = httpx.URL("http://test").copy_with(raw_path=asked.path.encode() + b"?" + asked.query)
        request = self._http.post(url, content=asked.body, headers=list(asked.headers.items()))  # type: ignore[arg-type]
        self.service.calls.clear()
        return self._runner.run(request)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with logging_to(io.StringIO(), "json", "error"), asyncio.Runner() as runner:
        yield App(runner)


def check(response: httpx.Response, asked: Asked) -> None:
    """Check that the response is a result, or an error in the form of its API."""
    assert response.status_code < 500, response.text
    if asked.path.startswith("/v2"):
        assert response.status_code == 200 or set(response.json()) == {"error"}
    elif response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"]


def picture(kind: str) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


PICTURES = [picture(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
TEXT = base64.b64encode(PICTURES[0]).decode()


def form(*parts: bytes) -> bytes:
    return b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + b"--XX--\r\n"


def part(name: bytes, data: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="%b"%b\r\n\r\n%b' % (name, more, data)


def tensor(count: int = 1) -> dict[str, Any]:
    size = 3 * 224 * 224 * count * 4
    return {
        "name": "images",
        "datatype": "FP32",
        "shape": [count, 3, 224, 224],
        "parameters": {"binary_data_size": size},
    }


def infer(document: dict[str, Any], tail: bytes = b"", **headers: bytes) -> Asked:
    head = json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if tail:
        named["Inference-Header-Content-Length"] = str(len(head)).encode()
    view = "fake" if document["inputs"][0]["datatype"] == "FP32" else "fake_jpeg"
    return Asked(f"/v2/models/{view}/infer", head + tail, named)


ENCODED = {"name": "images", "datatype": "BYTES", "shape": [1, 1]}
BINARY = len(PICTURES[0]).to_bytes(4, "little") + PICTURES[0]
JSON = {"Content-Type": b"application/json"}
FORM = {"Content-Type": b"multipart/form-data; boundary=XX"}

#: Right ones of every form, to be damaged.
SEEDS: dict[str, Asked] = {
    **{f"raw {i}": Asked("/classify", data) for i, data in enumerate(PICTURES)},
    "form": Asked(
        "/classify",
        form(part(b"file", PICTURES[0], b'; filename="a.jpg"'), part(b"reduction_ratio", b"0.5")),
        FORM,
    ),
    "form of several": Asked("/classify", form(*(part(b"file", data) for data in PICTURES[:3])), FORM),
    "json": Asked("/classify", json.dumps({"image": TEXT, "top_k": 3}).encode(), JSON),
    "json of several": Asked(
        "/classify", json.dumps({"images": [TEXT, "data:image/jpeg;base64," + TEXT]}).encode(), JSON
    ),
    "infer json": infer({"inputs": [{**ENCODED, "data": [TEXT]}], "id": "1"}),
    "infer binary": infer({"inputs": [{**ENCODED, "parameters": {"binary_data_size": len(BINARY)}}]}, BINARY),
    "infer outputs": infer(
        {
            "inputs": [{**ENCODED, "data": [TEXT]}],
            "parameters": {"reduction_ratio": 0.5, "binary_data_output": True},
            "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
        }
    ),
    "infer gzip": Asked(
        "/v2/models/fake_jpeg/infer",
        gzip.compress(json.dumps({"inputs": [{**ENCODED, "data": [TEXT]}]}).encode(), mtime=0),
        {"Content-Encoding": b"gzip"},
    ),
    "load": Asked("/v2/repository/models/fake/load", b"{}"),
    "index": Asked("/v2/repository/index", b'{"ready": true}'),
}


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_are_good_requests(app: App, name: str) -> None:
    response = app.ask(SEEDS[name])
    assert response.status_code == 200, response.text
    for entry in response.json().get("results", []) if name.endswith("several") else []:
        assert "predictions" in entry


@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=12),
    st.booleans(),
)
@examples(3)
def test_damaged_bytes(app: App, name: str, damage: list[tuple[int, int]], in_front: bool) -> None:
    seed = SEEDS[name]
    data = bytearray(seed.body)
    for at, value in damage:
        data[at % (min(400, len(data)) if in_front else len(data))] = value
    asked = Asked(seed.path, bytes(data), seed.headers)
    check(app.ask(asked), asked)


@given(st.sampled_from(sorted(SEEDS)), st.floats(0, 1), st.floats(0, 1), st.binary(max_size=64))
@examples(2)
def test_cut_and_pasted_bytes(app: App, name: str, start: float, end: float, new: bytes) -> None:
    seed = SEEDS[name]
    first, second = sorted((int(start * len(seed.body)), int(end * len(seed.body))))
    asked = Asked(seed.path, seed.body[:first] + new + seed.body[second:], seed.headers)
    check(app.ask(asked), asked)


@given(st.sampled_from(sorted(SEEDS)), st.sampled_from(sorted(SEEDS)))
def test_bodies_under_the_headers_of_others(app: App, one: str, other: str) -> None:
    asked = Asked(SEEDS[one].path, SEEDS[other].body, SEEDS[one].headers)
    check(app.ask(asked), asked)


header_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60)
content_types = st.sampled_from(
    ["image/jpeg", "application/json", "multipart/form-data; boundary=XX", "multipart/form-data", "text/html"]
) | st.builds("{}/{};{}={}".format, header_text, header_text, header_text, header_text)


@given(content_types, st.binary(max_size=1000), header_text)
@example("multipart/form-data; boundary=XX", b"--XX" * 20_000, "")
@example("application/json", b"[" * 100_000, "")
@example("application/json", b'{"image":' * 10_000, "")
@example("application/json", b'{"top_k":' + b"9" * 10_000 + b',"image":"AAAA"}', "")
@examples(2)
def test_random_bytes_of_any_type(app: App, content_type: str, body: bytes, ratio: str) -> None:
    headers = {"Content-Type": content_type.encode(), "X-Reduction-Ratio": ratio.encode()}
    asked = Asked("/classify", body, headers)
    check(app.ask(asked), asked)


names = st.binary(max_size=40) | st.sampled_from([b"file", b"reduction_ratio", b"top_k", b"model"])
parts = st.builds(part, names, st.binary(max_size=200), st.binary(max_size=40)) | st.binary(max_size=200)


@given(st.lists(parts, max_size=40), st.binary(max_size=20), st.binary(max_size=20))
@examples(2)
def test_forms_of_any_parts(app: App, made: list[bytes], before: bytes, behind: bytes) -> None:
    asked = Asked("/classify", before + form(*made) + behind, FORM)
    check(app.ask(asked), asked)


JSON_KEYS = [
    "image",
    "images",
    "reduction_ratio",
    "top_k",
    "deadline_ms",
    "explain",
    "inputs",
    "outputs",
    "parameters",
    "name",
    "datatype",
    "shape",
    "data",
    "binary_data_size",
    "classification",
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([TEXT, "auto", "data:image/png;base64,AAAA", "images", "FP32", "BYTES"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(JSON_KEYS) | st.text(max_size=8),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(json_values, st.sampled_from(["/classify", "/v2/models/fake/infer", "/v2/models/fake_jpeg/infer"]))
@examples(2)
def test_json_of_any_shape(app: App, document: Any, path: str) -> None:
    asked = Asked(path, json.dumps(document).encode(), JSON)
    check(app.ask(asked), asked)


@given(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["images", "other"]),
            "datatype": st.sampled_from(["FP32", "BYTES", "INT8"]),
            "shape": st.lists(st.integers(-1, 1 << 40), max_size=5) | st.just([1, 1]),
        },
        optional={
            "data": json_values,
            "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 1 << 70)),
        },
    ),
    st.binary(max_size=300),
    st.one_of(st.none(), st.integers(-5, 1000), header_text),
    st.sampled_from([b"identity", b"gzip", b"deflate", b"br"]),
    st.booleans(),
)
@examples(3)
def test_inference_requests_of_any_shape(
    app: App, given_input: Any, tail: bytes, length: Any, coding: bytes, packed: bool
) -> None:
    head = json.dumps({"inputs": [given_input]}).encode()
    body = head + tail
    headers = {"Content-Encoding": coding}
    if length is not None:
        length = len(head) if length == -5 else length
        headers["Inference-Header-Content-Length"] = str(length).encode()
    if packed and coding != b"identity":
        body = gzip.compress(body) if coding == b"gzip" else zlib.compress(body)
    asked = Asked("/v2/models/fake_jpeg/infer", body, headers)
    check(app.ask(asked), asked)


@given(st.dictionaries(header_text, header_text, max_size=4))
def test_queries_of_any_kind(app: App, query: dict[str, str]) -> None:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    asked = Asked("/classify", PICTURES[0], query=str(httpx.QueryParams(text)).encode())
    check(app.ask(asked), asked)


@given(content_types, st.binary(max_size=2000) | st.builds(form, parts, parts))
@examples(2)
def test_the_parser_itself_raises_nothing_else(content_type: str, body: bytes) -> None:
    try:
        found = parse_body(content_type, body, MAX_IMAGES)
    except RequestError:
        return
    assert isinstance(found, ParsedBody)
    assert 1 <= len(found.images) <= MAX_IMAGES


@pytest.mark.parametrize("packed", [gzip.compress(bytes(50 * 2**20)), zlib.compress(bytes(50 * 2**20))])
def test_a_body_that_unpacks_to_a_thousand_times_its_size(app: App, packed: bytes) -> None:
    coding = b"gzip" if packed[:2] == b"\x1f\x8b" else b"deflate"
    assert len(packed) < MAX_BODY
    before = rss()
    response = app.ask(Asked("/v2/models/fake_jpeg/infer", packed, {"Content-Encoding": coding}))
    assert response.status_code == 413
    assert rss() - before < 20 * 2**20


def rss() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def damaged(rng: random.Random, data: bytes) -> bytes:
    """A copy with a few bytes changed, cut out or doubled."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(changed) or 1)
        match rng.randrange(4):
            case 0 if changed:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 50)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 50)]
            case _:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(changed)


def parse_view(data: bytes) -> InferRequest:
    return parse(data, None, View("fake_jpeg", fake_model(), encoded=True, max_batch_size=MAX_IMAGES))


PARSERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "decoder": (lambda data: decode(data, Preprocess(size=16), ImageLimits(100_000)), PICTURES),
    "form": (
        lambda data: parse_body("multipart/form-data; boundary=XX", data, MAX_IMAGES),
        [SEEDS["form"].body, SEEDS["form of several"].body],
    ),
    "json": (
        lambda data: parse_body("application/json", data, MAX_IMAGES),
        [SEEDS["json"].body, SEEDS["json of several"].body],
    ),
    "infer": (parse_view, [SEEDS["infer json"].body, SEEDS["infer outputs"].body]),
}


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", [*PARSERS, "app"])
def test_memory_and_descriptors_do_not_grow(app: App, name: str) -> None:
    """A long run of hostile bodies leaks neither memory nor descriptors."""
    rng = random.Random(name)
    if name == "app":
        seeds = [SEEDS[key] for key in sorted(SEEDS)]

        def feed() -> None:
            seed = rng.choice(seeds)
            asked = Asked(seed.path, damaged(rng, seed.body), seed.headers)
            check(app.ask(asked), asked)
    else:
        parser, bodies = PARSERS[name]

        def feed() -> None:
            with suppress(RequestError):
                parser(damaged(rng, rng.choice(bodies)))

    process = psutil.Process()
    for _ in range(LONG_RUN // 4):
        feed()
    before, open_before = rss(), process.num_fds()
    for _ in range(LONG_RUN):
        feed()
    grown = rss() - before
    # make fuzz shows it.
    print(f"{name}: {grown / 2**20:+.2f} MiB and {process.num_fds() - open_before:+} files after {LONG_RUN}")
    assert grown < GROWTH_BYTES
    assert process.num_fds() == open_before
