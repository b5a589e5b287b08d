"""What `prunepool doctor` found of one thing, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    Attributes:
        level: `ok`; `warning`: it serves, with a drawback; `problem`: it does not serve.
        what: was looked at.
        found: a clause.
        advice: what to do, unless all is well.
    """

    level: Level
    what: str
    found: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """As JSON has it."""
        return dict(asdict(self))
