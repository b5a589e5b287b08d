"""The geometry of a model: from its manifest, or from its network if an older manifest has none."""

from __future__ import annotations

from typing import Any

from prunepool.extras import needs_torch
from prunepool.store import Geometry, Manifest


def geometry_of(manifest: Manifest) -> Geometry:
    """The geometry of a model, without its weights. torch is imported only if the manifest has none.

    Raises:
        ArchitectureUnsupported: the manifest has none, and its architecture cannot be reduced.
    """
    if manifest.geometry is not None:
        return manifest.geometry
    needs_torch(f"the geometry of {manifest.name}, which its model.json does not state,")
    from prunepool.models.loader import network_without_weights

    return network_without_weights(manifest).geometry


def network_geometry(vit: Any) -> Geometry:
    """Read the geometry off a timm `VisionTransformer`."""
    heads = [vit.head, getattr(vit, "head_dist", None)]
    block = vit.blocks[0]
    return Geometry(
        depth=len(vit.blocks),
        width=vit.embed_dim,
        heads=block.attn.num_heads,
        mlp_width=block.mlp.fc1.out_features,
        patch_size=tuple(vit.patch_embed.patch_size),
        patch_grid=tuple(vit.patch_embed.grid_size),
        prefix_tokens=vit.num_prefix_tokens,
        classes=sum(getattr(head, "out_features", 0) for head in heads),
    )
