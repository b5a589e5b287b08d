"""Requests generated from the OpenAPI document, valid and invalid: no 5xx, and documented responses."""

from __future__ import annotations

import schemathesis
from budget import examples
from hypothesis import HealthCheck, settings
from prometheus_client import CollectorRegistry
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from prunepool.api.app import create_app
from prunepool.metrics import Metrics
from prunepool.settings import Settings
from prunepool.testing import FakeService


class Everlasting(FakeService):
    """Opens again after each lifespan: the schema's client begins and ends one for every call."""

    async def start(self) -> None:
        self.draining = False


# Made while the tests are collected, so of defaults only, whatever the environment.
APP = create_app(
    Everlasting(), Settings.model_construct(max_body_bytes=100_000), Metrics(CollectorRegistry())
)
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
schemathesis.serializer.alias(["image/bmp", "image/tiff"], "application/octet-stream")
CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


@SCHEMA.parametrize()
@settings(examples(2), suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)
