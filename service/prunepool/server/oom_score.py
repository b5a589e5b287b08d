"""Which process the kernel ends first where memory runs out: an engine, then a front end, the parent last.

An engine is replaced, and its requests go elsewhere; with a front end its connections break; with the parent all
ends.
"""

from __future__ import annotations

from pathlib import Path

import structlog

#: Added to what a process inherits, in thousandths of the memory that there is.
ENGINE, FRONTEND = 500, 200
_HIGHEST = 1000
_log = structlog.stdlib.get_logger("prunepool.processes")


def raise_oom_score(by: int, file: Path = Path("/proc/self/oom_score_adj")) -> None:
    """Have the kernel choose this process before others; nothing happens where there is no such thing.

    Args:
        by: thousandths; any process may raise its own.
        file: the kernel's, of this process.
    """
    try:
        file.write_text(str(min(_HIGHEST, int(file.read_text()) + by)))
    except (OSError, ValueError) as error:
        _log.debug("the kernel is not told which process to end first", why=str(error))
