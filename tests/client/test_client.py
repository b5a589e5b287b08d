"""Both clients against the real app, and against the responses of broken or busy servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from prunepool import errors
from prunepool.access import Key, KeysFile, digest_of
from prunepool.api.listening import claim
from prunepool.client import (
    AsyncClient,
    ClassifyOptions,
    Client,
    Readiness,
    Retries,
    ServerUnreachable,
    UnexpectedAnswer,
)
from prunepool.client.wire import error_of
from prunepool.errors import (
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    PrunepoolError,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.serving.options import InferenceOptions
from prunepool.settings import Settings
from prunepool.testing import FakeService

TIMEOUT_S = 20.0
#: Does one thing with a client, plain or asynchronous.
Call = Callable[..., Any]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@contextmanager
def serving(settings: Settings, service: FakeService) -> Iterator[str]:
    """A real server."""
    server = factory.create_server(settings, service, Metrics(CollectorRegistry()))
    bound = claim("127.0.0.1", 0)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve_until_signal(bound.sockets, ready.set)))
    thread.start()
    assert ready.wait(TIMEOUT_S)
    try:
        yield bound.url
    finally:
        server.stop("test")
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    """A real server over the fake engine."""
    with serving(Settings.model_construct(), service) as url:
        yield url


class HeldEngine(FakeService):
    """Never answers."""

    async def classify(self, image: bytes, options: InferenceOptions) -> Any:
        await asyncio.Event().wait()


@pytest.fixture
def held() -> HeldEngine:
    return HeldEngine()


def plainly(url: str, method: str, *arguments: Any, api_key: str | None = None, **options: Any) -> Any:
    with Client(url, api_key=api_key, retries=Retries(attempts=1)) as client:
        return getattr(client, method)(*arguments, **options)


def asynchronously(url: str, method: str, *arguments: Any, api_key: str | None = None, **options: Any) -> Any:
    async def call() -> Any:
        async with AsyncClient(url, api_key=api_key, retries=Retries(attempts=1)) as client:
            return await getattr(client, method)(*arguments, **options)

    return asyncio.run(call())


both = pytest.mark.parametrize("call", [plainly, asynchronously])


@both
def test_an_image_as_bytes_or_as_a_file(call: Call, url: str, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    from_bytes = call(url, "classify", b"photo", reduction_ratio=0.5, top_k=2)
    from_file = call(url, "classify", tmp_path / "photo.jpg", reduction_ratio=0.5, top_k=2)
    assert from_bytes == from_file
    assert (from_bytes.reduction.applied, len(from_bytes.predictions)) == (0.5, 2)
    assert from_bytes.predictions[0].score > from_bytes.predictions[1].score
    assert service.calls == [(b"photo", InferenceOptions(reduction_ratio=0.5, top_k=2))] * 2


@both
def test_every_option_arrives(call: Call, url: str, service: FakeService) -> None:
    call(
        url,
        "classify",
        b"photo",
        model="fake",
        reduction_ratio="auto",
        max_reduction_ratio=0.25,
        top_k=1,
        deadline_ms=50.5,
        explain=True,
    )
    assert service.calls[0][1] == InferenceOptions("fake", "auto", 0.25, 1, 50.5, True)


@both
@pytest.mark.parametrize("count", [1, 3])
def test_many_images_in_order_with_errors_in_their_place(call: Call, url: str, count: int) -> None:
    singly = call(url, "classify", b"image 0")
    answers = call(url, "classify_batch", [b"image 0", b"bad", b"image 2"][:count])
    assert answers[0] == singly
    assert len(answers) == count
    if count > 1:
        assert isinstance(answers[1], ImageUndecodable)
        assert answers[1].detail == "3 bytes are not an image that can be decoded"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_response_without_a_result_for_each_image_is_unexpected(count: int) -> None:
    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"results": [{"code": "image_undecodable", "detail": "bad"}] * count})

    async def asynchronous() -> None:
        async with AsyncClient("http://test", transport=httpx.MockTransport(respond)) as client:
            await client.classify_batch([b"one", b"two"])

    with (
        Client("http://test", transport=httpx.MockTransport(respond)) as client,
        pytest.raises(UnexpectedAnswer, match=f"{count} results for 2 images"),
    ):
        client.classify_batch([b"one", b"two"])
    with pytest.raises(UnexpectedAnswer, match=f"{count} results for 2 images"):
        asyncio.run(asynchronous())


@both
def test_one_bad_image_of_many_that_are_one(call: Call, url: str) -> None:
    (error,) = call(url, "classify_batch", [b"bad"])
    assert isinstance(error, ImageUndecodable)


@both
def test_a_token_map_on_request(call: Call, url: str) -> None:
    token_map = call(url, "classify", b"photo", explain=True, reduction_ratio=0.5).token_map
    assert token_map.grid == (14, 14)
    assert len(token_map.tokens) == 98
    assert (token_map.tokens[0].patches, token_map.tokens[0].pooled) == ((0,), False)
    (stage,) = token_map.stages
    assert (stage.block, stage.action, len(stage.pruned), len(stage.groups)) == (3, "prune", 98, 98)
    assert call(url, "classify", b"photo").token_map is None


@both
def test_models(call: Call, url: str, service: FakeService) -> None:
    (model,) = call(url, "models")
    assert (model.name, model.classes) == ("fake", 10)
    assert model.max_reduction_ratio == service.model("fake").max_reduction_ratio


@both
def test_a_model_in_full(call: Call, url: str, service: FakeService) -> None:
    model = call(url, "model", "fake")
    assert (model.name, model.labels) == ("fake", service.model("fake").labels)
    with pytest.raises(ModelNotFound):
        call(url, "model", "no such?model")


@both
def test_readiness_is_no_error(call: Call, url: str, service: FakeService) -> None:
    assert call(url, "readiness") == Readiness(True, ())
    service.ready = False
    assert call(url, "readiness") == Readiness(False, ("engine",))


def test_every_option_exists_in_the_client() -> None:
    """The client has every option of the engine."""
    assert set(ClassifyOptions.__annotations__) == {field.name for field in fields(InferenceOptions)}


@both
def test_an_error_is_raised_as_its_class(call: Call, url: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        call(url, "classify", b"photo", top_k=99)
    assert (error.value.parameter, error.value.extra["limit"]) == ("top_k", "an integer between 1 and 10")
    assert error.value.detail == "top_k must be an integer between 1 and 10; got 99"
    with pytest.raises(ModelNotFound):
        call(url, "classify", b"photo", model="nope")


@both
def test_no_server(call: Call) -> None:
    with (
        claim("127.0.0.1", 0) as nobody,
        pytest.raises(ServerUnreachable, match=r"no answer from http://127"),
    ):
        call(nobody.url, "models")


@both
def test_a_file_that_cannot_be_read(call: Call, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        call("http://unused", "classify", tmp_path / "missing.jpg")


class Busy:
    """Refuses a number of times, then lists its models; records the waits."""

    def __init__(self, refusals: int, status: int = 503, **headers: str) -> None:
        self.left = refusals
        self.status = status
        self.headers = headers
        self.asked = 0
        self.waited: list[float] = []

    def answer(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.left == 0:
            return httpx.Response(200, json={"default": "m", "models": []})
        self.left -= 1
        code = {503: "overloaded", 429: "rate_limited"}.get(self.status, "deadline_exceeded")
        problem = {"code": code, "detail": "later", "status": self.status, "retry_after": 0.5}
        return httpx.Response(self.status, json=problem, headers=self.headers)

    async def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    def call(self, retries: Retries) -> list[Any]:
        with Client(
            "http://x", retries=retries, transport=httpx.MockTransport(self.answer), sleep=self.waited.append
        ) as client:
            return client.models()

    def call_async(self, retries: Retries) -> list[Any]:
        async def call() -> list[Any]:
            transport = httpx.MockTransport(self.answer)
            async with AsyncClient(
                "http://x", retries=retries, transport=transport, sleep=self.wait
            ) as client:
                return await client.models()

        return asyncio.run(call())


@pytest.mark.parametrize("way", [Busy.call, Busy.call_async])
@pytest.mark.parametrize("status", [503, 429])
def test_a_temporary_refusal_is_retried_after_retry_after(way: Call, status: int) -> None:
    busy = Busy(2, status, **{"Retry-After": "3"})
    assert way(busy, Retries(jitter=0)) == []
    assert (busy.asked, busy.waited) == (3, [3.0, 3.0])


def test_without_the_header_the_document_has_the_wait() -> None:
    busy = Busy(1)
    busy.call(Retries(jitter=0))
    assert busy.waited == [0.5]


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0, 0.0),
        pytest.param(
            format_datetime(datetime.now(UTC) + timedelta(seconds=9000), usegmt=True), 5000, 9000, id="date"
        ),
        ("9" * 400, 1e9, 1e9),
        ("soon", 0.5, 0.5),
        ("-3", 0.5, 0.5),
        ("Thu, 99 Jan 9999 99:00:00 GMT", 0.5, 0.5),
        ("Thu, 01 Jan 99999999999 00:00:00 GMT", 0.5, 0.5),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999999", 0.5, 0.5),
    ],
)
def test_the_wait_of_a_proxy_is_seconds_or_a_date(header: str, least: float, most: float) -> None:
    busy = Busy(1, **{"Retry-After": header})
    busy.call(Retries(jitter=0, longest_wait_s=1e10))
    assert least <= busy.waited[0] <= most


@pytest.mark.parametrize("stated", [-1, 1e300, True, "3", None, [], {"a": 1}])
def test_a_wait_that_cannot_be_is_the_default(stated: object) -> None:
    error = error_of({"code": "overloaded", "detail": "later", "retry_after": stated, "self": 1})
    assert isinstance(error, Overloaded)
    assert error.retry_after == 1.0


@pytest.mark.parametrize(
    "code", ["internal_error", "rate_limited", "invalid_parameter", "image_undecodable", "nope"]
)
def test_an_answer_cannot_name_arguments_of_ours(code: str) -> None:
    document = {
        "code": code,
        "detail": "d",
        "self": 1,
        "retry_after": 2,
        "args": 3,
        "extra": 4,
        "status": 500,
    }
    assert isinstance(error_of(document), PrunepoolError)


def test_jitter_only_makes_a_wait_longer() -> None:
    busy = Busy(1, **{"Retry-After": "10"})
    busy.call(Retries(jitter=0.5, random=lambda: 0.5))
    assert busy.waited == [12.5]


def test_after_the_last_attempt_the_refusal_is_raised() -> None:
    busy = Busy(9)
    with pytest.raises(Overloaded):
        busy.call(Retries(attempts=3))
    assert busy.asked == 3


def test_too_long_a_wait_is_not_retried() -> None:
    busy = Busy(1, **{"Retry-After": "31"})
    with pytest.raises(Overloaded) as error:
        busy.call(Retries(longest_wait_s=30))
    assert (busy.asked, error.value.retry_after) == (1, 31.0)


def test_other_errors_are_not_retried() -> None:
    busy = Busy(1, 504)
    with pytest.raises(errors.DeadlineExceeded):
        busy.call(Retries())
    assert busy.asked == 1


def fixed(response: httpx.Response) -> Client:
    return Client("http://x", retries=Retries(attempts=1), transport=httpx.MockTransport(lambda _: response))


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json={"hello": "world"}),
        httpx.Response(200, json=[1]),
        httpx.Response(404, text="not here"),
        httpx.Response(404, json={"code": "unheard_of", "detail": "?"}),
        httpx.Response(302, headers={"Location": "http://elsewhere"}),
    ],
)
def test_a_response_of_another_server_is_unexpected(response: httpx.Response) -> None:
    with fixed(response) as client, pytest.raises(UnexpectedAnswer):
        client.classify(b"photo")


def test_a_proxy_s_refusal_is_retried_too() -> None:
    response = httpx.Response(503, text="no upstream", headers={"Retry-After": "7"})
    with fixed(response) as client, pytest.raises(Unavailable) as error:
        client.classify(b"photo")
    assert error.value.retry_after == 7


def test_a_timeout_is_an_unreachable_server() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    client = Client("http://x", transport=httpx.MockTransport(late))
    with client, pytest.raises(ServerUnreachable, match="timed out"):
        client.models()


CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PrunepoolError) and kind.status != 500
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_the_transport(kind: type[PrunepoolError]) -> None:
    made: PrunepoolError
    if issubclass(kind, InvalidParameter):
        made = kind("top_k", 99, "an integer")
    elif issubclass(kind, Unavailable | RateLimited):
        made = kind("why", retry_after=2.0, hint="h")
    else:
        made = kind("why", hint="h")
    response = httpx.Response(kind.status, json=made.problem())
    with fixed(response) as client, pytest.raises(kind) as error:
        client.models()
    assert type(error.value) is kind
    assert error.value.problem() == made.problem()


@both
def test_a_key_goes_with_every_request(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    KeysFile(path).add(Key("alice", digest_of("pp_alice")))
    with serving(Settings.model_construct(api_keys_file=path), FakeService()) as url:
        with pytest.raises(Unauthorized):
            call(url, "classify", b"photo")
        with pytest.raises(Unauthorized):
            call(url, "models", api_key="pp_wrong")
        for method, *arguments in (("classify", b"photo"), ("models",), ("model", "fake")):
            assert call(url, method, *arguments, api_key="pp_alice")


@pytest.mark.parametrize("key", ["", "a b", "ü", "x\r\nX-Evil: 1"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_invalid_key_is_refused_and_not_shown(kind: Any, key: str) -> None:
    with pytest.raises(InvalidParameter, match="api_key must be printable ASCII") as error:
        kind("http://x", api_key=key)
    assert not key or key not in error.value.detail


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_invalid_url(kind: Any, url: str) -> None:
    with pytest.raises(InvalidParameter, match="url must be http"):
        kind(url)


@pytest.mark.parametrize(
    "where", ["x:0", "x:99999", "x:1e3", "x:-1", "xn--", "@", "\u2028", "[::1", "x" * 70_000]
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_cannot_be_is_refused(kind: Any, where: str) -> None:
    with pytest.raises(InvalidParameter, match="url must be "):
        kind(f"http://{where}")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTP_PROXY", "carrier://me:sesame@pigeon"), ("SSL_CERT_FILE", "/nowhere/at/all")],
)
def test_an_environment_without_a_way_out_is_named(
    kind: Any, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ServerUnreachable, match="no connection can be made from this environment") as error:
        kind("http://127.0.0.1:1")
    assert "sesame" not in error.value.detail


def test_the_password_of_a_url_is_not_repeated() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    for answer in (refuse, lambda request: httpx.Response(404, text="what?")):
        with Client("http://me:sesame@x:80", transport=httpx.MockTransport(answer)) as client:
            with pytest.raises(PrunepoolError, match="http://x") as error:
                client.models()
            assert "sesame" not in error.value.detail
    with pytest.raises(InvalidParameter) as refused:
        Client("http://me:sesame@x:99999")
    assert "sesame" not in refused.value.detail


def test_a_key_does_not_follow_a_redirect() -> None:
    asked = []

    def redirect(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere/classify"})

    transport = httpx.MockTransport(redirect)
    client = Client("http://x", api_key="pp_alice", transport=transport)
    with client, pytest.raises(UnexpectedAnswer):
        client.classify(b"photo")
    assert asked == ["x"]


def test_the_caller_sets_the_timeouts() -> None:
    seen: list[dict[str, float | None]] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200, json={"default": "m", "models": []})

    with Client("http://x", timeout_s=5, connect_timeout_s=2, transport=httpx.MockTransport(note)) as client:
        client.models()
    assert seen == [{"connect": 2, "read": 5, "write": 5, "pool": None}]


def test_too_slow_a_response_is_given_up(held: HeldEngine) -> None:
    with (
        serving(Settings.model_construct(drain_timeout_s=0.1), held) as url,
        Client(url, timeout_s=0.2) as client,
        pytest.raises(ServerUnreachable, match="timed out"),
    ):
        client.classify(b"photo")


def test_not_ready_behind_a_proxy_is_a_refusal() -> None:
    with fixed(httpx.Response(503, text="no upstream")) as client, pytest.raises(Unavailable):
        client.readiness()
