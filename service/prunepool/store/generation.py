"""What tells two models of one name apart."""

from __future__ import annotations

import hashlib

from prunepool.store.manifest import Manifest


def generation_of(manifest: Manifest) -> str:
    """A digest of all that the manifest says, the same in every process.

    The manifest has the sha256 of the weights.
    """
    return hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()[:16]
