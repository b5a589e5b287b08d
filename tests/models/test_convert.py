"""Conversion to safetensors: nothing in a checkpoint is ever executed."""

from __future__ import annotations

import os
import pickle
import resource
import sys
import types
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunepool.errors import ModelError, WeightsInvalid
from prunepool.models.checkpoint import unwrap
from prunepool.models.convert import inspect, to_safetensors
from prunepool.models.layouts import strip_prefixes

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
WEIGHTS = {"head.weight": torch.arange(12.0).reshape(3, 4), "head.bias": torch.tensor([1.0, -2.0, 0.5])}


def same(path: Path, wanted: dict[str, Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    "checkpoint",
    [
        WEIGHTS,
        OrderedDict(WEIGHTS),
        {"model": WEIGHTS},
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"model_state_dict": WEIGHTS},
        {"model": {"state_dict": WEIGHTS}},
        {"net": WEIGHTS, "acc": 81.2, "epoch": 3},
        {f"model.{key}": value for key, value in WEIGHTS.items()},
        {f"module.{key}": value for key, value in WEIGHTS.items()},
        {"model": {f"_orig_mod.module.{key}": value for key, value in WEIGHTS.items()}},
        {key: torch.nn.Parameter(value) for key, value in WEIGHTS.items()},
    ],
    ids=[
        "plain",
        "ordered",
        "model",
        "state_dict",
        "model_state_dict",
        "nested",
        "net",
        "lightning",
        "ddp",
        "compiled",
        "parameters",
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_checkpoint_of_tensors_is_converted(tmp_path: Path, checkpoint: Any, suffix: str) -> None:
    torch.save(checkpoint, tmp_path / f"weights{suffix}")
    to_safetensors(tmp_path / f"weights{suffix}", tmp_path / "model.safetensors")
    assert same(tmp_path / "model.safetensors", WEIGHTS)


def test_a_checkpoint_in_a_newer_pickle_protocol_is_refused_without_noise(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "in.pth", pickle_protocol=4)
    with pytest.raises(WeightsInvalid, match=r"\(in torch\.save's own pickle protocol\), and nothing else"):
        to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")


def test_a_checkpoint_in_torchs_old_format_is_converted(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "in.pth", _use_new_zipfile_serialization=False)
    to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert same(tmp_path / "out.safetensors", WEIGHTS)


def test_a_safetensors_file_is_copied_byte_for_byte(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "in.safetensors", {"author": "me"})
    to_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "in.safetensors").read_bytes()


def test_prefixes_in_a_safetensors_file_are_taken_off_too(tmp_path: Path) -> None:
    save_file({f"module.{key}": value for key, value in WEIGHTS.items()}, tmp_path / "in.safetensors")
    to_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert same(tmp_path / "out.safetensors", WEIGHTS)


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    tied = {"a": base, "b": base, "c": base.reshape(2, 3).T}
    torch.save(tied, tmp_path / "in.pth")
    to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert same(tmp_path / "out.safetensors", tied)


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_malicious_checkpoint_runs_nothing(tmp_path: Path, wrapped: bool, protocol: int) -> None:
    mark = tmp_path / "run"
    evil = {"model": WEIGHTS, "extra": Evil(mark)} if wrapped else Evil(mark)
    torch.save(evil, tmp_path / "evil.pth", pickle_protocol=protocol)
    with pytest.raises(WeightsInvalid, match=r"evil\.pth: does not hold tensors alone"):
        to_safetensors(tmp_path / "evil.pth", tmp_path / "out.safetensors")
    assert not mark.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert mark.exists(), "the file was not dangerous, so this test shows nothing"


def test_a_bare_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(WeightsInvalid, match=r"evil\.pt: "):
        to_safetensors(tmp_path / "evil.pt", tmp_path / "out.safetensors")
    assert not mark.exists()


def test_other_objects_are_refused_with_advice(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "optimizer": Fraction(1, 3)}, tmp_path / "in.pth")
    said = r"but fractions\.Fraction too, and nothing else .*; save its state_dict, best as \.safetensors$"
    with pytest.raises(WeightsInvalid, match=said):
        to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    "extra",
    [
        Namespace(lr=0.1, output=Path("runs"), nested=Namespace(a=1)),
        np.float64(81.2),
        np.float32(81.2),
        np.int64(7),
    ],
    ids=lambda extra: type(extra).__name__,
)
def test_what_training_scripts_leave_beside_the_weights_is_taken_along(tmp_path: Path, extra: object) -> None:
    torch.save({"state_dict": WEIGHTS, "extra": extra, "epoch": 3}, tmp_path / "in.pth.tar")
    assert to_safetensors(tmp_path / "in.pth.tar", tmp_path / "out.safetensors") == ()
    assert same(tmp_path / "out.safetensors", WEIGHTS)


