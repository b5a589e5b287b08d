"""The protocol over gRPC, with Triton's client."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from prunepool.access import Key, Keyring, Rate, digest_of
from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.api.context import AppContext
from prunepool.api.drain import Drain
from prunepool.api.listening import CannotListen, claim, claim_for_grpc
from prunepool.api.oip import rpc
from prunepool.api.oip.rpc import health
from prunepool.api.oip.rpc import server as rpc_server
from prunepool.api.oip.rpc.guard import GrpcCall, Guard
from prunepool.api.oip.rpc.server import listening
from prunepool.api.oip.statistics import Statistics
from prunepool.core.logits import softmax
from prunepool.errors import InvalidParameter, Overloaded
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Image, Inference
from prunepool.testing import FakeService, fake_model

PHOTOS = np.array([[b"\xff\xd8one"], [b"\xff\xd8two"]], np.object_)
Serve = Callable[..., Any]


@pytest.fixture(autouse=True)
def quiet(log_lines: Callable[[], list[dict[str, Any]]]) -> Callable[[], list[dict[str, Any]]]:
    """What the server logs."""
    return log_lines


@pytest.fixture
def service() -> FakeService:
    return FakeService([fake_model("m", input_size=8)])


@pytest.fixture
def drain() -> Drain:
    return Drain(5.0, time.monotonic)


@pytest.fixture
def budget() -> BodyMemoryBudget:
    return BodyMemoryBudget(10_000, time.monotonic)


@pytest.fixture
async def serve(
    service: FakeService, drain: Drain, budget: BodyMemoryBudget, metrics: Metrics, make_settings: Any
) -> AsyncIterator[Serve]:
    """Start a server with settings as keywords; where it listens."""
    async with AsyncExitStack() as stack:

        async def serve(keyring: Keyring | None = None, **settings: Any) -> str:
            context = AppContext(
                service, make_settings(**{"grpc_port": 0, **settings}), metrics, drain, budget
            )
            port = await stack.enter_async_context(listening(context, Statistics(), keyring))
            return f"127.0.0.1:{port}"

        yield serve


@pytest.fixture
async def address(serve: Serve) -> str:
    found: str = await serve()
    return found


@pytest.fixture
async def client(address: str) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(address) as made:
        yield made


def tensors(*values: float) -> list[triton.InferInput]:
    batch = np.stack([np.full((3, 8, 8), value, np.float32) for value in values])
    return [triton.InferInput("images", batch.shape, "FP32").set_data_from_numpy(batch)]


def photos(batch: np.ndarray = PHOTOS) -> list[triton.InferInput]:
    return [triton.InferInput("images", batch.shape, "BYTES").set_data_from_numpy(batch)]


async def logits(service: FakeService) -> np.ndarray:
    """Return the engine's results for every call so far."""
    asked = list(service.calls)
    return np.stack([(await service.infer(image, options)).logits for image, options in asked])


async def test_health(client: triton_aio.InferenceServerClient, service: FakeService) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("m")
    assert await client.is_model_ready("m_jpeg", "1")
    service.ready = False
    assert await client.is_server_live()
    assert not await client.is_server_ready()


async def test_metadata_and_configuration(client: triton_aio.InferenceServerClient) -> None:
    assert (await client.get_server_metadata()).name == "prunepool"
    metadata = await client.get_model_metadata("m")
    assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("images", [-1, 3, 8, 8])
    config = (await client.get_model_config("m_jpeg")).config
    assert (config.max_batch_size, config.input[0].name) == (128, "images")
    assert config.input[0].data_type == triton.model_config_pb2.TYPE_STRING
    assert config.parameters["crop_pct"].string_value == "0.9"


async def test_repository(client: triton_aio.InferenceServerClient) -> None:
    index = await client.get_model_repository_index()
    assert [(one.name, one.state) for one in index.models] == [("m", "READY"), ("m_jpeg", "READY")]
    await client.load_model("m")
    with pytest.raises(InferenceServerException, match="m cannot be unloaded"):
        await client.unload_model("m")
    with pytest.raises(InferenceServerException, match=r"parameters\.config must be left out"):
        await client.load_model("m", config="{}")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
