"""The token bucket: how many images a caller may send, and how long to wait for more. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

#: Of an image: less is what adding and multiplying times leaves over.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """What a bucket lets through.

    Attributes:
        per_s: images a second in the long run, above 0.
        burst: images at once after a rest, at least 1.
    """

    per_s: float
    burst: float

    def __str__(self) -> str:
        return f"{self.per_s:g} images a second, {self.burst:g} at once"


@dataclass(frozen=True, slots=True)
class Bucket:
    """How full a bucket was, and when; it fills up at its rate from then on.

    Attributes:
        level: images that it held.
        at: seconds of a monotonic clock.
    """

    level: float
    at: float


def full(rate: Rate, now: float) -> Bucket:
    """The bucket of a caller who has not been seen yet."""
    return Bucket(rate.burst, now)


def take(rate: Rate, bucket: Bucket, images: int, now: float) -> tuple[Bucket, float]:
    """Take images out of a bucket, all or none.

    Args:
        rate: how it fills up.
        bucket: as it was after the last taking.
        images: how many, at most `rate.burst`: more are never in it.
        now: seconds of the same clock; one that ran backwards counts as one that stood.

    Returns:
        The bucket after it, and 0.0 if the images were taken; else seconds after which they can be.
    """
    level = min(rate.burst, bucket.level + max(0.0, now - bucket.at) * rate.per_s)
    missing = images - level
    if missing <= _ROUNDING:
        return Bucket(max(0.0, level - images), max(now, bucket.at)), 0.0
    return Bucket(level, max(now, bucket.at)), missing / rate.per_s