class DisguisedAsArguments(Namespace):
    """A class of its own that only looks harmless."""


def test_a_class_derived_from_a_harmless_one_is_refused(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "args": DisguisedAsArguments(lr=0.1)}, tmp_path / "in.pth")
    with pytest.raises(WeightsInvalid, match="does not hold tensors alone"):
        to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")


OTHERS = {key: value + 1 for key, value in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("checkpoint", "key"),
    [
        ({"model": OTHERS, "model_ema": WEIGHTS}, "model_ema"),
        ({"state_dict_ema": WEIGHTS, "epoch": 3}, "state_dict_ema"),
        ({"state_dict": OTHERS, "ema": {"state_dict": WEIGHTS, "decay": 0.999}}, "ema"),
        (
            {"model": OTHERS, "model_ema": {f"module.{key}": value for key, value in WEIGHTS.items()}},
            "model_ema",
        ),
    ],
    ids=["both", "alone", "wrapped", "ddp"],
)
def test_averaged_weights_are_taken_and_that_is_said(tmp_path: Path, checkpoint: Any, key: str) -> None:
    torch.save(checkpoint, tmp_path / "in.pth")
    notices = to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert notices == (f"the averaged weights ({key}) of in.pth were taken",)
    assert same(tmp_path / "out.safetensors", WEIGHTS)


def test_what_is_called_averaged_and_is_no_weights_is_passed_over(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "ema": {"decay": 0.999, "updates": 7}}, tmp_path / "in.pth")
    assert to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors") == ()
    assert same(tmp_path / "out.safetensors", WEIGHTS)


NETWORK = {"patch_embed.proj.weight": torch.ones(2, 3, 4, 4), "cls_token": torch.ones(1, 1, 2)}
HEAD = {"head.weight": torch.ones(5, 2), "head.bias": torch.ones(5)}

PROJECTION = {"head.last_layer.weight_g": torch.ones(1)}


def under(prefix: str, weights: dict[str, Tensor], factor: float = 1) -> dict[str, Tensor]:
    return {prefix + key: value * factor for key, value in weights.items()}


@pytest.mark.parametrize(
    ("checkpoint", "wanted", "notice"),
    [
        (
            {"state_dict": {**under("model.", NETWORK | HEAD), "criterion.weight": torch.ones(5)}},
            NETWORK | HEAD,
            "the network under model of in.ckpt was taken, not another tensor (criterion.weight)",
        ),
        (
            {
                "state_dict": {
                    **under("model.", NETWORK | HEAD, 2),
                    **under("ema_model.module.", NETWORK | HEAD),
                }
            },
            NETWORK | HEAD,
            "the network under ema_model.module of in.ckpt was taken, not 4 other tensors (model.cls_token, …)",
        ),
        (
            {"state_dict": {**under("backbone.", NETWORK), **HEAD}},
            NETWORK | HEAD,
            "the network under backbone of in.ckpt was taken",
        ),
        (
            {
                "state_dict": {
                    **under("encoder.", NETWORK),
                    **under("classifier.", {"weight": torch.ones(5, 2)}),
                }
            },
            NETWORK | {"head.weight": torch.ones(5, 2)},
            "the network under encoder of in.ckpt was taken",
        ),
        (
            {
                "student": under("module.backbone.", NETWORK, 2)
                | {"module.head.last_layer.weight_g": torch.ones(1)},
                "teacher": under("backbone.", NETWORK) | {"head.last_layer.weight_g": torch.ones(1)},
                "epoch": 3,
            },
            NETWORK,
            "the network under backbone of in.ckpt was taken, not another tensor (head.last_layer.weight_g)",
        ),
    ],
    ids=["lightning", "lightning with an average", "head beside", "classifier beside", "dino"],
)
def test_the_network_is_taken_out_of_what_else_a_training_module_holds(
    tmp_path: Path, checkpoint: dict[str, Any], wanted: dict[str, Tensor], notice: str
) -> None:
    torch.save(checkpoint, tmp_path / "in.ckpt")
    notices = to_safetensors(tmp_path / "in.ckpt", tmp_path / "out.safetensors")
    assert notices[-1] == notice
    assert same(tmp_path / "out.safetensors", wanted)
    if "state_dict" in checkpoint:
        save_file(checkpoint["state_dict"], tmp_path / "in.safetensors")
        to_safetensors(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
        assert same(tmp_path / "out.safetensors", wanted)


@pytest.mark.parametrize(
    "weights",
    [
        {**under("backbone.", NETWORK), "head.0.weight": torch.ones(5, 2), "head.3.weight": torch.ones(5, 5)},
        {**under("student.", NETWORK), **under("teacher.", NETWORK)},
    ],
    ids=["another head", "two networks"],
)
def test_what_could_be_another_model_is_not_guessed(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "in.pth")
    with pytest.raises(WeightsInvalid, match=r"keeps its network under \w+\. .* beside other tensors"):
        to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")


def foreign(monkeypatch: pytest.MonkeyPatch, name: str, *bases: type) -> type:
    """A class of a library that is not installed, while a checkpoint is written."""
    module, _, own = name.rpartition(".")
    made = type(own, bases, {"__module__": module})
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:length]), types.ModuleType(parts[length - 1]))
    setattr(sys.modules[module], own, made)
    return made


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("pytorch_lightning.utilities.parsing.AttributeDict", dict),
        ("lightning.fabric.utilities.data.AttributeDict", dict),
        ("omegaconf.dictconfig.DictConfig", object),
        ("lightning.pytorch.trainer.states.Something", object),
    ],
)
def test_the_configuration_that_lightning_leaves_in_a_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, base: type
) -> None:
    with monkeypatch.context() as patch:
        settings = foreign(patch, name, base)()
        if isinstance(settings, dict):
            settings["lr"] = 0.1
        else:
            vars(settings)["content"] = {"lr": [0.1, Any], "kind": list}
        seen = defaultdict(list, a=[1])
        torch.save({"state_dict": WEIGHTS, "hyper_parameters": settings, "loops": seen}, tmp_path / "in.ckpt")
    to_safetensors(tmp_path / "in.ckpt", tmp_path / "out.safetensors")
    assert same(tmp_path / "out.safetensors", WEIGHTS)


