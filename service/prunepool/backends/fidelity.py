"""How far a number format is from float32: its answers on sample photos beside PyTorch's. It needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from prunepool.backends.photos import sample_photos
from prunepool.core.formats import Fidelity
from prunepool.errors import WeightsInvalid


class Reference(NamedTuple):
    """Answers in float32, by PyTorch, which those in other formats are compared with.

    Attributes:
        ratios: ascending from 0.
        logits: float32 [ratios, photos, classes].
        photos: a digest of the photos.
    """

    ratios: tuple[float, ...]
    logits: NDArray[np.float32]
    photos: str

    def to_bytes(self) -> bytes:
        """The contents of a safetensors file."""
        tensors: dict[str, NDArray[Any]] = {
            "ratios": np.array(self.ratios, np.float64),
            "logits": self.logits,
        }
        return save(tensors, metadata={"photos": self.photos})

    @classmethod
    def from_bytes(cls, data: bytes, photos: str) -> Reference:
        """Read what :meth:`to_bytes` has written.

        Args:
            data: of the file.
            photos: the digest that its name or manifest records.

        Raises:
            WeightsInvalid: it is something else.
        """
        try:
            tensors = load(data)
            ratios, logits = tensors["ratios"], tensors["logits"]
        except (SafetensorError, KeyError, ValueError) as error:
            raise WeightsInvalid(f"the reference of a compiled model cannot be read: {error}") from error
        return cls(tuple(ratios.tolist()), logits.astype(np.float32), photos)


def photos_digest(size: int) -> str:
    """A digest of the sample photos, which answers are compared on."""
    return hashlib.sha256(sample_photos(size).tobytes()).hexdigest()[:16]


def compare(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Fidelity:
    """Compare logits [photos, classes] with those in float32; logits that are no numbers agree with nothing."""
    if not np.isfinite(found).all():
        return Fidelity(0.0, float("inf"))
    ours, theirs = _log_softmax(found), _log_softmax(expected)
    kl = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    return Fidelity(float(same.mean()), float(kl.mean()))


def normalised_photos(size: int, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """The sample photos as a model takes them, float32 [photos, 3, size, size]."""
    pixels = sample_photos(size).transpose(0, 3, 1, 2).astype(np.float32) / 255
    shift, scale = (np.array(one, np.float32).reshape(3, 1, 1) for one in (mean, std))
    return np.ascontiguousarray((pixels - shift) / scale)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
