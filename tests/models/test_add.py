"""What is checked before weights are added to the store."""

from __future__ import annotations

import hashlib
import re
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from prunepool.errors import (
    ArchitectureUnsupported,
    InvalidParameter,
    ManifestInvalid,
    ModelError,
    PrunepoolError,
    WeightsInvalid,
)
from prunepool.models.add import AddedModel, _labels, add_file
from prunepool.models.description import ModelDescription
from prunepool.models.geometry import geometry_of
from prunepool.models.loader import load_model
from prunepool.store import ModelStore

State = dict[str, Tensor]
DESCRIPTION = ModelDescription(
    name="mine",
    architecture="deit_tiny_patch16_224",
    input_size=224,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    crop_pct=0.9,
    crop_mode="center",
    interpolation="bicubic",
    licence="Apache-2.0",
    origin="random",
    labels=("cat", "dog", "owl"),
)


@pytest.fixture(scope="module")
def state(random_vit: Callable[..., nn.Module]) -> State:
    """Weights of a DeiT-Ti with three classes, float16."""
    vit = random_vit("deit_tiny_patch16_224", num_classes=3)
    return {key: value.half() for key, value in vit.state_dict().items()}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def add(store: ModelStore, tmp_path: Path) -> Callable[..., AddedModel]:
    """Writes weights to a file and adds that."""

    def _add(
        weights: State, description: ModelDescription = DESCRIPTION, *, replace: bool = False
    ) -> AddedModel:
        save_file(weights, tmp_path / "in.safetensors")
        return add_file(store, tmp_path / "in.safetensors", description, replace=replace)

    return _add


def refused(store: ModelStore, work: Callable[[], object]) -> PrunepoolError:
    """The error of an attempt that must fail and leave nothing in the store."""
    with pytest.raises(PrunepoolError) as caught:
        work()
    assert not store.root.exists() or list(store.root.iterdir()) == []
    assert "\n" not in caught.value.detail
    return caught.value


def test_weights_are_copied_and_recorded(
    store: ModelStore, add: Callable[..., AddedModel], state: State, tmp_path: Path
) -> None:
    add(state)
    model = store.verify("mine")
    assert model.manifest.geometry is not None
    assert (model.manifest.geometry.tokens, model.manifest.geometry.classes) == (197, 3)
    data = model.weights_path.read_bytes()
    assert data == (tmp_path / "in.safetensors").read_bytes()
    recorded = model.manifest.weights
    assert recorded.sha256 == hashlib.sha256(data).hexdigest()
    assert (recorded.dtype, recorded.parameters) == ("float16", sum(t.numel() for t in state.values()))
    assert model.manifest.labels == ("cat", "dog", "owl")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_disk_that_fills_up_leaves_nothing_half_written(
    suffix: str, store: ModelStore, state: State, tmp_path: Path
) -> None:
    source = tmp_path / f"in{suffix}"
    save_file(state, source) if suffix == ".safetensors" else torch.save(state, source)

    def add() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            add_file(store, source, DESCRIPTION)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "File too large" in refused(store, add).detail


