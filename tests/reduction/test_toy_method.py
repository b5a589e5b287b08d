"""A new method is one file and one entry in the registry: everything else runs with it as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn
from toy_method import TOY

from prunepool.backends.dynamic_pass import DynamicPass, PlanFamily
from prunepool.errors import ManifestInvalid
from prunepool.imaging import ImageLimits, decode
from prunepool.metrics import Metrics
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.preprocess import preprocess_of
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, plan_for_ratio
from prunepool.server.factory import create_local_service
from prunepool.serving.types import Service
from prunepool.settings import Settings
from prunepool.store import ModelStore


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one entry in the registry."""
    monkeypatch.setitem(METHODS, TOY.name, TOY)


@pytest.fixture(scope="module")
def vit(random_vit: Callable[..., nn.Module]) -> nn.Module:
    return random_vit("deit_tiny_patch16_224", depth=4, num_classes=5)


@pytest.mark.usefixtures("registered")
@torch.inference_mode()
def test_a_network_runs_it_beside_others_and_is_exact_where_nothing_leaves(vit: nn.Module) -> None:
    network = ReducingViT(vit)
    toy, nothing = (plan_for_ratio(ratio, patches=196, depth=4, method="toy") for ratio in (0.5, 0.0))
    ppt = plan_for_ratio(0.5, patches=196, depth=4)
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    logits, stages = network(images, [(nothing, 1), (toy, 2), (ppt, 1)])
    ours = [stage for stage in stages if stage.first == 1]
    assert [stage.indices.keep[0].tolist() for stage in ours] == [list(range(n)) for n in (164, 131, 99)]
    torch.testing.assert_close(logits[3:], network(images[3:], [(ppt, 1)]).logits, atol=1e-5, rtol=0)
    assert torch.equal(network(images, [(nothing, 4)]).logits, vit(images))


@pytest.mark.usefixtures("registered")
@torch.inference_mode()
def test_it_can_be_exported_for_all_ratios(vit: nn.Module) -> None:
    network = ReducingViT(vit)
    plan = plan_for_ratio(0.5, patches=196, depth=4, method="toy")
    (family,) = PlanFamily.all_of([plan, DENSE])
    counts = family.counts(plan, network.geometry)
    assert counts == (164, 131, 99)
    images = torch.randn(2, 3, 224, 224)
    program = DynamicPass(network, family).exported(224).module()
    logits, *_ = program(images, torch.zeros(3), *map(torch.zeros, counts))
    torch.testing.assert_close(logits, network(images, [(plan, 2)]).logits, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("registered")
def test_a_manifest_names_it_and_a_server_answers_by_it(
    tiny: LoadedModel,
    tiny_store: Path,
    tmp_path: Path,
    metrics: Metrics,
    serving: Callable[[Settings, Service], AbstractContextManager[str]],
    root: Path,
) -> None:
    shutil.copytree(tiny_store, tmp_path / "store")
    store = ModelStore(tmp_path / "store")
    manifest = store.open("tiny").manifest
    reduction = manifest.reduction.model_copy(update={"method": "toy"})
    store.update_manifest("tiny", manifest, {"reduction": reduction})
    settings = Settings(model="tiny", model_store=store.root, device="cpu", dtype="float32")
    photo = (root / "docs/images/sample.jpg").read_bytes()
    with serving(settings, create_local_service(settings, metrics)) as url:
        plans = httpx.get(f"{url}/models/tiny").json()["plans"]
        dense, reduced = (
            httpx.post(
                f"{url}/classify", params={"reduction_ratio": ratio, "explain": True}, content=photo
            ).json()
            for ratio in (0.0, 0.5)
        )
    assert {plan["method"] for plan in plans if plan["reduction_ratio"]} == {"toy"}
    assert reduced["reduction"]["tokens"] == [197, 164, 131, 99]
    kept = [token["patches"] for token in reduced["token_map"]["tokens"]]
    assert kept == [[patch] for patch in range(98)], "the first half of the photo is what is left"
    # At ratio 0 no method has a say: the answer is that of the model as it came.
    preprocess = preprocess_of(manifest)
    crop = torch.from_numpy(decode(photo, preprocess, ImageLimits()))
    scores = tiny(tiny.normalise(crop[None])).logits.softmax(-1)[0].tolist()
    assert [one["score"] for one in dense["predictions"]] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-6
    )


def test_a_manifest_with_a_method_that_is_not_registered_is_refused(tiny_store: Path) -> None:
    manifest = ModelStore(tiny_store).open("tiny").manifest
    reduction = manifest.reduction.model_copy(update={"method": "toy"})
    with pytest.raises(
        ManifestInvalid, match=r"reduction.method is 'toy': must be one of ppt, .*, ppt-paper"
    ):
        ModelStore(tiny_store).update_manifest("tiny", manifest, {"reduction": reduction})
