"""Nothing in a forward pass may wait for the device or be decided on the host by what is on the device.

The pass is traced with tensors that have shapes and a device but no values, on a GPU that need not be there:
reading a value, a shape that depends on data, or a tensor made on the host raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from prunepool.backends.cuda_capture import compute
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, plan_for_ratio


@pytest.fixture
def network() -> Iterator[ReducingViT]:
    """On a GPU, without values; traced while the test lasts."""
    with torch.device("meta"):
        vit = timm.create_model("deit_tiny_patch16_224", pretrained=False, depth=4).eval()
    with FakeTensorMode(), torch.inference_mode():
        for module in vit.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    valueless = torch.empty(parameter.shape, dtype=torch.bfloat16, device="cuda")
                    module._parameters[name] = nn.Parameter(valueless, requires_grad=False)
        yield ReducingViT(vit)


@pytest.mark.parametrize("method", METHODS)
def test_a_pass_of_several_plans_never_looks_at_a_value(network: ReducingViT, method: str) -> None:
    plans = [plan_for_ratio(ratio, patches=196, depth=4, method=method) for ratio in (0.3, 0.7)]
    images = torch.empty((4, 3, 224, 224), dtype=torch.bfloat16, device="cuda")
    computed = compute(network, images, [(DENSE, 1), (plans[0], 2), (plans[1], 1)])
    assert (computed.logits.device.type, computed.decisions.device.type) == ("cuda", "cuda")
    assert computed.logits.shape == (4, 1000)
    assert computed.decisions.shape == (4, 4)


@pytest.mark.parametrize(
    "look",
    [lambda t: t.sum().item(), lambda t: t[t > 0], lambda t: bool(t[0, 0] > 0)],
    ids=["item", "mask", "if"],
)
def test_the_trace_does_see_it(network: ReducingViT, look: Any) -> None:
    images = torch.empty((1, 3, 224, 224), dtype=torch.bfloat16, device="cuda")
    forward = network.forward

    def spied(*args: Any) -> Any:
        out = forward(*args)
        look(out.logits)
        return out

    network.forward = spied  # type: ignore[method-assign]
    with pytest.raises((DataDependentOutputException, RuntimeError, NotImplementedError)):
        compute(network, images, [(DENSE, 1)])
