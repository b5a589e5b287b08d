"""How operations of a reducing step are written for OpenVINO, where its own translation of PyTorch's is longer.

OpenVINO carries out each operation of a pass with dynamic shapes anew for each run, arithmetic of shapes too: some
microseconds each. Its translations allow for cases that a step does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def extensions() -> list[Any]:
    """The translations, as extensions of OpenVINO's front end."""
    from openvino.frontend.pytorch import ConversionExtension

    return [ConversionExtension(name, translate) for name, translate in _TRANSLATIONS.items()]


def _gather_rows(node: Any) -> list[Any]:
    ops = _operations()
    index = ops.convert(node.get_input(1), "i32")
    return _outputs(ops.gather(node.get_input(0), index, _number(1), batch_dims=1))


def _add_rows(node: Any) -> list[Any]:
    ops = _operations()
    rows = node.get_input(2)
    column = ops.unsqueeze(ops.convert(node.get_input(1), "i32"), _number(-1))
    return _added(node.get_input(0), ops.broadcast(column, ops.shape_of(rows, "i32")), rows, _number(1))


def _scatter_add(node: Any) -> list[Any]:
    """What is added always has the index's shape here, to which OpenVINO's own translation would cut it."""
    index = _operations().convert(node.get_input(2), "i32")
    return _added(node.get_input(0), index, node.get_input(3), _axis(node))


def _added(x: Any, index: Any, added: Any, axis: Any) -> list[Any]:
    ops = _operations()
    return _outputs(ops.scatter_elements_update(x, index, added, axis, reduction="sum", use_init_val=True))


def _scatter(node: Any) -> list[Any]:
    """The same holds for what is written."""
    ops = _operations()
    index = ops.convert(node.get_input(2), "i32")
    return _outputs(ops.scatter_elements_update(node.get_input(0), index, node.get_input(3), _axis(node)))


def _scatter_value(node: Any) -> list[Any]:
    ops = _operations()
    x, index = node.get_input(0), ops.convert(node.get_input(2), "i32")
    written = ops.broadcast(ops.convert_like(node.get_input(3), x), ops.shape_of(index, "i32"))
    return _outputs(ops.scatter_elements_update(x, index, written, _axis(node)))


def _vector_norm(node: Any) -> list[Any]:
    """The Euclidean norm, as one operation instead of four."""
    ops = _operations()
    if (order := node.get_values_from_const_input(1)) != 2:
        raise ValueError(f"a norm of order {order} is not translated")
    axes = np.array(node.get_values_from_const_input(2), np.int32)
    kept = node.get_input_size() > 3 and bool(node.get_values_from_const_input(3))
    return _outputs(ops.reduce_l2(node.get_input(0), ops.constant(axes), kept))


def _operations() -> Any:
    from openvino import opset15

    return opset15


def _axis(node: Any) -> Any:
    return _number(node.get_values_from_const_input(1))


def _number(value: int) -> Any:
    return _operations().constant(np.array(value, np.int32))


def _outputs(node: Any) -> list[Any]:
    outputs: list[Any] = node.outputs()
    return outputs


_TRANSLATIONS: dict[str, Callable[[Any], list[Any]]] = {
    "prunepool.gather_rows.default": _gather_rows,
    "prunepool.add_rows.default": _add_rows,
    "aten.scatter_add.default": _scatter_add,
    "aten.scatter.src": _scatter,
    "aten.scatter.value": _scatter_value,
    "aten.linalg_vector_norm.default": _vector_norm,
}