async def test_tensors(
    client: triton_aio.InferenceServerClient, service: FakeService, compression: str | None
) -> None:
    result = await client.infer(
        "m",
        tensors(1.5, -0.25),
        request_id="7",
        parameters={"reduction_ratio": "0.5"},
        compression_algorithm=compression,
    )
    values = [np.unique(image).tolist() for image, _ in service.calls]
    assert values == [[1.5], [-0.25]]
    expected = await logits(service)
    np.testing.assert_array_equal(result.as_numpy("logits"), expected)
    scores = np.stack([softmax(row) for row in expected])
    np.testing.assert_array_equal(result.as_numpy("probabilities"), scores)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "m", "1")
    told = {name: value.string_param for name, value in response.parameters.items()}
    assert told == {"reduction_ratio": "0.5", "gmacs": "1.5", "reason": "requested"}


async def test_photos_and_classes(client: triton_aio.InferenceServerClient, service: FakeService) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=2)]
    result = (await client.infer("m_jpeg", photos(), outputs=outputs)).as_numpy("probabilities")
    assert [image for image, _ in service.calls] == [b"\xff\xd8one", b"\xff\xd8two"]
    best = [row.argmax() for row in await logits(service)]
    assert [row[0].decode().split(":")[1:] for row in result] == [[str(i), f"class {i}"] for i in best]


@pytest.mark.parametrize("parameter", [{"double_param": 0.5}, {"string_param": "0.5"}])
async def test_typed_contents_and_parameters(
    address: str, service: FakeService, parameter: dict[str, Any]
) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.parameters["reduction_ratio"].CopyFrom(service_pb2.InferParameter(**parameter))
    given = request.inputs.add(name="images", datatype="FP32", shape=[1, 3, 8, 8])
    given.contents.fp32_contents.extend([0.5] * 192)
    async with grpc.aio.insecure_channel(address) as channel:
        response = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    image, options = service.calls[0]
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(image, np.full((3, 8, 8), 0.5, np.float32))
    assert options.reduction_ratio == 0.5
    np.testing.assert_array_equal(
        np.frombuffer(response.raw_output_contents[0], np.float32), (await logits(service))[0]
    )


async def test_typed_photos(address: str, service: FakeService) -> None:
    request = service_pb2.ModelInferRequest(model_name="m_jpeg")
    given = request.inputs.add(name="images", datatype="BYTES", shape=[2, 1])
    given.contents.bytes_contents.extend([b"\xffone", b""])
    async with grpc.aio.insecure_channel(address) as channel:
        await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert [image for image, _ in service.calls] == [b"\xffone", b""]


@pytest.mark.parametrize(
    ("name", "inputs", "more", "status", "said"),
    [
        ("other", tensors(1.0), {}, "NOT_FOUND", "no model named 'other' is served; there are: m, m_jpeg"),
        ("m", tensors(1.0), {"model_version": "2"}, "NOT_FOUND", "m has no version '2'"),
        ("m", photos(), {}, "INVALID_ARGUMENT", "inputs.images.datatype must be FP32; got 'BYTES'"),
        ("m", tensors(float("nan")), {}, "INVALID_ARGUMENT", "image must be"),
        ("m", [], {}, "INVALID_ARGUMENT", "inputs must be one, named images"),
        ("m_jpeg", photos(np.array([[b"bad"]], np.object_)), {}, "INVALID_ARGUMENT", "3 bytes are not"),
        (
            "m",
            tensors(1.0),
            {"parameters": {"reduction_ratio": 2}},
            "INVALID_ARGUMENT",
            "reduction_ratio must",
        ),
    ],
)
async def test_an_error_is_the_client_s_exception_with_the_message(
    client: triton_aio.InferenceServerClient, name: str, inputs: Any, more: Any, status: str, said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await client.infer(name, inputs, **more)
    assert caught.value.status() == f"StatusCode.{status}"
    assert caught.value.message().startswith(said)


async def test_negative_dimensions_are_refused(address: str) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="images", datatype="FP32", shape=[-1, 3, 8, 8])
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_overload_has_retry_after(address: str, service: FakeService) -> None:
    service.error = Overloaded("full", retry_after=2.5)
    request = service_pb2.ModelInferRequest(model_name="m_jpeg", raw_input_contents=[b"\x01\x00\x00\x00x"])
    request.inputs.add(name="images", datatype="BYTES", shape=[1, 1])
    metadata = (("x-request-id", "r1"),)
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "full")
    trailing = dict(caught.value.trailing_metadata() or ())
    assert (trailing["retry-after"], trailing["x-request-id"]) == ("3", "r1")


