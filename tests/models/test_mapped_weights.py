"""Weights go from their file into a network that has none, once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunepool.lab.small_networks import randomise, small_network
from prunepool.models import mapped_weights
from prunepool.models.mapped_weights import fill, read_tensors

#: With buffers of every kind that no file has: rotary bands and periods, relative distances, keys without bias.
KINDS = (
    "eva02_tiny_patch14_336",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_dinov3_qkvb",
    "beit_base_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_base_patch16_siglip_224",
)


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_a_network_without_weights_that_is_filled_answers_as_the_one_they_are_from(
    name: str, tmp_path: Path
) -> None:
    vit = randomise(small_network(name))
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        empty = small_network(name)
    fill(empty, tmp_path / "model.safetensors")
    side = vit.patch_embed.img_size[0]
    images = torch.randn(1, 3, side, side)
    assert torch.equal(empty(images), vit(images))


def test_tensors_are_float32_and_do_not_change_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    wanted = {"full": torch.randn(7, 5), "half": torch.randn(7, 5).half()}
    save_file(wanted, path)
    monkeypatch.setattr(mapped_weights, "_MAPPED", 1)  # each tensor in a mapping of its own
    read = dict(read_tensors(path))
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.write(b"\xff" * size)
    assert read.keys() == wanted.keys()
    for key, tensor in read.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, wanted[key].float())


#: Makes a file of a ViT-L's weights, or loads it; prints the most memory that the process had, before and after.
PROGRAM = """
import json, resource, sys
from pathlib import Path
import timm, torch
from safetensors.torch import save_file
from prunepool.models.mapped_weights import fill
path, what = Path(sys.argv[1]), sys.argv[2]
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with torch.device("meta"):
    vit = timm.create_model("vit_large_patch16_224", num_classes=10)
if what == "make":
    save_file({key: torch.full(value.shape, 0.5) for key, value in vit.state_dict().items()}, path)
    sys.exit()
before = most()
fill(vit, path)
print(json.dumps({"weights": path.stat().st_size, "taken": most() - before}))
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_vit_large_is_loaded_in_little_more_memory_than_its_weights_have(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    run = [sys.executable, "-c", PROGRAM, str(path)]
    subprocess.run([*run, "make"], check=True)
    done = subprocess.run([*run, "load"], check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout)
    print(seen)
    assert seen["weights"] > 1.2e9
    assert seen["taken"] < 1.15 * seen["weights"]