def test_settings_where_weights_should_be_are_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        settings = foreign(patch, "omegaconf.dictconfig.DictConfig", object)()
        torch.save({"head.weight": settings}, tmp_path / "in.ckpt")
    with pytest.raises(WeightsInvalid, match=r"'head\.weight' is a _Setting; only named tensors"):
        to_safetensors(tmp_path / "in.ckpt", tmp_path / "out.safetensors")


def test_weights_that_torch_averaged_are_taken_without_their_counter(tmp_path: Path) -> None:
    averaged = {"n_averaged": torch.tensor(3)} | {f"module.{key}": value for key, value in WEIGHTS.items()}
    torch.save(averaged, tmp_path / "in.pth")
    to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert same(tmp_path / "out.safetensors", WEIGHTS)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("vit.embeddings.cls_token", r"has the names of Hugging Face's transformers .* models add DIR$"),
        ("encoder.layer.0.attention.attention.query.weight", "has the names of Hugging Face's transformers"),
        ("base_model.model.blocks.0.attn.qkv.lora_A.weight", r"is an adapter of PEFT .*merge_and_unload\(\)"),
        ("backbone.cls_token", r"keeps its network under backbone\. .* beside other tensors"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_names_of_other_libraries_are_refused_by_name(
    tmp_path: Path, key: str, message: str, suffix: str
) -> None:
    weights = {key: torch.zeros(2), "head.fc.weight": torch.zeros(2)}
    (save_file if suffix == ".safetensors" else torch.save)(weights, tmp_path / f"in{suffix}")
    with pytest.raises(WeightsInvalid, match=message) as caught:
        to_safetensors(tmp_path / f"in{suffix}", tmp_path / "out.safetensors")
    assert "\n" not in caught.value.detail
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3).to_sparse(), r"a is sparse_coo; save it dense \(to_dense\(\)\)$"),
        (torch.zeros(3, device="meta"), "a is on the meta device: it has a shape, but no numbers$"),
        (
            torch.zeros(1).expand(1 << 40),
            r"its tensors have 4,398,046,511,104 bytes, the file [\d,]+; save copies",
        ),
    ],
    ids=["sparse", "meta", "expanded"],
)
def test_tensors_without_numbers_of_their_own_are_refused(
    tmp_path: Path, tensor: Tensor, message: str
) -> None:
    torch.save({"a": tensor}, tmp_path / "in.pth")
    with pytest.raises(WeightsInvalid, match=message):
        to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")