async def test_an_unexpected_error_leaks_nothing(
    client: triton_aio.InferenceServerClient, service: FakeService, log_lines: Any
) -> None:
    service.error = ZeroDivisionError("a secret")  # type: ignore[assignment]
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("m", tensors(1.0))
    assert caught.value.status() == "StatusCode.INTERNAL"
    assert "secret" not in str(caught.value)
    assert any("a secret" in str(line.get("exception")) for line in log_lines())


@pytest.mark.parametrize("name", ["", "inference.GRPCInferenceService"])
async def test_grpc_s_own_health_service(address: str, service: FakeService, drain: Drain, name: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        assert await checked(channel, name) == health.SERVING
        service.ready = False
        assert await checked(channel, name) == health.NOT_SERVING
        service.ready = True
        drain.begin()
        assert await checked(channel, name) == health.NOT_SERVING


async def checked(channel: grpc.aio.Channel, service: str) -> int:
    # As any client writes it: field 1 is the name, and of the answer the status.
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    answer: bytes = await check(b"\x0a" + bytes([len(service)]) + service.encode() if service else b"")
    assert answer[0] == 0x08
    return answer[1]


async def test_the_health_of_an_unknown_service_is_not_found(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(
            grpc.aio.AioRpcError, match="there is no service 'x'; there are '' and 'infer"
        ) as caught:
            await checked(channel, "x")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_is_watched_until_the_drain(
    serve: Serve, service: FakeService, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "POLL_S", 0.001)
    told = []
    async with grpc.aio.insecure_channel(await serve()) as channel, asyncio.timeout(20):
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=health.HealthCheckResponse.FromString
        )
        async for answer in watch(b""):
            told.append(answer.status)
            if len(told) < 3:
                service.ready = not service.ready
            else:
                drain.begin()
    assert told == [health.SERVING, health.NOT_SERVING, health.SERVING, health.NOT_SERVING]


async def test_watches_do_not_take_the_places_of_all_other_calls(serve: Serve) -> None:
    async with grpc.aio.insecure_channel(await serve(max_connections=3)) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        first = watch(b"")
        assert await first.read() == bytes([0x08, health.SERVING])
        second = watch(b"")
        with pytest.raises(grpc.aio.AioRpcError, match="1 calls of Watch are open") as caught:
            await second.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        first.cancel()
        async with asyncio.timeout(20):
            while True:  # the server learns of it a little later
                third = watch(b"")
                with suppress(grpc.aio.AioRpcError):
                    assert await third.read() == bytes([0x08, health.SERVING])
                    break
        third.cancel()


async def test_idle_streams_do_not_take_the_places_of_all_other_calls(serve: Serve) -> None:
    async with grpc.aio.insecure_channel(await serve(max_connections=4)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        streams = [stub.ModelStreamInfer() for _ in range(2)]
        for stream in streams:
            await stream.write(service_pb2.ModelInferRequest())
            assert (await stream.read()).error_message
        with pytest.raises(grpc.aio.AioRpcError, match="2 calls of ModelStreamInfer are open") as caught:
            await stub.ModelStreamInfer().read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live


@pytest.mark.parametrize(
    "method", ["inference.GRPCInferenceService/ModelInfer", "grpc.health.v1.Health/Watch"]
)
async def test_a_call_whose_message_does_not_arrive_ends(serve: Serve, method: str) -> None:
    async with grpc.aio.insecure_channel(await serve(max_connections=2, request_timeout_s=0.1)) as channel:
        for _ in range(4):  # more than there are places
            call = channel.stream_stream(f"/{method}")()
            with pytest.raises(grpc.aio.AioRpcError, match=r"did not arrive within 0\.1 s") as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await checked(channel, "")) == health.SERVING


class FreedCall:
    """A call that gRPC frees while a response is written: in the real one, a method that is called afterwards ends
    the process.
    """

    def __init__(self) -> None:
        self.freed = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        assert not self.freed.is_set(), f"{name} of a freed call"
        answers = {"invocation_metadata": (), "time_remaining": None, "peer": "ipv4:127.0.0.1:1"}
        return lambda *args: answers.get(name)

    async def write(self, response: int) -> None:
        self.freed.set()
        await asyncio.Event().wait()


async def test_a_stream_is_tidied_up_after_its_call_has_been_freed(metrics: Metrics, log_lines: Any) -> None:
    async def handle(messages: Any, call: GrpcCall) -> AsyncGenerator[int]:
        while True:
            yield 1

    stream = Guard(None, metrics, 60.0, protect_health=False).stream("ModelStreamInfer", handle, "s", 1)
    for _ in range(2):  # its place is free again
        context = FreedCall()
        call = asyncio.create_task(stream(None, context))
        await context.freed.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert [(line["status"], line["client"]) for line in log_lines()] == [
        ("CANCELLED", "ipv4:127.0.0.1:1")
    ] * 2


def frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """A frame of HTTP/2 that belongs to the connection."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 0]) + payload


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Everything that a connection gets until it is closed."""
    with suppress(ConnectionResetError):
        return await reader.read()
    return b""


def unread_call(path: str) -> bytes:
    """A connection with a call whose client has no room for the response, and never will."""
    fields = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"))
    fields = (*fields, ("te", "trailers"), ("content-type", "application/grpc"))
    headers = b"".join(
        b"\0" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in fields
    )
    settings_, initial_window, of_stream_1 = 4, b"\0\x04\0\0\0\0", b"\0\0\0\1"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings_, initial_window)
    call = len(headers).to_bytes(3, "big") + b"\x01\x04" + of_stream_1 + headers
    return preface + call + b"\0\0\x05\0\x01" + of_stream_1 + bytes(5)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("/inference.GRPCInferenceService/ServerLive", 4),
        ("/inference.GRPCInferenceService/ModelStreamInfer", 2),
        ("/grpc.health.v1.Health/Watch", 1),
    ],
)
async def test_a_client_that_never_reads_its_response_is_disconnected(
    serve: Serve, log_lines: Any, path: str, places: int, host: str
) -> None:
    address = (await serve(host=host, max_connections=4, request_timeout_s=0.3)).replace("127.0.0.1", host)
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(20):
        unread = [await asyncio.open_connection(host, int(port)) for _ in range(places)]
        for _, writer in unread:
            writer.write(unread_call(path))
        for reader, writer in unread:
            await until_closed(reader)
            writer.close()
    told = [line for line in log_lines() if line["event"].startswith("disconnected")]
    assert [line["found"] for line in told] == [True] * places
    target = f"[{host}]:{port}" if ":" in host else address
    async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(20):
        await channel.channel_ready()  # gRPC forgets a connection a little later
        assert (await checked(channel, "")) == health.SERVING


