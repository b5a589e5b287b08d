from __future__ import annotations

import numpy as np
import pytest

from prunepool.core.cost_model import CostModel
from prunepool.core.prediction import Predictor
from prunepool.core.ratio_policy import DefaultRatio, LoadSnapshot, RatioChoice
from prunepool.core.types import Limits, RatioSpec, Request
from prunepool.testing import FakeCosts

LOAD = LoadSnapshot(
    now=0.0,
    waiting=(),
    ratio_specs={},
    arriving={},
    busy_s=0.0,
    predictor=Predictor(FakeCosts(), Limits(), CostModel()),
)


@pytest.mark.parametrize(
    ("ratio_spec", "choice"),
    [
        (RatioSpec(0.25, 0.75), RatioChoice(0.25, "requested")),
        (RatioSpec(0.0, 0.75), RatioChoice(0.0, "requested")),
        (RatioSpec(None, 0.75), RatioChoice(0.5, "auto:default")),
        (RatioSpec(None, 0.25), RatioChoice(0.25, "auto:default")),
    ],
)
def test_fixed_as_asked_and_auto_at_the_default_within_its_maximum(
    ratio_spec: RatioSpec, choice: RatioChoice
) -> None:
    request = Request(np.zeros((1, 1, 3), np.uint8), ratio_spec, 0.0)
    assert DefaultRatio(0.5).plan(LOAD)(request) == choice


@pytest.mark.parametrize("ratio_spec", [RatioSpec(0.25, 0.75), RatioSpec(None, 0.75), RatioSpec(None, 0.25)])
def test_the_forecast_is_what_will_be_chosen(ratio_spec: RatioSpec) -> None:
    request = Request(np.zeros((1, 1, 3), np.uint8), ratio_spec, 0.0)
    policy = DefaultRatio(0.5)
    assert policy.forecast(ratio_spec, 0.0) == policy.plan(LOAD)(request).ratio
