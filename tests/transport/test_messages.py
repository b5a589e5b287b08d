"""What front ends and engines say to each other arrives as it was sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.types import StageMap, TokenMap
from prunepool.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    PrunepoolError,
)
from prunepool.imaging import Preprocess
from prunepool.serving.types import Inference, Options, PlanInfo, Reduction, Timing
from prunepool.testing import fake_model
from prunepool.transport import messages
from prunepool.transport.messages import (
    Answer,
    Ask,
    Cancel,
    Failed,
    Handshake,
    Load,
    Offer,
    State,
    StatusRequest,
    decode_for_engine,
    decode_for_frontend,
    encode,
)

numbers = st.floats(allow_nan=False, width=64)
counts = st.integers(0, 2**53)
optional = st.none() | numbers
options = st.builds(
    Options,
    model=st.none() | st.text(),
    reduction_ratio=st.none() | numbers | st.just("auto"),
    max_reduction_ratio=optional,
    top_k=st.none() | counts,
    deadline_ms=optional,
    explain=st.booleans(),
    max_accuracy_drop=optional,
)
asks = st.builds(
    Ask,
    id=counts,
    options=options,
    arrival=numbers,
    decode_s=numbers,
    shape=st.lists(st.integers(0, 4096), max_size=4).map(tuple),
    dtype=st.sampled_from(["uint8", "float32"]),
    slot=st.none() | counts,
)
places = st.lists(st.integers(0, 195), max_size=4).map(tuple)
stages = st.builds(
    StageMap, block=counts, action=st.text(), variance=numbers, pruned=places, groups=st.tuples(places)
)
token_maps = st.builds(
    TokenMap, grid=st.tuples(counts, counts), tokens=st.tuples(places), stages=st.tuples(stages)
)
inferences = st.builds(
    Inference,
    model=st.text(),
    logits=st.lists(st.floats(width=32, allow_nan=False), max_size=20).map(
        lambda xs: np.array(xs, np.float32)
    ),
    reduction=st.builds(
        Reduction,
        requested=numbers | st.just("auto"),
        applied=numbers,
        reason=st.text(),
        tokens=places,
        gmacs=numbers,
        macs_saved=numbers,
    ),
    timing_ms=st.builds(Timing, decode=numbers, queue=numbers, inference=numbers, total=numbers),
    batch=counts,
    batch_size=counts,
    token_map=st.none() | token_maps,
)
loads = st.builds(Load, missing=st.none() | st.text(), drain_s=numbers, image_s=numbers)


@given(
    st.one_of(st.builds(Handshake, counts), st.builds(StatusRequest, counts), asks, st.builds(Cancel, counts))
)
def test_what_an_engine_is_told(message: Any) -> None:
    assert decode_for_engine(encode(message)) == message


@given(st.builds(State, st.text(), st.dictionaries(st.text(), loads, max_size=3), heard=counts))
def test_how_an_engine_is(message: State) -> None:
    assert decode_for_frontend(encode(message)) == message


@given(counts, inferences, numbers, counts)
def test_an_answer_and_its_logits(number: int, inference: Inference, drain_s: float, heard: int) -> None:
    answer = decode_for_frontend(encode(Answer(number, inference, drain_s, heard)))
    assert isinstance(answer, Answer)
    assert (answer.id, answer.drain_s, answer.heard) == (number, drain_s, heard)
    assert answer.inference.logits.dtype == np.float32
    np.testing.assert_array_equal(answer.inference.logits, inference.logits)
    for name in ("model", "reduction", "timing_ms", "batch", "batch_size", "token_map"):
        assert getattr(answer.inference, name) == getattr(inference, name)


def test_a_model_with_its_plans_and_its_profile() -> None:
    plan = PlanInfo(0.5, (3, 6), (50, 48), (7e-5, 7e-5), (197, 147, 99), 0.9, 0.3)
    info = fake_model(plans=(plan,), profile=[{"ratio": 0.5, "gmacs": 0.9, "drop": 0.1}])
    offer = Offer(info, Preprocess(224, 0.9))
    state = decode_for_frontend(encode(State("fake", {}, (offer,))))
    assert isinstance(state, State)
    assert state.offers == (offer,)


@pytest.mark.parametrize(
    "error",
    [
        InvalidParameter("reduction_ratio", 1.5, "a number between 0 and 0.8"),
        ModelNotFound("no model named 'x' is served"),
        Overloaded("too much", retry_after=2.5),
        EngineUnavailable("gone", retry_after=0.5),
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
