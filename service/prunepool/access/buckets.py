"""The token bucket: limits the images that a caller may send. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

#: Images. A smaller shortfall is a rounding error of floating-point times.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate limit.

    Attributes:
        per_s: images per second in the long run, above 0.
        burst: images at once after a pause, at least 1.
    """

    per_s: float
    burst: float

    def __str__(self) -> str:
        return f"{self.per_s:g} images a second, {self.burst:g} at once"


@dataclass(frozen=True, slots=True)
class Bucket:
    """The level of a bucket at a time; from then on it fills at its rate.

    Attributes:
        level: images available then.
        at: the time, in seconds of a monotonic clock.
    """

    level: float
    at: float


def full(rate: Rate, now: float) -> Bucket:
    """Return a full bucket, for a new caller."""
    return Bucket(rate.burst, now)


def take(rate: Rate, bucket: Bucket, images: int, now: float) -> tuple[Bucket, float]:
    """Take images out of a bucket, all or none.

    Args:
        rate: the rate limit.
        bucket: the bucket after the last call.
        images: number of images, at most `rate.burst`, since a bucket never holds more.
        now: seconds of the same clock; a time before the bucket's counts as the bucket's.

    Returns:
        The new bucket, and the seconds after which the images can be taken: 0.0 if they were taken now.
    """
    level = min(rate.burst, bucket.level + max(0.0, now - bucket.at) * rate.per_s)
    missing = images - level
    if missing <= _ROUNDING:
        return Bucket(max(0.0, level - images), max(now, bucket.at)), 0.0
    return Bucket(level, max(now, bucket.at)), missing / rate.per_s
