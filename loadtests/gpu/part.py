"""What the parts of the GPU check share: their flags, and a report that is on disk after every figure."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import save


@dataclass(frozen=True, slots=True)
class Part:
    """How a part was called.

    Attributes:
        device: `cuda:0` or `cpu`.
        quick: whether only the form matters, not the figures.
        photos: a folder of JPEGs, or None: generated ones.
        out: where its report goes.
        until: when it should be done, by `time.monotonic`.
    """

    device: str
    quick: bool
    photos: Path | None
    out: Path
    until: float

    @classmethod
    def called(cls) -> Part:
        """From the command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--device", default="cuda:0")
        parser.add_argument("--quick", action="store_true")
        parser.add_argument("--photos", type=Path)
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--seconds", type=float, default=240.0)
        flags = parser.parse_args()
        until = time.monotonic() + flags.seconds
        return cls(flags.device, flags.quick, flags.photos, flags.out, until)

    @property
    def gpu(self) -> bool:
        """Whether it is for a GPU."""
        return self.device != "cpu"

    @property
    def left(self) -> float:
        """Seconds until it should be done."""
        return self.until - time.monotonic()

    def save(self, report: Mapping[str, Any]) -> None:
        """Write what is known so far."""
        save(report, self.out)


def typical(images: Sequence[bytes], size: int = 100_000, count: int = 48) -> list[bytes]:
    """Those whose files are nearest to the size that photos on the web have."""
    return sorted(images, key=lambda image: abs(len(image) - size))[:count]


def attempt(function: Callable[[], Any]) -> Any:
    """What a function returns, or in words why it does not: what is not there is a finding, not a failure."""
    try:
        return function()
    except Exception as error:
        return {"not_measured": f"{type(error).__name__}: {str(error)[:300]}"}
