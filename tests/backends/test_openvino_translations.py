"""Operations of a step, as they are written for OpenVINO: PyTorch's answers, and no arithmetic of shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.backends.openvino_conversion import to_openvino
from prunepool.reduction.rows import add_rows, gather_rows

ov = pytest.importorskip("openvino")

#: Of tokens [B, N, C], indices [B, M] and rows [B, M, C]: what is computed, and the operations that it may take.
CASES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], int]] = {
    "gather_rows": (lambda x, index, rows: gather_rows(x, index), 2),
    "add_rows": (lambda x, index, rows: add_rows(x.clone(), index, rows), 5),
    "scatter_add": (lambda x, index, rows: x[..., 0].scatter_add(1, index, rows[..., 0]), 4),
    "scatter": (lambda x, index, rows: x[..., 0].scatter(1, index, rows[..., 0]), 4),
    "scatter a number": (lambda x, index, rows: x[..., 0].scatter(1, index, 2.5), 6),
    "scatter along the last axis": (
        lambda x, index, rows: x.transpose(1, 2).scatter(2, index[:, None], 2.5),
        9,
    ),
    "norm": (lambda x, index, rows: torch.linalg.vector_norm(x, dim=-1), 1),
    "norm over two axes": (lambda x, index, rows: torch.linalg.vector_norm(x.unsqueeze(1), dim=(1, 3)), 2),
    "normalised": (lambda x, index, rows: F.normalize(x, dim=-1), 12),
    "order": (lambda x, index, rows: x[..., 0].argsort(dim=-1, descending=True, stable=True), 6),
}


class _Step(nn.Module):
    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._step = step

    def forward(self, x: Tensor, index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        # Every input is read, whatever the step reads.
        return self._step(x, index, rows), x.sum() + index.sum() + rows.sum()


def tensors(batch: int, tokens: int, moved: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(batch)
    index = torch.stack([torch.randperm(tokens, generator=random)[:moved] for _ in range(batch)])
    channels = 4
    return (
        torch.randn(batch, tokens, channels, generator=random),
        index,
        torch.randn(batch, moved, channels, generator=random),
    )


def converted(step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Any:
    shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(_Step(step), tensors(3, 9, 5), dynamic_shapes=(shape, shape, shape))
    return to_openvino(program)


def operations(model: Any, output: int) -> Counter[str]:
    """Kinds of operations between the inputs and an output, without constants and conversions of type."""
    found, seen = [model.get_results()[output].input_value(0).get_node()], set()
    counted: Counter[str] = Counter()
    while found:
        node = found.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        counted[node.get_type_name()] += 1
        found += [source.get_node() for source in node.input_values()]
    return Counter(
        {
            kind: n
            for kind, n in counted.items()
            if kind not in ("Parameter", "Constant", "Convert", "ConvertLike")
        }
    )


@pytest.mark.parametrize("name", CASES)
def test_an_operation_of_a_step_is_few_of_openvinos(name: str) -> None:
    step, most = CASES[name]
    model = converted(step)
    counted = operations(model, 0)
    assert counted.total() <= most, counted
    assert not counted.keys() & {"Reshape", "Mod", "FloorMod", "Range"}
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32})
    for given in (tensors(1, 9, 5), tensors(2, 31, 8), tensors(4, 6, 0)):
        found = compiled([one.numpy() for one in given])[0]
        np.testing.assert_allclose(found, step(*given).numpy(), rtol=1e-5, atol=1e-6)
