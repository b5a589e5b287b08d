"""Weights of a converted pass in int8: a scale and a zero point for each group of weights. It needs no torch.

Only the weights of matrix products change. OpenVINO's CPU plugin then quantises the activations as they come, a
group of neighbouring channels at a time, so that no calibration data is needed. A group is some neighbouring
inputs of one output channel: one large weight then makes few others coarse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The largest value of an unsigned 8-bit integer.
_MOST = 255

#: Neighbouring input channels whose weights have one scale, where their number divides by it.
_GROUP = 64


def quantise_weights(model: Any) -> int:
    """Replace the weights of every matrix product of an `openvino.Model` by int8 ones, in place.

    Returns:
        How many were replaced.
    """
    from openvino import opset13 as ops
    from openvino.passes import ConstantFolding, Manager

    # The last block uses slices of its weights; folded, they are constants like the others.
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    made: dict[str, Any] = {}
    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul":
            continue
        source = product.input_value(1)
        constant = source.get_node()
        if constant.get_type_name() != "Constant" or len(constant.shape) != 2:
            continue
        name = constant.get_friendly_name()
        if name not in made:
            # Rows are output channels if the product transposes the weights.
            rows = bool(product.get_attributes()["transpose_b"])
            made[name] = _decompressed(ops, constant.data, axis=1 if rows else 0)
        product.input(1).replace_source_output(made[name].output(0))
    return len(made)


def _decompressed(ops: Any, weights: NDArray[Any], axis: int) -> Any:
    """Operations that give weights back from their int8 form: (q − zero point) · scale."""
    inputs = weights.shape[axis]
    size = _GROUP if inputs % _GROUP == 0 else inputs
    grouped = weights.astype(np.float32)
    if size < inputs:
        grouped = grouped.reshape(*weights.shape[:axis], inputs // size, size, *weights.shape[axis + 1 :])
        axis += 1
    quantised, zero_point, scale = quantise(grouped, axis)
    integers = ops.convert(ops.constant(quantised), "f32")
    shifted = ops.subtract(integers, ops.convert(ops.constant(zero_point), "f32"))
    back = ops.multiply(shifted, ops.constant(scale))
    if size == inputs:
        return back
    return ops.reshape(back, ops.constant(np.array(weights.shape)), special_zero=False)


def quantise(
    weights: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
    """Weights as unsigned integers, with the zero point and the scale of each group.

    Args:
        weights: float32.
        axis: along which one scale holds: that of the input channels of a group.

    Returns:
        The integers, of the weights' shape; zero points and scales, of length 1 along the axis. Zero stays zero,
        and no weight is off by more than one scale.
    """
    low = np.minimum(weights.min(axis=axis, keepdims=True), 0.0)
    high = np.maximum(weights.max(axis=axis, keepdims=True), 0.0)
    scale = ((high - low) / _MOST).astype(np.float32)
    scale[scale == 0] = 1.0
    zero_point = np.round(-low / scale)
    quantised = np.clip(np.round(weights / scale) + zero_point, 0, _MOST)
    return quantised.astype(np.uint8), zero_point.astype(np.uint8), scale
