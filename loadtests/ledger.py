"""Compares the clients' count of outcomes with the server's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from open_loop import NO_ANSWER, NO_CONNECTION, Seen

#: Outcome of a client that disconnected before its response.
VANISHED = "vanished"


@dataclass
class Ledger:
    """The outcomes of a number of requests.

    Attributes:
        outcomes: how many ended in `ok`, in an error's code, as `VANISHED`, or as `NO_ANSWER` or `NO_CONNECTION`.
    """

    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, seen: Iterable[Seen]) -> None:
        """Add requests whose clients waited for the response."""
        self.outcomes.update("ok" if one.status == 200 else one.code for one in seen)

    def faults(self, served: Counter[str]) -> list[str]:
        """Return the differences; none if every request is accounted for.

        A client that left may have been answered, refused, or never noticed.

        Args:
            served: requests by outcome, as the server counted them meanwhile.
        """
        mine = self.outcomes
        gone = mine[VANISHED]
        faults = [f"{mine[NO_ANSWER]} requests got no answer"] if mine[NO_ANSWER] else []
        if served["cancelled"] > gone:
            faults.append(f"{served['cancelled']} requests were dropped, though {gone} clients left")
        faults += [
            f"{code}: {mine[code]} clients got it, the server counted {served[code]}"
            for code in sorted(served.keys() | mine.keys() - {VANISHED, NO_ANSWER, NO_CONNECTION})
            if code != "cancelled" and not mine[code] <= served[code] <= mine[code] + gone
        ]
        total, most = sum(served.values()), sum(mine.values()) - mine[NO_CONNECTION]
        if not most - gone <= total <= most:
            faults.append(f"{most} requests were made, {gone} of them left, and {total} were counted")
        return faults
