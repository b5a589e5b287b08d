"""How long to wait before a process that died is started again."""

from __future__ import annotations

#: The pause after a first death, and the longest pause, in seconds.
FIRST_DELAY_S, MAX_DELAY_S = 0.1, 30.0
#: The longest pause where the system had no process to give: at a limit, or out of memory.
NO_PROCESS_DELAY_S = 1.0
#: After so long a ready process counts as stable: its death is not the next in a row.
STABLE_S = 3.0


class RestartBackoff:
    """Doubles the pause with each death in a row of processes that were not ready for long."""

    def __init__(self) -> None:
        self._failures = 0

    def died(self, ready_s: float) -> float:
        """The pause before the next start, in seconds.

        Args:
            ready_s: seconds that the process was ready before it died; 0 if it never was.
        """
        self._failures = 0 if ready_s > STABLE_S else self._failures + 1
        return min(FIRST_DELAY_S * 2.0 ** min(max(self._failures - 1, 0), 60), MAX_DELAY_S)
