"""The model store: one folder a model, with its manifest and its weights. Needs no torch."""

from prunepool.store.manifest import Manifest, ReductionDefaults, Weights
from prunepool.store.model import StoredModel, sha256_of, tensor_shapes
from prunepool.store.profile import ProfilePoint, Speed
from prunepool.store.repository import Repository
from prunepool.store.store import ModelStore, check_name

__all__ = [
    "Manifest",
    "ModelStore",
    "ProfilePoint",
    "ReductionDefaults",
    "Repository",
    "Speed",
    "StoredModel",
    "Weights",
    "check_name",
    "sha256_of",
    "tensor_shapes",
]
