"""The calls of the service. They raise errors, which :mod:`guard` turns into gRPC statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version as version_of
from typing import Any

import orjson
from tritonclient.grpc import model_config_pb2, service_pb2

from prunepool.api.access import check_admin_key
from prunepool.api.context import AppContext
from prunepool.api.oip import repository
from prunepool.api.oip.execution import TransportHooks, execute, log_fields_of, options_of
from prunepool.api.oip.requests import InferRequest
from prunepool.api.oip.router import EXTENSIONS, accepts_requests
from prunepool.api.oip.rpc.guard import GrpcCall
from prunepool.api.oip.rpc.messages import filled, plain_values, request_of_message, response_of
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View, find, views
from prunepool.api.options import HEADER, RawOption
from prunepool.errors import PrunepoolError
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Inference

#: Triton's parameter of responses in streams.
_FINAL = "triton_final_response"


class Calls:
    """The calls of `inference.GRPCInferenceService` that are served.

    Args:
        context: context of the app.
        statistics: counts the requests.
    """

    def __init__(self, context: AppContext, statistics: Statistics) -> None:
        self._context = context
        self._statistics = statistics

    def unary(self) -> dict[str, Callable[[Any, GrpcCall], Any]]:
        """Return the calls with one message in and one out, by name."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "ModelInfer": self.model_infer,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_load,
            "RepositoryModelUnload": self.repository_unload,
        }

    async def server_live(self, message: Any, call: GrpcCall) -> Any:
        """Answer that the process is alive."""
        return service_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, message: Any, call: GrpcCall) -> Any:
        """Answer whether every model accepts requests."""
        return service_pb2.ServerReadyResponse(ready=accepts_requests(self._context))

    async def model_ready(self, message: Any, call: GrpcCall) -> Any:
        """Answer whether a view accepts requests."""
        ready = self._view(message.name, message.version).info.ready and not self._context.drain.started
        return service_pb2.ModelReadyResponse(ready=ready)

    async def server_metadata(self, message: Any, call: GrpcCall) -> Any:
        """Return the server's name, version and protocol extensions."""
        return service_pb2.ServerMetadataResponse(
            name="prunepool", version=version_of("prunepool"), extensions=EXTENSIONS
        )

    async def model_metadata(self, message: Any, call: GrpcCall) -> Any:
        """Describe the inputs and outputs of a view."""
        view = self._view(message.name, message.version)
        return filled(service_pb2.ModelMetadataResponse(), view.metadata())

    async def model_config(self, message: Any, call: GrpcCall) -> Any:
        """Return a view as a Triton model configuration."""
        view = self._view(message.name, message.version)
        config = view.config(self._context.settings.max_wait_ms / 1000)
        return service_pb2.ModelConfigResponse(config=filled(model_config_pb2.ModelConfig(), config))

    async def model_statistics(self, message: Any, call: GrpcCall) -> Any:
        """Return the statistics of one view, or of all."""
        if message.name:
            names = [self._view(message.name, message.version).name]
        else:
            names = [view.name for view in views(self._context.service, self._context.settings)]
        counts = {"model_stats": [self._statistics.json(name) for name in names]}
        return filled(service_pb2.ModelStatisticsResponse(), counts)

    async def repository_index(self, message: Any, call: GrpcCall) -> Any:
        """List every view and its state."""
        body = orjson.dumps({"ready": message.ready})
        listed = await repository.index(self._context, body)
        return filled(service_pb2.RepositoryIndexResponse(), {"models": listed})

    async def repository_load(self, message: Any, call: GrpcCall) -> Any:
        """Load a model, or reload it if its model.json has changed."""
        # Their values may be files: only the names matter, and only of those that are set.
        given = {name: value is not None or None for name, value in plain_values(message.parameters).items()}
        body = orjson.dumps({"parameters": given})
        self._check_admin(call)
        await repository.load(self._context, message.model_name, body)
        return service_pb2.RepositoryModelLoadResponse()

    async def repository_unload(self, message: Any, call: GrpcCall) -> Any:
        """Unload a model."""
        self._check_admin(call)
        await repository.unload(self._context, message.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    async def model_infer(self, message: Any, call: GrpcCall) -> Any:
        """Handle an inference request; gRPC cancels it when its caller disconnects."""
        context = self._context
        async with context.drain.receiving():
            pass  # the message has arrived already; this only refuses it while the server drains
        with context.body_memory.reserve() as reservation:
            reservation.add(message.ByteSize())
            async with context.drain.answering():
                view = self._view(message.model_name, message.model_version)
                hooks = TransportHooks(
                    decode=partial(_decode, message, view, call),
                    charge=call.charge,
                    while_connected=nullcontext(),
                    encode=partial(_encode, view),
                )
                response, results = await execute(context.service, view, self._statistics, hooks)
                call.fields.update(log_fields_of(view, results))
                return response

    async def model_stream_infer(self, messages: AsyncIterator[Any], call: GrpcCall) -> AsyncGenerator[Any]:
        """Handle requests one after the other; the error of one does not end the stream.

        Each request has one response, which as in Triton says that it is the last: clients of models with several
        wait for that.
        """
        async for message in messages:
            try:
                answered, failure = await self.model_infer(message, call), ""
            except PrunepoolError as error:
                answered, failure = _failed(message), error.detail
            answered.parameters[_FINAL].bool_param = True
            yield service_pb2.ModelStreamInferResponse(infer_response=answered, error_message=failure)

    def _check_admin(self, call: GrpcCall) -> None:
        if self._context.control is not None and call.caller is not None:
            check_admin_key(call.caller)

    def _view(self, name: str, version: str) -> View:
        return find(self._context.service, self._context.settings, name, version or None)


def _failed(message: Any) -> Any:
    """Say which request failed."""
    return service_pb2.ModelInferResponse(
        id=message.id, model_name=message.model_name, model_version=message.model_version
    )


async def _decode(message: Any, view: View, call: GrpcCall) -> tuple[InferRequest, InferenceOptions]:
    # Raw tensors are views of bytes; typed ones are converted element by element, which takes long.
    if message.raw_input_contents:
        request = request_of_message(message, view)
    else:
        request = await asyncio.to_thread(request_of_message, message, view)
    raw = [RawOption("header", HEADER, value) for value in call.ratios]
    raw += [RawOption("parameters", name, value) for name, value in request.parameters.items()]
    options = options_of(raw, view)
    if options.deadline_ms is None and call.remaining_ms is not None:
        # The caller ignores a later response.
        options = replace(options, deadline_ms=max(call.remaining_ms, 1e-3))
    return request, options


async def _encode(view: View, request: InferRequest, results: Sequence[Inference]) -> Any:
    return response_of(request, view, results)
