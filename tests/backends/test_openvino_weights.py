"""Weights in int8: how far off they are, and what OpenVINO computes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prunepool.backends.openvino_weights import quantise, quantise_weights

ov = pytest.importorskip("openvino")


@given(
    weights=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(-64, 64, width=32),
    ),
    axis=st.sampled_from([0, 1]),
)
def test_no_weight_is_off_by_more_than_a_scale_and_zero_stays_zero(weights: Any, axis: int) -> None:
    integers, zero_point, scale = quantise(weights, axis)
    back = (integers.astype(np.float32) - zero_point) * scale
    assert integers.dtype == zero_point.dtype == np.uint8
    assert scale.shape == tuple(1 if i == axis else side for i, side in enumerate(weights.shape))
    assert (np.abs(back - weights) <= scale * 1.001 + 1e-30).all()
    assert (back[weights == 0] == 0).all()


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("hint", ["f32", "bf16"])
def test_a_product_with_quantised_weights_is_close(transposed: bool, hint: str) -> None:
    from openvino import opset13 as ops

    rng = np.random.default_rng(1)
    weights = rng.normal(size=(96, 64) if transposed else (64, 96)).astype(np.float32)
    rows = rng.normal(size=(7, 64)).astype(np.float32)
    given_rows = ops.parameter([-1, 64], np.float32)
    other = ops.parameter([-1, 64], np.float32)
    constant = ops.constant(weights)
    first = ops.matmul(given_rows, constant, False, transposed)
    second = ops.matmul(other, constant, False, transposed)
    # A product of two activations, as in attention, has no weights.
    scores = ops.matmul(given_rows, other, False, True)
    model = ov.Model([first, second, scores], [given_rows, other], "products")
    assert quantise_weights(model) == 1
    settings = {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 64}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    wanted = rows @ (weights.T if transposed else weights)
    found = compiled([rows, rows])
    for i in range(2):
        np.testing.assert_allclose(found[i], wanted, atol=0.02 * np.abs(wanted).max())
    np.testing.assert_allclose(found[2], rows @ rows.T, atol=0.05 if hint == "f32" else 1.0)


@pytest.mark.parametrize("transposed", [True, False])
def test_a_large_weight_makes_only_its_own_64_neighbours_coarse(transposed: bool) -> None:
    from openvino import opset13 as ops

    weights = np.random.default_rng(2).normal(size=(8, 192)).astype(np.float32)
    weights[:, 0] = 1000.0
    given_rows = ops.parameter([-1, 192], np.float32)
    constant = ops.constant(weights if transposed else np.ascontiguousarray(weights.T))
    model = ov.Model([ops.matmul(given_rows, constant, False, transposed)], [given_rows], "outlier")
    assert quantise_weights(model) == 1
    settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    # The rows of the unit matrix give the weights back.
    back = ov.Core().compile_model(model, "CPU", settings)([np.eye(192, dtype=np.float32)])[0].T
    off = np.abs(back - weights)
    assert off[:, :64].max() > 0.5
    assert off[:, 64:].max() < 0.05
