"""Record models of Hugging Face's transformers and what they answer, for test_transformers.py.

    python tests/models/transformers_reference.py tests/models/transformers

It needs transformers, which the tests do not. The models are tiny and their weights random; each folder is what
`save_pretrained` writes, and `expected.npz` has an image, what its image processor makes of it, and the output.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image

SIZES = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "patch_size": 8}
INSIDE = {"intermediate_size": 40}
FIVE = {"num_labels": 5}
NAMED = {"id2label": dict(enumerate(("cat", "dog", "fox", "owl", "yak")))}


def models() -> dict[str, tuple[type, object, object]]:
    """The class, configuration and image processor of each."""
    vit = {**SIZES, **INSIDE, "image_size": 32}
    return {
        "vit": (
            hf.ViTForImageClassification,
            hf.ViTConfig(**vit, **NAMED),
            hf.ViTImageProcessor(size={"height": 32, "width": 32}),
        ),
        "vit-no-bias": (
            hf.ViTForImageClassification,
            hf.ViTConfig(**vit, **FIVE, qkv_bias=False, hidden_act="gelu_new", layer_norm_eps=1e-5),
            hf.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3),
        ),
        "deit": (
            hf.DeiTForImageClassification,
            hf.DeiTConfig(**vit, **NAMED),
            hf.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}),
        ),
        "deit-distilled": (
            hf.DeiTForImageClassificationWithTeacher,
            hf.DeiTConfig(**vit, **NAMED),
            hf.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}),
        ),
    }


def randomise(model: torch.nn.Module) -> None:
    """Give every parameter a value that matters: transformers starts biases and tokens at zero."""
    for key, parameter in model.named_parameters():
        if "norm" in key and key.endswith("weight"):
            torch.nn.init.normal_(parameter, 1.0, 0.1)
        elif "lambda1" in key:
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.1)


def record(root: Path, name: str, kind: type, config: object, processor: object) -> None:
    """Write one folder."""
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    model = kind(config).eval()
    randomise(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    photo = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(photo).resize((61, 47), Image.Resampling.BICUBIC)
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        out = model(pixels)
    output = out.logits if hasattr(out, "logits") else out
    np.savez_compressed(
        folder / "expected.npz",
        image=np.asarray(image),
        pixels=pixels.numpy(),
        output=output.numpy(),
    )


if __name__ == "__main__":
    for name, (kind, config, processor) in models().items():
        record(Path(sys.argv[1]), name, kind, config, processor)
