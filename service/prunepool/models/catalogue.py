"""timm's catalogue: architectures and their published weights."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import timm
from timm.models import get_arch_pretrained_cfgs

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.description import ModelDescription
from prunepool.models.families import family_of, timm_modules

#: CLIP and what was trained as it was. Some of their weights were given a classifier later.
_TOWER = re.compile(r"_(clip|mci|pe_core|siglip)_")


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One set of published weights, or an architecture's defaults if none are published.

    Attributes:
        architecture: timm's name without a tag.
        tag: names the weights; empty if none are published.
        input_size: input resolution: height and width in pixels.
        mean: per channel, of pixels scaled to 0 … 1.
        std: per channel, of pixels scaled to 0 … 1.
        crop_pct: the centre crop's share of the resized image's side.
        crop_mode: `center`, `squash` or `border`; see :class:`prunepool.store.Manifest`.
        interpolation: of the resize.
        classes: outputs of the published head; 0 without one.
        licence: of the published weights, as timm states it.
        hub_id: the weights' repository on the hub, `owner/name`.
    """

    architecture: str
    tag: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    crop_mode: str
    interpolation: str
    classes: int
    licence: str | None
    hub_id: str | None

    @property
    def full_name(self) -> str:
        """The name with its tag, `deit_small_patch16_224.fb_in1k`."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def look_up(timm_name: str) -> CatalogueEntry:
    """Find a model in timm's catalogue.

    Args:
        timm_name: with or without a tag; the hub's spelling with `timm/` or `hf-hub:timm/` in front is fine.

    Raises:
        ArchitectureUnsupported: timm has no such model or tag, or its tokens cannot be reduced.
    """
    name = timm_name.removeprefix("hf-hub:").removeprefix("hf_hub:").removeprefix("timm/")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(module=timm_modules()), n=3)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise ArchitectureUnsupported(f"timm {timm.__version__} has no architecture {architecture!r}{hint}")
    family_of(architecture)
    tags = [entry.tag for entry in get_arch_pretrained_cfgs(architecture).values() if entry.tag]
    if tag and tag not in tags:
        raise ArchitectureUnsupported(
            f"timm {timm.__version__} knows no weights {tag!r} of {architecture}; it knows {', '.join(tags)}"
        )
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    assert cfg is not None, "allow_unregistered=False raises instead"
    return CatalogueEntry(
        architecture=architecture,
        tag=cfg.tag or "",
        input_size=cfg.input_size[-1],
        mean=_rgb(cfg.mean),
        std=_rgb(cfg.std),
        crop_pct=cfg.crop_pct,
        crop_mode=cfg.crop_mode,
        interpolation=cfg.interpolation,
        classes=cfg.num_classes,
        licence=cfg.license,
        hub_id=cfg.hf_hub_id,
    )


def description_of_entry(entry: CatalogueEntry, name: str, origin: str) -> ModelDescription:
    """What a manifest is to say of weights of an entry's architecture."""
    return ModelDescription(
        name=name,
        architecture=entry.architecture,
        input_size=entry.input_size,
        mean=entry.mean,
        std=entry.std,
        crop_pct=entry.crop_pct,
        crop_mode=entry.crop_mode,
        interpolation=entry.interpolation,
        licence="unknown",
        origin=origin,
    )


def is_projection(architecture: str, outputs: int) -> bool:
    """Whether a head of so many outputs is the projection of an image tower that was trained beside a text tower.

    Args:
        architecture: timm's name without a tag.
        outputs: of the head.
    """
    published = get_arch_pretrained_cfgs(architecture).values()
    return _TOWER.search(architecture) is not None and any(cfg.num_classes == outputs for cfg in published)


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue
