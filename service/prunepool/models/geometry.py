"""The geometry of a model: from its manifest, or from its network if an older manifest has none."""

from __future__ import annotations

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
