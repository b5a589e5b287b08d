"""Prints results and errors, with a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from prunepool.cli.terminal import as_json, shown
from prunepool.client.progress import progress_bar

#: Fewer files are done before a bar would show anything.
_MIN_FILES_FOR_BAR = 3


class Output:
    """Prints results in order: predictions to standard output, errors to standard error.

    Args:
        as_json: whether to print one JSON object per line, also for errors, to standard output.
        total: number of results to come.
    """

    def __init__(self, as_json: bool, total: int) -> None:
        self.failed = 0
        self._as_json = as_json
        # On a terminal, results appear above the bar; if they are piped, the bar is on standard error.
        self._console = Console(stderr=not sys.stdout.isatty())
        self._bar = progress_bar(
            self._console, shown=total >= _MIN_FILES_FOR_BAR and self._console.is_terminal
        )
        self._task = self._bar.add_task("images", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def answer(self, name: str, answer: Mapping[str, Any]) -> None:
        """Print the predictions of an image."""
        self._write({"file": name, **answer} if self._as_json else shown(_text(name, answer)))

    def error(self, name: str, code: str, detail: str) -> None:
        """Print the error of an image."""
        self.failed += 1
        if self._as_json:
            self._write({"file": name, "error": {"code": code, "detail": detail}})
            return
        self._bar.advance(self._task)
        self._print(shown(f"prunepool: {name}: {' '.join(detail.split())}"), to_error=True)

    def _write(self, line: str | dict[str, Any]) -> None:
        self._bar.advance(self._task)
        self._print(line if isinstance(line, str) else as_json(line, sys.stdout))

    def _print(self, line: str, to_error: bool = False) -> None:
        if not self._bar.disable and self._console.stderr == to_error:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        stream = sys.stderr if to_error else sys.stdout
        stream.write(line + "\n")
        stream.flush()


def _text(name: str, answer: Mapping[str, Any]) -> str:
    best = ", ".join(f"{p['label']} {p['score']:.1%}" for p in answer["predictions"])
    reduction = answer["reduction"]
    return (
        f"{name}: {best} [ratio {reduction['applied']:.3g}, {reduction['gmacs']:.2f} GMACs, "
        f"{answer['timing_ms']['total']:.1f} ms]"
    )
