"""Rows moved by index, against plain loops; and what an exporter sees of them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunepool.reduction.rows import add_rows, gather_rows

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(0, 9), st.integers(1, 4))


def case(shape: tuple[int, int, int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B, N, C], indices of rows [B, M], repeated ones too, and as many rows [B, M, C]."""
    batch, tokens, moved, channels = shape
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, channels, generator=random)
    index = torch.randint(tokens, (batch, moved), generator=random)
    return x, index, torch.randn(batch, moved, channels, generator=random)


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_rows_are_copied_by_index(shape: tuple[int, int, int, int], seed: int) -> None:
    x, index, _ = case(shape, seed)
    found = gather_rows(x, index)
    assert found.shape == (*index.shape, x.shape[2])
    for image in range(len(x)):
        for place, row in enumerate(index[image]):
            assert torch.equal(found[image, place], x[image, row])


@given(shape=shapes, seed=st.integers(0, 2**31))
def test_rows_are_added_where_the_index_says(shape: tuple[int, int, int, int], seed: int) -> None:
    x, index, rows = case(shape, seed)
    expected = x.clone()
    for image in range(len(x)):
        for place, row in enumerate(index[image]):
            expected[image, row] += rows[image, place]
    torch.testing.assert_close(add_rows(x.clone(), index, rows), expected)


class _Both(nn.Module):
    def forward(self, x: Tensor, index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return gather_rows(x, index), add_rows(x, index, rows)


def test_an_exporter_sees_one_operation_each() -> None:
    given_tensors = case((2, 5, 3, 4), 1)
    program = torch.export.export(_Both(), given_tensors)
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert [str(one) for one in calls] == ["prunepool.gather_rows.default", "prunepool.add_rows.default"]
    gathered, added = program.module()(*given_tensors)
    x, index, rows = given_tensors
    torch.testing.assert_close(gathered, gather_rows(x, index))
    torch.testing.assert_close(added, add_rows(x.clone(), index, rows))