def test_what_was_added_can_be_loaded_and_run(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    add(state)
    model = load_model("mine", device="cpu", dtype="float32", store=store.root)
    assert model(torch.zeros(1, 3, 224, 224), model.plan(0.5)).logits.shape == (1, 3)


def test_a_checkpoint_gives_the_same_model_as_safetensors(
    store: ModelStore, state: State, tmp_path: Path
) -> None:
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "in.pth")
    added = add_file(store, tmp_path / "in.pth", DESCRIPTION)
    found = load_file(added.model.weights_path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_missing_unexpected_and_misshapen_keys_are_named(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    wrong = dict(state)
    for key in ("norm.bias", "blocks.0.attn.qkv.bias", "blocks.1.attn.qkv.bias", "blocks.2.attn.qkv.bias"):
        del wrong[key]
    wrong["extra"] = torch.zeros(1)
    wrong["cls_token"] = torch.zeros(1, 1, 64)
    error = refused(store, lambda: add(wrong))
    assert isinstance(error, WeightsInvalid)
    assert error.detail == (
        "the weights are not those of deit_tiny_patch16_224 at 224² with 3 classes: "
        "4 missing (blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias, blocks.2.attn.qkv.bias, …), "
        "1 unexpected (extra), 1 of another shape (cls_token is [1, 1, 64], not [1, 1, 192])"
    )


def test_the_input_size_follows_the_position_embeddings_and_that_is_said(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    added = add(state | {"pos_embed": torch.zeros(1, 577, 192)})
    assert added.notices == ("its position embeddings are of 384², so that this is its input size",)
    manifest = store.verify("mine").manifest
    assert manifest.geometry is not None
    assert (manifest.input_size, manifest.geometry.patch_grid) == (384, (24, 24))


def test_position_embeddings_are_resampled_to_an_input_size_that_is_asked_for(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    added = add(state, replace(DESCRIPTION, input_size=384, resample=True))
    assert added.notices == ("its position embeddings are of 224²; they were resampled to 384²",)
    found = load_file(store.verify("mine").weights_path)
    wanted = resample_abs_pos_embed(state["pos_embed"], [24, 24])
    torch.testing.assert_close(found.pop("pos_embed"), wanted)
    assert all(torch.equal(found[key], state[key]) for key in found)


def test_positions_of_no_square_are_refused(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    error = refused(store, lambda: add(state | {"pos_embed": torch.zeros(1, 500, 192)}))
    assert "1 of another shape (pos_embed is [1, 500, 192], not [1, 197, 192])" in error.detail


def test_metas_names_of_layer_scale_become_timms(
    store: ModelStore, tmp_path: Path, random_vit: Callable[..., nn.Module]
) -> None:
    vit = random_vit("deit3_small_patch16_224", num_classes=3)
    metas = {
        re.sub(r"ls([12])\.gamma", r"gamma_\1", key): value.half() for key, value in vit.state_dict().items()
    }
    torch.save({"model": metas}, tmp_path / "deit3.pth")
    description = replace(DESCRIPTION, architecture="deit3_small_patch16_224")
    added = add_file(store, tmp_path / "deit3.pth", description)
    assert added.notices == (
        "timm's names were given to 24 of its tensors (blocks.0.gamma_1, blocks.0.gamma_2, blocks.1.gamma_1, …)",
    )
    found = load_file(store.verify("mine").weights_path)
    assert all(torch.equal(found[key], value.half()) for key, value in vit.state_dict().items())


def test_weights_without_a_classifier_have_no_classes_and_give_an_embedding(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    headless = {key: value for key, value in state.items() if not key.startswith("head")}
    added = add(headless, replace(DESCRIPTION, labels=None))
    assert added.notices == (
        "it has no classification head: its output is an embedding, and /classify refuses it",
    )
    manifest = store.open("mine").manifest
    assert manifest.labels == ()
    assert manifest.geometry is not None
    assert (manifest.geometry.classes, manifest.geometry.outputs) == (0, 192)
    model = load_model("mine", device="cpu", dtype="float32", store=store.root)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(model(images).logits, model.vit.vit(images))
        assert model(images, model.plan(0.5)).logits.shape == (2, 192)


def test_labels_for_weights_without_a_classifier_are_refused(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    headless = {key: value for key, value in state.items() if not key.startswith("head")}
    error = refused(store, lambda: add(headless))
    assert error.detail == (
        "labels must be left out: the weights have no classifier (head.weight is missing); got '3 labels'"
    )


def test_a_network_without_a_class_token_has_a_method_of_its_own(
    store: ModelStore, add: Callable[..., AddedModel], random_vit: Callable[..., nn.Module]
) -> None:
    weights = dict(random_vit("test_vit2", num_classes=3).state_dict())
    add(weights, replace(DESCRIPTION, architecture="test_vit2", input_size=160))
    manifest = store.open("mine").manifest
    assert manifest.geometry is not None
    assert (manifest.geometry.pool, manifest.reduction.method) == ("avg", "fuse")
    model = load_model("mine", device="cpu", dtype="float32", store=store.root)
    assert {plan.method for plan in (model.plan(0.3), model.plan(0.6))} == {"fuse"}
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 160, 160), model.plan(0.5)).logits.shape == (2, 3)


def test_the_projection_of_a_clip_tower_is_no_classifier() -> None:
    architecture = "vit_xsmall_patch16_clip_224"
    wanted = replace(DESCRIPTION, architecture=architecture, labels=None)
    labels, notices = _labels(wanted, 512)
    assert labels == ()
    (notice,) = notices
    assert notice.startswith(
        "its 512 outputs are taken for an embedding, as those of timm's own vit_xsmall_patch16"
    )
    assert len(_labels(replace(wanted, labels=tuple(map(str, range(512)))), 512)[0]) == 512
    assert _labels(wanted, 1000)[0][0] == "tench"
    assert _labels(wanted, 7)[0][0] == "class 0"
    assert _labels(replace(wanted, architecture="vit_tiny_patch16_224"), 512)[0][0] == "class 0"


def test_a_classifier_of_more_classes_than_a_manifest_can_hold_is_refused(
    store: ModelStore, add: Callable[..., AddedModel]
) -> None:
    error = refused(store, lambda: add({"head.weight": torch.zeros(1_000_001, 1).half()}))
    assert error.detail == "head.weight has 1,000,001 rows; at most 1,000,000 classes are served"


def test_weights_that_are_not_finite_are_refused(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    broken = state | {"norm.bias": torch.full((192,), torch.nan)}
    error = refused(store, lambda: add(broken))
    assert error.detail == "model.safetensors: norm.bias has 192 of 192 numbers that are NaN or infinite"


def test_weights_that_overflow_are_refused(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    broken = state | {"patch_embed.proj.weight": torch.full((192, 3, 16, 16), 3e38)}
    error = refused(store, lambda: add(broken))
    assert isinstance(error, WeightsInvalid)
    assert error.detail == (
        "mine: its answers are not finite in float32; the largest of its weights is 3e+38, in "
        "patch_embed.proj.weight"
    )


def test_weights_that_overflow_in_the_chosen_dtype_are_not_loaded(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    large = state | {"head.weight": torch.full((3, 192), 1e30), "head.bias": torch.full((3,), 1e30)}
    add(large)
    load_model("mine", device="cpu", dtype="bfloat16", store=store.root)
    with pytest.raises(WeightsInvalid, match="mine: its answers are not finite in float16"):
        load_model("mine", device="cpu", dtype="float16", store=store.root)


def test_the_averaged_weights_of_a_checkpoint_are_said_to_be_taken(
    store: ModelStore, state: State, tmp_path: Path
) -> None:
    torch.save({"model": state, "model_ema": state}, tmp_path / "in.pth")
    added = add_file(store, tmp_path / "in.pth", DESCRIPTION)
    assert added.notices == ("the averaged weights (model_ema) of in.pth were taken",)


@pytest.mark.parametrize("count", [2, 4])
def test_labels_must_be_as_many_as_classes(
    store: ModelStore, add: Callable[..., AddedModel], state: State, count: int
) -> None:
    description = replace(DESCRIPTION, labels=("x",) * count)
    error = refused(store, lambda: add(state, description))
    assert isinstance(error, InvalidParameter)
    assert error.detail == f"labels must be 3, one for each row of head.weight; got '{count} labels'"


def test_without_labels_classes_are_numbered_and_that_is_said(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    added = add(state, replace(DESCRIPTION, labels=None))
    assert added.model.manifest.labels == ("class 0", "class 1", "class 2")
    assert added.notices == ("its classes are called 'class 0' … 'class 2'; --labels names them",)


def test_a_thousand_classes_without_labels_are_imagenets_and_that_is_said(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    head = {"head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)}
    added = add(state | head, replace(DESCRIPTION, labels=None))
    assert added.model.manifest.labels[217] == "English springer"
    assert added.notices == ("its 1000 classes are taken to be ImageNet's; --labels names others",)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("no_such_vit", "cannot make 'no_such_vit'"),
        ("vit_base_patch16_rpn_224", "made of ResPostBlock"),
    ],
)
def test_an_architecture_that_cannot_be_reduced_is_refused(
    store: ModelStore, add: Callable[..., AddedModel], state: State, architecture: str, message: str
) -> None:
    error = refused(store, lambda: add(state, replace(DESCRIPTION, architecture=architecture)))
    assert isinstance(error, ArchitectureUnsupported)
    assert message in error.detail


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"name": "../mine"}, InvalidParameter, "name must be 1 to 100 letters"),
        ({"mean": (123.7, 116.3, 103.5)}, ManifestInvalid, "mine: mean[0] is 123.7: input should be less"),
        ({"licence": ""}, ManifestInvalid, "mine: licence is '': string should have at least 1 character"),
    ],
)
def test_a_description_that_makes_no_manifest_is_refused(
    store: ModelStore,
    add: Callable[..., AddedModel],
    state: State,
    change: dict[str, object],
    kind: type[PrunepoolError],
    message: str,
) -> None:
    error = refused(store, lambda: add(state, replace(DESCRIPTION, **change)))  # type: ignore[arg-type]
    assert isinstance(error, kind)
    assert error.detail.startswith(message)


def test_a_name_that_is_taken_is_refused_unless_replaced(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    add(state)
    first = store.open("mine").manifest
    with pytest.raises(ModelError, match=r"already has a model 'mine'; use --force to replace it"):
        add(state, replace(DESCRIPTION, origin="another"))
    assert store.verify("mine").manifest == first
    add(state, replace(DESCRIPTION, origin="another"), replace=True)
    assert store.verify("mine").manifest.origin == "another"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["deit_tiny_imagenet1k_start", "vit_tiny_patch16_224"])
def test_real_weights_are_added(store: ModelStore, shared: Path, name: str) -> None:
    path = shared / "models" / name / "model.safetensors"
    add_file(store, path, replace(DESCRIPTION, labels=None))
    assert store.verify("mine").weights_path.read_bytes() == path.read_bytes()
    assert len(store.open("mine").manifest.labels) == 1000


def test_a_geometry_that_is_not_that_of_the_weights_is_refused(
    store: ModelStore, add: Callable[..., AddedModel], state: State
) -> None:
    manifest = add(state).model.manifest
    assert manifest.geometry is not None
    wrong = manifest.geometry.model_copy(update={"mlp_width": 512})
    store.update_manifest("mine", manifest, {"geometry": wrong})
    with pytest.raises(ManifestInvalid, match=r"geometry.mlp_width is 512, but .* at 224² has 768"):
        load_model("mine", store=store.root, device="cpu", dtype="float32")


def test_an_older_manifest_has_its_geometry_computed(add: Callable[..., AddedModel], state: State) -> None:
    manifest = add(state).model.manifest
    older = manifest.model_copy(update={"geometry": None})
    assert geometry_of(older) == geometry_of(manifest) == manifest.geometry
