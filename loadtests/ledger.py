"""Who was answered, seen from both sides: what the clients got, and what the server says that it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from open_loop import NO_ANSWER, Seen

#: A client that ended its connection before its answer came.
VANISHED = "vanished"


@dataclass
class Ledger:
    """What became of a number of requests.

    Attributes:
        outcomes: how many ended in `ok`, in an error's code, as `VANISHED`, or as `NO_ANSWER` or `NO_CONNECTION`.
    """

    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, seen: Iterable[Seen]) -> None:
        """Enter requests whose clients waited."""
        self.outcomes.update("ok" if one.status == 200 else one.code for one in seen)

    def faults(self, served: Counter[str]) -> list[str]:
        """Where the two sides differ; empty if every request is accounted for.

        An answer that was ready when its client left is `ok` to the server and nothing to the client. What is
        refused before its images are counted, such as no image at all, is told to the client only.

        Args:
            served: images by outcome, as the server counted them meanwhile.
        """
        mine = self.outcomes
        gone = mine[VANISHED]
        faults = [f"{mine[NO_ANSWER]} requests got no answer"] if mine[NO_ANSWER] else []
        if not mine["ok"] <= served["ok"] <= mine["ok"] + gone:
            faults.append(f"{mine['ok']} answers came, {gone} clients left, {served['ok']} were sent")
        if served["cancelled"] > gone:
            faults.append(f"{served['cancelled']} requests were dropped, though {gone} clients left")
        # Those that left may have been refused as well.
        faults += [
            f"{code}: {mine[code]} clients were told, {served[code]} were refused"
            for code in served.keys() - {"ok", "cancelled"}
            if not mine[code] <= served[code] <= mine[code] + gone
        ]
        total, most = sum(served.values()), sum(mine.values())
        if total > most:
            faults.append(f"{total} images were counted, {most} requests were made")
        return faults