@pytest.mark.parametrize(
    "method", ["inference.GRPCInferenceService/ServerLive", "grpc.health.v1.Health/Watch"]
)
async def test_bytes_that_are_no_message_are_the_caller_s_error(
    address: str, log_lines: Any, method: str
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_stream(f"/{method}")(b"\xff" * 100)
        with pytest.raises(grpc.aio.AioRpcError, match="100 bytes are no ") as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "unexpected error" not in [line["event"] for line in log_lines()]


async def test_connections_are_as_many_as_the_setting_says(serve: Serve) -> None:
    host, port = (await serve(max_connections=3)).split(":")
    async with asyncio.timeout(20):
        taken = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        for reader, writer in taken:
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b""))
            assert await reader.readexactly(9)
        refused, writer = await asyncio.open_connection(host, int(port))
        assert await until_closed(refused) == b""
        writer.close()
        for _, writer in taken:
            writer.close()


async def test_an_idle_connection_is_closed_as_over_http(serve: Serve) -> None:
    host, port = (await serve(keep_alive_timeout_s=0.2)).split(":")
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b""))
        goaway = 7
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == goaway:
                break
        writer.close()


async def test_a_call_without_a_message_is_refused(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")(iter(()))
        with pytest.raises(grpc.aio.AioRpcError, match="has no message") as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_key_is_checked_before_the_message_arrives(serve: Serve) -> None:
    async with grpc.aio.insecure_channel(await serve(Keyring(Source(), time.monotonic))) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelInfer")()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_unknown_service_is_watched_in_vain(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", response_deserializer=health.HealthCheckResponse.FromString
        )
        call = watch(b"\x0a\x01x")
        assert (await call.read()).status == health.SERVICE_UNKNOWN
        call.cancel()


