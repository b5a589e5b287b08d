"""The bar that shows how far a long run is."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


def progress_bar(console: Console, *, shown: bool) -> Progress:
    """A bar that leaves nothing behind, and leaves the process's own output alone.

    Args:
        console: where it is drawn.
        shown: whether it is; false makes every call of it do nothing.
    """
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not shown,
        redirect_stdout=False,
        redirect_stderr=False,
    )
