"""The model store: one folder per model, with its manifest and its weights. It needs no torch."""

from prunepool.store.compiled import Compiled, CompiledFile, PassFiles
from prunepool.store.folders import check_name
from prunepool.store.generation import generation_of
from prunepool.store.geometry import Geometry
from prunepool.store.locations import open_store
from prunepool.store.manifest import Manifest, ReductionDefaults, Weights
from prunepool.store.model import StoredModel, sha256_of, tensor_shapes
from prunepool.store.network_options import NetworkOptions
from prunepool.store.profile import FormatAccuracy, ProfilePoint, Speed
from prunepool.store.repository import Repository
from prunepool.store.store import ModelStore

__all__ = [
    "Compiled",
    "CompiledFile",
    "FormatAccuracy",
    "Geometry",
    "Manifest",
    "ModelStore",
    "NetworkOptions",
    "PassFiles",
    "ProfilePoint",
    "ReductionDefaults",
    "Repository",
    "Speed",
    "StoredModel",
    "Weights",
    "check_name",
    "generation_of",
    "open_store",
    "sha256_of",
    "tensor_shapes",
]
