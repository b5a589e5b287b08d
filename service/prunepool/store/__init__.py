"""The model store: one folder a model, with its manifest and its weights. Needs no torch."""

from prunepool.store.manifest import Manifest, ProfilePoint, ReductionDefaults, Weights
from prunepool.store.model import StoredModel, sha256_of, tensor_shapes
from prunepool.store.store import ModelStore, check_name

__all__ = [
    "Manifest",
    "ModelStore",
    "ProfilePoint",
    "ReductionDefaults",
    "StoredModel",
    "Weights",
    "check_name",
    "sha256_of",
    "tensor_shapes",
]
