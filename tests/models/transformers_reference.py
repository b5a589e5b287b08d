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
        **towers(),
    }


def towers() -> dict[str, tuple[type, object, object]]:
    """DINOv2, SigLIP and CLIP, as classifiers and as what they are before."""
    square = {"height": 32, "width": 32}
    shortest = {"size": {"shortest_edge": 36}, "crop_size": square}
    dinov2 = hf.Dinov2Config(**SIZES, image_size=32, mlp_ratio=2, **NAMED)
    registers = hf.Dinov2WithRegistersConfig(
        **SIZES, image_size=32, mlp_ratio=2, num_register_tokens=3, **NAMED
    )
    seen = {**SIZES, **INSIDE, "image_size": 32}
    read = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    siglip = hf.SiglipConfig(vision_config=seen, text_config=read, **NAMED)
    clip = hf.CLIPConfig(
        vision_config={**seen, "projection_dim": 10}, text_config=read, projection_dim=10, **NAMED
    )
    bit = hf.BitImageProcessor(**shortest)
    clips = hf.CLIPImageProcessor(**shortest)
    siglips = hf.SiglipImageProcessor(size=square)
    return {
        "dinov2": (hf.Dinov2ForImageClassification, dinov2, bit),
        "dinov2-embedding": (hf.Dinov2Model, dinov2, bit),
        "dinov2-registers": (hf.Dinov2WithRegistersForImageClassification, registers, bit),
        "siglip": (hf.SiglipForImageClassification, siglip, siglips),
        "siglip-embedding": (hf.SiglipVisionModel, siglip.vision_config, siglips),
        "clip": (hf.CLIPForImageClassification, clip, clips),
        "clip-embedding": (hf.CLIPVisionModelWithProjection, clip.vision_config, clips),
        "clip-both": (hf.CLIPModel, clip, clips),
    }


def output_of(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Logits, or the embedding of an image."""
    if isinstance(model, hf.CLIPModel):
        out = model.get_image_features(pixels)
        return out if isinstance(out, torch.Tensor) else out.pooler_output
    out = model(pixels)
    for name in ("logits", "image_embeds", "pooler_output"):
        if getattr(out, name, None) is not None:
            return getattr(out, name)
    raise ValueError(f"{type(out).__name__} has no output that is known")


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
    # Its longer side is resized to 47 and cut to 32: the centre lies between two pixels.
    image = Image.fromarray(photo).resize((61, 46), Image.Resampling.BICUBIC)
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        output = output_of(model, pixels)
    np.savez_compressed(
        folder / "expected.npz",
        image=np.asarray(image),
        pixels=pixels.numpy(),
        output=output.numpy(),
    )


if __name__ == "__main__":
    for name, (kind, config, processor) in models().items():
        record(Path(sys.argv[1]), name, kind, config, processor)
