"""How fast the device is, as measured: seconds for a number of GMACs."""

from __future__ import annotations

#: What a batch still weighs when the next one has been measured: about the last ten count.
_FADE = 0.9


class Pace:
    """A moving estimate of seconds per GMAC over the latest batches; a large batch weighs more."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._gmacs = 0.0

    def observe(self, gmacs: float, seconds: float) -> None:
        """Take in a batch that was run."""
        self._seconds = _FADE * self._seconds + seconds
        self._gmacs = _FADE * self._gmacs + gmacs

    def seconds(self, gmacs: float) -> float:
        """Predicted time for so much work; 0 before anything was measured."""
        return gmacs * self._seconds / self._gmacs if self._gmacs else 0.0