async def test_an_idle_connection_may_be_kept_open_with_pings(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_, ping, goaway = 4, 6, 7
    assert rpc_server.MIN_PING_INTERVAL_MS < 5_000  # what clients and proxies set
    monkeypatch.setattr(rpc_server, "MIN_PING_INTERVAL_MS", 20)
    host, port = (await serve()).split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings_, b""))
    async with asyncio.timeout(20):
        for number in range(8):  # gRPC closes at the fifth, if it minds
            writer.write(frame(ping, number.to_bytes(8, "big")))
            kind = None
            while kind != ping:
                head = await reader.readexactly(9)
                kind, _ = head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))
                assert kind != goaway
            await asyncio.sleep(0.03)  # what is tested is time
    writer.close()


async def test_a_call_has_a_log_line(client: triton_aio.InferenceServerClient, log_lines: Any) -> None:
    await client.infer("m", tensors(1.0), headers={"x-request-id": "r1"})
    line = log_lines()[-1]
    assert (line["event"], line["request_id"], line["status"]) == ("call", "r1", "OK")
    assert (line["method"], line["model"]) == ("inference.GRPCInferenceService/ModelInfer", "m")


async def test_an_id_that_http_would_replace_is_replaced(
    client: triton_aio.InferenceServerClient, log_lines: Any
) -> None:
    await client.infer("m", tensors(1.0), headers={"x-request-id": "r" * 129})
    given = log_lines()[-1]["request_id"]
    assert "rr" not in given
    assert len(given) == 36


