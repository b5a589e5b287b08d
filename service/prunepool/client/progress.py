"""The progress bar of long runs."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn


def progress_bar(console: Console, *, shown: bool) -> Progress:
    """Make a progress bar that disappears at the end and does not redirect the process's output.

    Args:
        console: the console to draw on.
        shown: whether to draw; if false, every call does nothing.
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
