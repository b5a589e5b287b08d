"""Which number format is chosen: the fastest that answers as float32 does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunepool.backends.fidelity import Reference, compare, normalised_photos, photos_digest
from prunepool.backends.format_trial import MIXED, Run, described, try_formats
from prunepool.core.formats import FormatTrial
from prunepool.errors import WeightsInvalid

RNG = np.random.default_rng(2)
LOGITS = RNG.normal(size=(2, 8, 5)).astype(np.float32) * 5
REFERENCE = Reference((0.0, 0.5), LOGITS, "some photos")
PHOTOS = np.zeros((8, 3, 4, 4), np.float32)


class Clock:
    """Time that passes when a format runs."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def runs(clock: Clock, seconds: Mapping[str, float], off: Mapping[str, float]) -> dict[str, Run]:
    """Formats that take so long, and whose logits are off by so much."""

    def make(dtype: str) -> Run:
        def run(images: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
            clock.now += seconds[dtype]
            noise = np.random.default_rng(3).normal(size=(8, 5)) * off.get(dtype, 0.0)
            return (LOGITS[REFERENCE.ratios.index(ratio)] + noise).astype(np.float32)

        return run

    return {dtype: make(dtype) for dtype in seconds}


def tried(seconds: Mapping[str, float], off: Mapping[str, float]) -> list[FormatTrial]:
    clock = Clock()
    return try_formats(runs(clock, seconds, off), REFERENCE, PHOTOS, clock=clock)


def chosen(seconds: Mapping[str, float], off: Mapping[str, float] | None = None) -> str | None:
    names = [one.dtype for one in tried(seconds, off or {}) if one.chosen]
    assert len(names) <= 1
    return names[0] if names else None


@pytest.mark.parametrize(
    ("seconds", "off", "wanted"),
    [
        pytest.param({"float32": 2, "bfloat16": 1, "int8": 0.5}, {}, "int8", id="the fastest"),
        pytest.param({"float32": 2, "bfloat16": 5, "int8": 3}, {}, "float32", id="narrow ones are emulated"),
        pytest.param({"float32": 1.05, "int8": 1.0}, {}, "float32", id="not worth the rounding"),
        pytest.param(
            {"float32": 2, "bfloat16": 1, "int8": 0.95}, {}, "bfloat16", id="nor over the next wider one"
        ),
        pytest.param(
            {"float32": 2, "bfloat16": 1, "int8": 0.5}, {"int8": 2.0}, "bfloat16", id="answers otherwise"
        ),
        pytest.param({"int8": 1, MIXED: 0.5}, {}, MIXED, id="no float32 at hand"),
        pytest.param({"int8": 1, MIXED: 0.5}, {"int8": 9, MIXED: 9}, None, id="none is faithful"),
        pytest.param({"float32": 2, "int8": 0.5}, {"int8": float("nan")}, "float32", id="no numbers"),
    ],
)
def test_the_fastest_that_agrees_with_float32_is_chosen(
    seconds: Mapping[str, float], off: Mapping[str, float], wanted: str | None
) -> None:
    assert chosen(seconds, off) == wanted


def test_what_was_measured_is_told_and_survives_a_file() -> None:
    trials = tried({"float32": 2.0, "int8": 1.0}, {"int8": 0.01})
    assert [one.images_per_s for one in trials] == [(4.0, 4.0), (8.0, 8.0)]
    assert trials[0].fidelity[0] == (1.0, 0.0)
    assert 0 < trials[1].fidelity[0].kl < 1e-3
    kept = msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(trials)))
    assert msgspec.convert(kept, list[FormatTrial]) == trials


def test_what_is_refused_is_told_with_what_was_compared_and_how_to_have_it_anyway() -> None:
    one, other = tried({"float32": 2.0, "int8": 1.0}, {"int8": 9.0})
    said = described(other)
    top1, divergence = other.fidelity[0]
    assert f"8.0 images/s at ratio 0 (same top-1 on {top1:.0%} of the photos, KL {divergence:.2g})" in said
    assert said.endswith(
        "its probabilities are too far from float32's: KL may be 0.002 nats at ratio 0, "
        "and 0.01 with tokens removed; the setting dtype=int8 takes it anyway"
    )
    assert described(one).endswith(": chosen")


@given(scale=st.floats(0, 3))
def test_divergence_grows_with_what_is_off(scale: float) -> None:
    noise = RNG.normal(size=(8, 5)).astype(np.float32)
    near, far = (compare((LOGITS[0] + noise * by).astype(np.float32), LOGITS[0]) for by in (scale, 2 * scale))
    assert -1e-9 <= near.kl <= far.kl + 1e-6
    assert 0 <= near.agreement <= 1


def test_the_reference_survives_a_file_and_anything_else_is_refused() -> None:
    again = Reference.from_bytes(REFERENCE.to_bytes(), "some photos")
    assert (again.ratios, again.photos) == (REFERENCE.ratios, "some photos")
    np.testing.assert_array_equal(again.logits, LOGITS)
    refused: list[Callable[[], object]] = [lambda: Reference.from_bytes(b"nothing of the kind", "")]
    for read in refused:
        with pytest.raises(WeightsInvalid, match="the reference of a compiled model cannot be read"):
            read()


def test_photos_are_the_page_s_samples_normalised() -> None:
    photos = normalised_photos(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert photos.shape == (8, 3, 32, 32)
    assert -1 <= photos.min() < 0 < photos.max() <= 1
    assert len({photos_digest(32), photos_digest(64)}) == 2