def test_a_compressed_archive_is_refused_before_it_grows(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "in.pth")
    with (
        zipfile.ZipFile(tmp_path / "in.pth") as stored,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(WeightsInvalid, match=r"bomb\.pth: holds [\d,]+ bytes in a file of [\d,]+"):
        to_safetensors(tmp_path / "bomb.pth", tmp_path / "out.safetensors")


def convert_and_inspect(folder: Path) -> None:
    to_safetensors(folder / "in.safetensors", folder / "out.safetensors")
    inspect(folder / "out.safetensors")


def header_only(header: bytes, stated: int | None = None) -> bytes:
    return (len(header) if stated is None else stated).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        header_only(b'{"head.weight": {"dtype": "F32", "shape": [1000000000, 0], "data_offsets": [0, 0]}}'),
        header_only(b'{"head.weight": {"dtype": "F32", "shape": [0, 1000000000], "data_offsets": [0, 0]}}'),
        header_only(
            b'{"head.weight": {"dtype": "F32", "shape": [1099511627776, 192], "data_offsets": [0, 0]}}'
        ),
        header_only(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'),
        header_only(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}') + bytes(4),
        header_only(b"{}", 1 << 62),
        header_only(b"[" * 100_000),
    ],
    ids=["no columns", "no rows", "huge", "no data", "backwards", "huge header", "deep"],
)
def test_a_small_file_that_claims_much_is_refused_at_once_in_little_memory(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "in.safetensors").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsInvalid) as caught:
        convert_and_inspect(tmp_path)
    assert "\n" not in caught.value.detail
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"", r"is empty \(0 bytes\)$"),
        ("a.safetensors", b"\xff" * 100, "is not a safetensors file"),
        ("a.safetensors", LFS_POINTER, "is a Git LFS pointer, not the weights; `git lfs pull` fetches them$"),
        ("a.safetensors", b"<html><body>404", r"is a web page \(HTML\), not weights"),
        ("a.pth", b"", r"is empty \(0 bytes\)$"),
        ("a.pth", b"PK\x03\x04 cut short", "is not a checkpoint of torch.save"),
        ("a.pth", b"hello there", "is a text file, not weights$"),
        ("a.pth", LFS_POINTER, "is a Git LFS pointer"),
        ("a.pth", b"\n<!DOCTYPE html>\n<html>", r"is a web page \(HTML\)"),
        ("a.onnx", b"hello", r"is a \.onnx; \.safetensors and \.pth are read"),
        ("weights", b"hello", r"is a file without suffix; \.safetensors and \.pth are read"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsInvalid, match=rf"{name}: {message}") as caught:
        to_safetensors(tmp_path / name, tmp_path / "out.safetensors")
    assert "\n" not in caught.value.detail


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsInvalid, match=r"none\.pth: does not exist, or is not a file$"):
        to_safetensors(tmp_path / "none.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ([1, 2], r"in\.pth: holds a list, not named tensors"),
        ({}, r"in\.pth: holds a dict, not named tensors"),
        (torch.zeros(3), r"in\.pth: holds a Tensor, not named tensors"),
        ({"head.weight": torch.zeros(3), "epoch": 3}, r"in\.pth: 'epoch' is a int; only named tensors"),
        ({3: torch.zeros(3)}, r"in\.pth: 3 is a Tensor; only named tensors"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(checkpoint: object, message: str) -> None:
    with pytest.raises(WeightsInvalid, match=message):
        unwrap(checkpoint, Path("in.pth"))


def test_a_disk_that_fills_up_is_the_stores_fault(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "in.pth")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ModelError, match=r"^cannot write out\.safetensors to the store: .*too large"):
            to_safetensors(tmp_path / "in.pth", tmp_path / "out.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


keys = st.text("abw.", min_size=1, max_size=8).filter(lambda key: not key.startswith("module."))


@given(
    st.lists(keys, min_size=1, max_size=4, unique=True), st.lists(st.sampled_from(["module.", "_orig_mod."]))
)
def test_prefixes_of_all_keys_go_whatever_their_number(names: list[str], prefixes: list[str]) -> None:
    weights = {name: torch.zeros(1) for name in names}
    prefix = "".join(prefixes)
    assert strip_prefixes({prefix + key: value for key, value in weights.items()}).keys() == weights.keys()


def test_a_prefix_that_only_some_keys_have_stays() -> None:
    weights = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert strip_prefixes(weights).keys() == weights.keys()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtype_and_parameters_are_found(tmp_path: Path, dtype: str) -> None:
    cast = {key: value.to(getattr(torch, dtype)) for key, value in WEIGHTS.items()}
    save_file(cast, tmp_path / "m.safetensors")
    assert inspect(tmp_path / "m.safetensors") == (dtype, 15)


def test_dtypes_that_differ_are_mixed(tmp_path: Path) -> None:
    save_file(WEIGHTS | {"head.bias": torch.zeros(3).half()}, tmp_path / "m.safetensors")
    assert inspect(tmp_path / "m.safetensors") == ("mixed", 15)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, bad: float, dtype: torch.dtype) -> None:
    save_file(
        {"a": torch.zeros(2, dtype=dtype), "b": torch.tensor([1.0, bad], dtype=dtype)},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(
        WeightsInvalid, match=r"m\.safetensors: b has 1 of 2 numbers that are NaN or infinite$"
    ):
        inspect(tmp_path / "m.safetensors")


def test_numbers_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, dtype=torch.int8)}, tmp_path / "m.safetensors")
    with pytest.raises(WeightsInvalid, match=r"a is torch\.int8; weights must be float64, float32, bfloat16"):
        inspect(tmp_path / "m.safetensors")
