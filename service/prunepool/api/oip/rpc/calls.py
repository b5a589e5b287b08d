"""What each call of the service does; errors are raised as everywhere, and told by :mod:`guard`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version as version_of
from typing import Any

import orjson
from tritonclient.grpc import model_config_pb2, service_pb2

from prunepool.api.access import check_admin_key
from prunepool.api.oip import repository
from prunepool.api.oip.answering import Exchange, answer, for_the_log, options_of
from prunepool.api.oip.requests import InferRequest
from prunepool.api.oip.router import EXTENSIONS, takes_requests
from prunepool.api.oip.rpc.guard import Call
from prunepool.api.oip.rpc.messages import filled, request_of_message, response_of, values_of
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View, find, views
from prunepool.api.options import Given
from prunepool.api.services import Services
from prunepool.errors import PrunepoolError
from prunepool.serving.types import Inference, Options


class Calls:
    """The calls of `inference.GRPCInferenceService` that are served.

    Args:
        here: the parts behind them.
        statistics: where requests are counted.
    """

    def __init__(self, here: Services, statistics: Statistics) -> None:
        self._here = here
        self._statistics = statistics

    def unary(self) -> dict[str, Callable[[Any, Call], Any]]:
        """One message in, one out, by name."""
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

    async def server_live(self, message: Any, call: Call) -> Any:
        """The process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, message: Any, call: Call) -> Any:
        """Every model can be asked."""
        return service_pb2.ServerReadyResponse(ready=takes_requests(self._here))

    async def model_ready(self, message: Any, call: Call) -> Any:
        """Whether a view can be asked."""
        ready = self._view(message.name, message.version).info.ready and not self._here.drain.started
        return service_pb2.ModelReadyResponse(ready=ready)

    async def server_metadata(self, message: Any, call: Call) -> Any:
        """Who answers, and what it can do beyond the protocol's core."""
        return service_pb2.ServerMetadataResponse(
            name="prunepool", version=version_of("prunepool"), extensions=EXTENSIONS
        )

    async def model_metadata(self, message: Any, call: Call) -> Any:
        """The inputs and outputs of a view."""
        view = self._view(message.name, message.version)
        return filled(service_pb2.ModelMetadataResponse(), view.metadata())

    async def model_config(self, message: Any, call: Call) -> Any:
        """A view as Triton would configure it."""
        view = self._view(message.name, message.version)
        config = view.config(self._here.settings.max_wait_ms / 1000)
        return service_pb2.ModelConfigResponse(config=filled(model_config_pb2.ModelConfig(), config))

    async def model_statistics(self, message: Any, call: Call) -> Any:
        """What became of the requests of one view, or of all."""
        if message.name:
            names = [self._view(message.name, message.version).name]
        else:
            names = [view.name for view in views(self._here.engine, self._here.settings)]
        counts = {"model_stats": [self._statistics.json(name) for name in names]}
        return filled(service_pb2.ModelStatisticsResponse(), counts)

    async def repository_index(self, message: Any, call: Call) -> Any:
        """Every view and its state."""
        question = orjson.dumps({"ready": message.ready})
        listed = await repository.index(self._here, question)
        return filled(service_pb2.RepositoryIndexResponse(), {"models": listed})

    async def repository_load(self, message: Any, call: Call) -> Any:
        """See that a model is served as it is now."""
        parameters = dict.fromkeys(values_of(message.parameters))
        question = orjson.dumps({"parameters": parameters})
        self._check_admin(call)
        await repository.load(self._here, message.model_name, question)
        return service_pb2.RepositoryModelLoadResponse()

    async def repository_unload(self, message: Any, call: Call) -> Any:
        """Stop serving a model."""
        self._check_admin(call)
        await repository.unload(self._here, message.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    async def model_infer(self, message: Any, call: Call) -> Any:
        """Answer an inference request; cancelled when its caller goes away."""
        here = self._here
        async with here.drain.receiving():
            pass  # it is here already: all that is left is to refuse it
        with here.room.place() as place:
            place.take(message.ByteSize())
            async with here.drain.answering():
                view = self._view(message.model_name, message.model_version)
                exchange = Exchange(
                    unpack=partial(_unpack, message, view, call.left_ms),
                    charge=call.charge,
                    connected=nullcontext(),
                    pack=partial(_pack, view),
                )
                response, answers = await answer(here.engine, view, self._statistics, exchange)
                call.fields.update(for_the_log(view, answers))
                return response

    async def model_stream_infer(self, messages: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Answer requests one after the other; the error of one does not end the stream."""
        async for message in messages:
            try:
                answered = await self.model_infer(message, call)
                yield service_pb2.ModelStreamInferResponse(infer_response=answered)
            except PrunepoolError as error:
                failed = service_pb2.ModelInferResponse(id=message.id)
                yield service_pb2.ModelStreamInferResponse(error_message=error.detail, infer_response=failed)

    def _check_admin(self, call: Call) -> None:
        if self._here.control is not None and call.caller is not None:
            check_admin_key(call.caller)

    def _view(self, name: str, version: str) -> View:
        return find(self._here.engine, self._here.settings, name, version or None)


async def _unpack(message: Any, view: View, left_ms: float | None) -> tuple[InferRequest, Options]:
    # Raw tensors are bytes already; typed ones are read number by number.
    if message.raw_input_contents:
        asked = request_of_message(message, view)
    else:
        asked = await asyncio.to_thread(request_of_message, message, view)
    given = [Given("parameters", name, value) for name, value in asked.parameters.items()]
    options = options_of(given, view)
    if options.deadline_ms is None and left_ms is not None:
        # The caller stops listening then.
        options = replace(options, deadline_ms=max(left_ms, 1e-3))
    return asked, options


async def _pack(view: View, asked: InferRequest, answers: Sequence[Inference]) -> Any:
    return response_of(asked, view, answers)