async def test_an_unknown_call_is_unimplemented(client: triton_aio.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await client.get_trace_settings()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


async def test_statistics(client: triton_aio.InferenceServerClient) -> None:
    await client.infer("m", tensors(1.0, 2.0, 3.0))
    listed = (await client.get_inference_statistics()).model_stats
    assert [(one.name, one.inference_count) for one in listed] == [("m", 3), ("m_jpeg", 0)]
    (one,) = (await client.get_inference_statistics("m")).model_stats
    assert (one.execution_count, one.inference_stats.success.count) == (3, 1)
    assert one.inference_stats.compute_infer.ns > 0


async def test_a_stream_goes_on_after_an_error(
    client: triton_aio.InferenceServerClient, service: FakeService
) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number, photo in enumerate((b"one", b"bad", b"three")):
            yield {
                "model_name": "m_jpeg",
                "inputs": photos(np.array([[photo]], np.object_)),
                "request_id": str(number),
            }

    answers = [answer async for answer in client.stream_infer(requests())]
    assert [result.get_response().id if result else None for result, _ in answers] == ["0", None, "2"]
    assert "3 bytes are not an image" in str(answers[1][1])


async def test_each_answer_of_a_stream_says_that_it_is_the_last_of_its_request(address: str) -> None:
    """Clients of models with several answers wait for that; an answer outside a stream does not say it."""

    def request(photo: bytes, number: int) -> Any:
        asked = service_pb2.ModelInferRequest(model_name="m_jpeg", id=str(number))
        asked.parameters["triton_enable_empty_final_response"].bool_param = True
        asked.inputs.add(name="images", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(photo)
        return asked

    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(iter([request(b"one", 0), request(b"bad", 1)]))
        good, bad = [answer async for answer in stream]
        alone = await stub.ModelInfer(request(b"one", 2))
    assert (good.error_message, good.infer_response.id, good.infer_response.model_name) == ("", "0", "m_jpeg")
    assert good.infer_response.parameters["triton_final_response"].bool_param
    assert "3 bytes are not an image" in bad.error_message
    assert (bad.infer_response.id, bad.infer_response.model_name) == ("1", "m_jpeg")
    assert bad.infer_response.parameters["triton_final_response"].bool_param
    assert "triton_final_response" not in alone.parameters


async def test_the_ratio_may_be_in_the_metadata(
    client: triton_aio.InferenceServerClient, service: FakeService
) -> None:
    await client.infer("m", tensors(1.0), headers={"x-reduction-ratio": "0.25"})
    assert service.calls[0][1].reduction_ratio == 0.25


@pytest.mark.parametrize(
    ("metadata", "parameters", "said"),
    [
        ({"x-reduction-ratio": "much"}, {}, "X-Reduction-Ratio must be a number or auto; got 'much'"),
        ({"x-reduction-ratio": "0.5"}, {"reduction_ratio": "0.25"}, "reduction_ratio must be given once"),
        ({}, {"reduction_ratio": True}, "reduction_ratio must be a number or auto"),
        ({}, {"reduction_ratio": ""}, "reduction_ratio must be a number or auto; got ''"),
        (
            {},
            {"reduction_ratio": "0.5", "max_reduction_ratio": "0.25"},
            "reduction_ratio must be auto or at most",
        ),
        ({}, {"deadline_ms": 0}, "deadline_ms must be a finite number above 0"),
    ],
)
async def test_what_http_refuses_is_refused(
    client: triton_aio.InferenceServerClient,
    service: FakeService,
    metadata: dict[str, str],
    parameters: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await client.infer("m", tensors(1.0), headers=metadata, parameters=parameters)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message().startswith(said)
    assert service.calls == []


async def test_an_unset_parameter_is_as_left_out(address: str, service: FakeService) -> None:
    request = service_pb2.ModelInferRequest(model_name="m_jpeg", raw_input_contents=[b"\x01\x00\x00\x00x"])
    given = request.inputs.add(name="images", datatype="BYTES", shape=[1, 1])
    for parameters in (request.parameters, given.parameters):
        for name in ("reduction_ratio", "deadline_ms", "binary_data_size", "shared_memory_region"):
            parameters[name].CopyFrom(service_pb2.InferParameter())
    async with grpc.aio.insecure_channel(address) as channel:
        await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert [options for _, options in service.calls] == [InferenceOptions("m")]


@pytest.mark.parametrize(
    ("contents", "raw", "size", "said"),
    [
        ({"bytes_contents": [b"x"]}, b"\x01\x00\x00\x00x", None, "left out if raw_input_contents is given"),
        ({"bytes_contents": [b"x"], "int_contents": [1]}, None, None, "left out: BYTES is in bytes_contents"),
        ({"fp32_contents": [1.0]}, None, None, "left out: BYTES is in bytes_contents"),
        ({}, b"\x01\x00\x00\x00x", 3, "as long as its JSON and the 3 bytes"),
        ({}, b"\x01\x00\x00\x00x", 9, "binary_data_size must be a number from 0 to the 5 bytes"),
    ],
    ids=["raw and typed", "two types", "another type", "a small size", "a large size"],
)
async def test_contents_that_would_not_be_read_are_refused(
    address: str,
    service: FakeService,
    contents: dict[str, Any],
    raw: bytes | None,
    size: int | None,
    said: str,
) -> None:
    request = service_pb2.ModelInferRequest(model_name="m_jpeg")
    given = request.inputs.add(name="images", datatype="BYTES", shape=[1, 1])
    given.contents.CopyFrom(service_pb2.InferTensorContents(**contents))
    if raw is not None:
        request.raw_input_contents.append(raw)
    if size is not None:
        given.parameters["binary_data_size"].int64_param = size
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=said) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert service.calls == []


async def test_the_caller_s_deadline_is_the_image_s(
    client: triton_aio.InferenceServerClient, service: FakeService
) -> None:
    await client.infer("m", tensors(1.0), client_timeout=30)
    await client.infer("m", tensors(1.0), client_timeout=30, parameters={"deadline_ms": 5})
    await client.infer("m", tensors(1.0))
    of_call, of_parameter, none = (options.deadline_ms for _, options in service.calls)
    assert of_call is not None
    assert 1_000 < of_call <= 31_000  # the wire rounds a timeout up
    assert (of_parameter, none) == (5, None)


async def test_a_caller_that_disconnects_cancels_its_image(address: str, service: FakeService) -> None:
    begun, dropped = asyncio.Event(), asyncio.Event()

    async def infer(image: Image, options: InferenceOptions) -> Inference:
        begun.set()
        try:
            return await asyncio.Future()
        finally:
            dropped.set()

    service.infer = infer  # type: ignore[method-assign]
    async with triton_aio.InferenceServerClient(address) as client:
        call = asyncio.create_task(client.infer("m", tensors(1.0)))
        await begun.wait()
        call.cancel()
        async with asyncio.timeout(20):
            await dropped.wait()
        await asyncio.wait([call])


async def test_while_draining_new_requests_are_refused(
    client: triton_aio.InferenceServerClient, drain: Drain
) -> None:
    drain.begin()
    assert not await client.is_server_ready()
    with pytest.raises(InferenceServerException, match="the server is stopping") as caught:
        await client.infer("m", tensors(1.0))
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_a_long_message_is_refused(serve: Serve, service: FakeService, compression: str | None) -> None:
    address = await serve(max_body_bytes=1_000_000)
    inputs = photos(np.array([[bytes(30_000_000)]], np.object_))
    async with triton_aio.InferenceServerClient(address) as client:
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("m_jpeg", inputs, compression_algorithm=compression)
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert service.calls == []


class Source:
    """Keys of a test."""

    def read(self) -> dict[str, Key]:
        return {
            "alice": Key("alice", digest_of("a" * 43)),
            "bob": Key("bob", digest_of("b" * 43), Rate(per_s=0.001, burst=2)),
        }

    def stamp(self) -> object:
        return None


@pytest.fixture
async def locked(serve: Serve) -> AsyncIterator[triton_aio.InferenceServerClient]:
    """A client of a server that requires keys."""
    async with triton_aio.InferenceServerClient(await serve(Keyring(Source(), time.monotonic))) as made:
        yield made


def holding(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key * 43}"}


async def test_a_key_is_required(locked: triton_aio.InferenceServerClient, metrics: Metrics) -> None:
    for headers in (None, holding("c")):
        with pytest.raises(InferenceServerException) as caught:
            await locked.infer("m", tensors(1.0), headers=headers)
        assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    labels = {"method": "ModelInfer", "status": "UNAUTHENTICATED", "code": "unauthorized"}
    assert metrics.registry.get_sample_value("prunepool_grpc_calls_total", labels) == 2


async def test_a_valid_key_is_accepted(locked: triton_aio.InferenceServerClient, log_lines: Any) -> None:
    result = await locked.infer("m", tensors(1.0), headers=holding("a"))
    assert result.as_numpy("logits").shape == (1, 10)
    assert log_lines()[-1]["key"] == "alice"


async def test_no_failure_shows_a_key(
    locked: triton_aio.InferenceServerClient, service: FakeService, log_lines: Any
) -> None:
    service.error = ZeroDivisionError("a bug")  # type: ignore[assignment]
    for key in "ac":
        with pytest.raises(InferenceServerException):
            await locked.infer("m", tensors(1.0), headers=holding(key))
    assert any("a bug" in str(line.get("exception")) for line in log_lines())
    assert not any("a" * 43 in str(line) or "c" * 43 in str(line) for line in log_lines())


async def test_health_needs_no_key(locked: triton_aio.InferenceServerClient) -> None:
    assert await locked.is_server_live()
    assert await locked.is_server_ready()
    with pytest.raises(InferenceServerException, match="API key"):
        await locked.get_model_metadata("m")


@pytest.mark.parametrize("protected", [False, True])
async def test_grpc_s_own_health_service_is_as_open_as_the_others(serve: Serve, protected: bool) -> None:
    address = await serve(Keyring(Source(), time.monotonic), protect_health=protected)
    async with grpc.aio.insecure_channel(address) as channel:
        if not protected:
            assert await checked(channel, "") == health.SERVING
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await checked(channel, "")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_key_has_its_rate(locked: triton_aio.InferenceServerClient) -> None:
    await locked.infer("m", tensors(1.0, 2.0), headers=holding("b"))
    with pytest.raises(InferenceServerException) as caught:
        await locked.infer("m", tensors(1.0), headers=holding("b"))
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


async def test_a_message_that_does_not_fit_into_memory_gets_retry_after(
    client: triton_aio.InferenceServerClient, budget: BodyMemoryBudget
) -> None:
    with budget.reserve() as other:
        other.add(9_000)
        with pytest.raises(InferenceServerException, match="hold 9000 bytes") as caught:
            await client.infer("m", tensors(1.0, 2.0))
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert (await client.infer("m", tensors(1.0, 2.0))).as_numpy("logits").shape == (2, 10)
    assert budget.held == 0


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_server_for_ipv4_answers_nobody_over_ipv6(
    serve: Serve, claimed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim keeps IPv6's port closed for the first server on a port, and no longer for a second one."""
    with claim_for_grpc("0.0.0.0", 0) as taken:
        if not claimed:
            taken.close()
        for _ in range(2):
            port = (await serve(host="0.0.0.0", grpc_port=taken.port)).rpartition(":")[2]
            async with triton_aio.InferenceServerClient(f"127.0.0.1:{port}") as over_ipv4:
                assert await over_ipv4.is_server_live()
            async with triton_aio.InferenceServerClient(f"[::1]:{port}") as over_ipv6:
                with pytest.raises(InferenceServerException) as caught:
                    await over_ipv6.is_server_live()
            assert caught.value.status() in ("StatusCode.PERMISSION_DENIED", "StatusCode.UNAVAILABLE")


async def test_a_port_in_use_is_reported(
    service: FakeService, drain: Drain, metrics: Metrics, make_settings: Any
) -> None:
    with claim("127.0.0.1", 0) as taken:
        settings = make_settings(grpc_port=taken.port)
        with pytest.raises(CannotListen, match="for gRPC"):
            async with rpc.serving(
                AppContext(service, settings, metrics, drain, BodyMemoryBudget(1, time.monotonic)),
                Statistics(),
                None,
            ):
                pass


async def test_without_a_port_there_is_no_server(
    service: FakeService, drain: Drain, metrics: Metrics, make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prunepool.api.oip.rpc.server", None)
    async with rpc.serving(
        AppContext(service, make_settings(), metrics, drain, BodyMemoryBudget(1, time.monotonic)),
        Statistics(),
        None,
    ):
        pass


async def test_without_the_extra_a_port_is_refused(
    service: FakeService, drain: Drain, metrics: Metrics, make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prunepool.api.oip.rpc.server", None)
    with pytest.raises(InvalidParameter, match=r"unset without pip install prunepool\[grpc\]; got 8001"):
        async with rpc.serving(
            AppContext(
                service, make_settings(grpc_port=8001), metrics, drain, BodyMemoryBudget(1, time.monotonic)
            ),
            Statistics(),
            None,
        ):
            pass
