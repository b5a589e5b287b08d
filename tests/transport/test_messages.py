"""What front ends and engines say to each other arrives as it was sent."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.model_info import PlanInfo
from prunepool.core.types import Output, RatioSpec, Request, Result, StageMap, TokenMap
from prunepool.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidParameter,
    ModelNotFound,
    ModelReplaced,
    Overloaded,
    PrunepoolError,
)
from prunepool.imaging import Preprocess
from prunepool.testing import fake_model
from prunepool.transport import messages
from prunepool.transport.client import ModelLoad, ModelOffer
from prunepool.transport.messages import (
    Cancel,
    Completed,
    Failed,
    Handshake,
    Status,
    StatusRequest,
    Submit,
    decode_for_engine,
    decode_for_frontend,
    encode,
)

numbers = st.floats(allow_nan=False, width=64)
counts = st.integers(0, 2**53)
optional = st.none() | numbers
ratio_specs = st.builds(RatioSpec, requested=optional, maximum=numbers)
submits = st.builds(
    Submit,
    id=counts,
    model=st.text(),
    generation=st.text(),
    ratio_spec=ratio_specs,
    arrival=numbers,
    deadline=optional,
    explain=st.booleans(),
    attempts=counts,
    shape=st.lists(st.integers(0, 4096), max_size=4).map(tuple),
    dtype=st.sampled_from(["uint8", "float32"]),
    slot=st.none() | counts,
)
patches = st.lists(st.integers(0, 195), max_size=4).map(tuple)
stages = st.builds(
    StageMap, block=counts, action=st.text(), variance=numbers, pruned=patches, groups=st.tuples(patches)
)
token_maps = st.builds(
    TokenMap, grid=st.tuples(counts, counts), tokens=st.tuples(patches), stages=st.tuples(stages)
)
outputs = st.builds(
    Output,
    logits=st.lists(st.floats(width=32, allow_nan=False), max_size=20).map(
        lambda xs: np.array(xs, np.float32)
    ),
    tokens=patches,
    gmacs=numbers,
    pruned=counts,
    pooled=counts,
    token_map=st.none() | token_maps,
    graph_replayed=st.booleans(),
)
results = st.builds(
    Result,
    output=outputs,
    generation=st.text(),
    ratio=numbers,
    applied=numbers,
    reason=st.text(),
    batch_id=st.integers(0, 2**63 - 1),
    batch_size=counts,
    queue_s=numbers,
    inference_s=numbers,
)
loads = st.builds(ModelLoad, missing=st.none() | st.text(), drain_s=numbers, image_s=numbers)


@given(
    st.one_of(
        st.builds(Handshake, counts), st.builds(StatusRequest, counts), submits, st.builds(Cancel, counts)
    )
)
def test_what_an_engine_is_sent(message: Any) -> None:
    assert decode_for_engine(encode(message)) == message


@given(st.builds(Status, st.text(), st.dictionaries(st.text(), loads, max_size=3), last_sequence=counts))
def test_the_status_of_an_engine(message: Status) -> None:
    assert decode_for_frontend(encode(message)) == message


@given(counts, st.text(), results, numbers, counts)
def test_a_result_and_its_logits(number: int, model: str, result: Result, drain_s: float, last: int) -> None:
    sent = decode_for_frontend(encode(Completed(number, model, result, drain_s, last)))
    assert isinstance(sent, Completed)
    assert (sent.id, sent.model, sent.drain_s, sent.last_sequence) == (number, model, drain_s, last)
    assert sent.result.output.logits.dtype == np.float32
    np.testing.assert_array_equal(sent.result.output.logits, result.output.logits)
    for name in (
        "generation",
        "ratio",
        "applied",
        "reason",
        "batch_id",
        "batch_size",
        "queue_s",
        "inference_s",
    ):
        assert getattr(sent.result, name) == getattr(result, name)
    for name in ("tokens", "gmacs", "pruned", "pooled", "token_map", "graph_replayed"):
        assert getattr(sent.result.output, name) == getattr(result.output, name)


@given(ratio_specs, numbers, optional, st.booleans(), counts, st.sampled_from([np.uint8, np.float32]))
def test_a_request_arrives_as_it_was_sent(
    ratio_spec: RatioSpec, arrival: float, deadline: float | None, explain: bool, attempts: int, dtype: type
) -> None:
    pixels = np.arange(12, dtype=dtype).reshape(2, 2, 3)
    request = Request(pixels, ratio_spec, arrival, deadline, explain, attempts)
    submit = decode_for_engine(encode(messages.submit_of(7, "m", "g", request, None)))
    assert isinstance(submit, Submit)
    arrived = messages.request_of(submit, request.pixels.tobytes())
    np.testing.assert_array_equal(arrived.pixels, request.pixels)
    assert arrived.pixels.dtype == dtype
    assert (arrived.ratio_spec, arrived.arrival, arrived.deadline) == (ratio_spec, arrival, deadline)
    assert (arrived.explain, arrived.attempts) == (explain, attempts)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93", encode({"type": "Completed"}), encode(["Nobody"])])
def test_what_is_no_message_is_an_error_and_no_crash(frame: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_for_frontend(frame)


def test_a_model_with_its_plans_and_its_profile() -> None:
    plan = PlanInfo(0.5, (3, 6), (50, 48), (7e-5, 7e-5), (197, 147, 99), 0.9, 0.3)
    info = fake_model(plans=(plan,), profile=[{"ratio": 0.5, "gmacs": 0.9, "drop": 0.1}])
    offer = ModelOffer(info, Preprocess(224, 0.9), "generation")
    status = decode_for_frontend(encode(Status("fake", {}, (offer,))))
    assert isinstance(status, Status)
    assert status.offers == (offer,)


@pytest.mark.parametrize(
    "error",
    [
        InvalidParameter("reduction_ratio", 1.5, "a number between 0 and 0.8"),
        ModelNotFound("no model named 'x' is served"),
        Overloaded("too much", retry_after=2.5),
        EngineUnavailable("gone", retry_after=0.5),
        ModelReplaced("another generation", retry_after=0.1),
        DeadlineExceeded("too late"),
        PrunepoolError("unforeseen"),
    ],
)
def test_an_error_is_the_same_to_the_caller(error: PrunepoolError) -> None:
    sent = decode_for_frontend(encode(Failed(1, messages.failure_of(error))))
    assert isinstance(sent, Failed)
    arrived = messages.error_of(sent.error)
    assert type(arrived) is type(error)
    assert arrived.problem() == error.problem()
    assert str(arrived) == str(error)
    assert getattr(arrived, "retry_after", None) == getattr(error, "retry_after", None)
