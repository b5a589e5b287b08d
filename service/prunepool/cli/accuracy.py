"""The parts that `prunepool evaluate`, `calibrate` and `train` share: options, models, progress, tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from prunepool.cli.options import UsageError, load_settings
from prunepool.cli.terminal import say, say_table

if TYPE_CHECKING:
    from prunepool.lab.accuracy_row import AccuracyRow
    from prunepool.models.loaded_model import LoadedModel

ImagesOption = Annotated[Path, typer.Option(help="Folder of images.", metavar="DIR")]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        help="CSV with the columns file and label_index, or 'folders' where each class has a folder.",
        metavar="CSV|folders",
    ),
]
LimitOption = Annotated[int | None, typer.Option(min=2, help="Use only this many images, chosen at random.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Write all figures to this file.", metavar="FILE")
]

#: Columns when standard output is no terminal, so that lines do not wrap for other programs.
_PIPE_WIDTH = 160
#: Formats of a plot.
_PICTURES = (".png", ".svg", ".pdf", ".jpg", ".webp")
#: Images that a line names.
_NAMED = 3


def load(name: str, flags: Mapping[str, str]) -> LoadedModel:
    """Load a model. `auto` means float32 here, so that runs on two machines agree."""
    from prunepool.models.loader import load_model

    settings = load_settings(flags)
    dtype = "float32" if settings.dtype == "auto" else settings.dtype
    return load_model(name, device=settings.device, dtype=dtype, store=settings.model_store)


def numbers(option: str, text: str) -> list[float]:
    """Parse comma-separated ratios; return them in ascending order.

    Raises:
        UsageError: the text is not that.
    """
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"{option} must be comma-separated numbers; got {text!r}") from None
    if not all(0 <= ratio < 1 for ratio in found):
        raise UsageError(f"{option} must be from 0 to below 1; got {text!r}")
    return found


@contextmanager
def progress() -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Show progress bars on a terminal.

    Yields:
        A function of a name and a total that adds a bar, and returns a function that advances it by a count.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:

        def begin(name: str, total: int) -> Callable[[int], object]:
            task = bar.add_task(name, total=total)
            return lambda count: bar.advance(task, count)

        yield begin


def print_rows(rows: Iterable[AccuracyRow], titles: Sequence[str] = ()) -> None:
    """Print measured settings as a table.

    Args:
        rows: one for each line; a line is empty where the method changes.
        titles: their names; by default those of their methods.
    """
    rows = list(rows)
    names = list(titles) or [_name(row) for row in rows]
    labelled = rows[0].figures.top1 is not None
    table = Table(box=None, header_style="bold")
    table.add_column("METHOD")
    columns = ["RATIO", "GMACS", "AGREEMENT", "KL"]
    columns += ["TOP-1", "TOP-5", "ECE", "DROP", "LOST/GAINED", "P"] if labelled else ["DROP"]
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    last = rows[0].method
    for name, row in zip(names, rows, strict=True):
        if row.method != last:
            table.add_row()
        last = row.method
        table.add_row(name, *_cells(row, labelled))
    say_table(table, f"{rows[0].figures.images} images; {_meaning(labelled)}", width=_PIPE_WIDTH)


def _meaning(labelled: bool) -> str:
    """What the columns of the table are, in a line."""
    parts = [
        "AGREEMENT: same best class as the dense model",
        "KL: divergence from its probabilities, in nats",
    ]
    if labelled:
        parts += [
            "ECE: mean distance of confidence from accuracy",
            "DROP: points of top-1 lost",
            "LOST/GAINED: images that the dense model alone, or only the reduced one, has right",
            "P: chance of such a difference between equally good ones (McNemar)",
        ]
    else:
        parts.append("DROP: points of agreement lost")
    return "; ".join([*parts, "ranges: 95 % bootstrap intervals"])


def _name(row: AccuracyRow) -> str:
    if row.escalate_below is None:
        return row.method
    return f"{row.method}, again below {row.escalate_below:g}: {row.escalated:.1%}"


def _cells(row: AccuracyRow, labelled: bool) -> list[str]:
    f = row.figures
    cells = [
        f"{row.ratio:.4g}",
        f"{row.gmacs:.3f}",
        f"{f.agreement:.1%} {_range(f.intervals['agreement'], 100)}",
        "" if f.kl is None else f"{f.kl:.4f}",
    ]
    drop = f"{f.drop:+.2f} {_range(f.intervals['drop'], 1)}"
    if not labelled:
        return [*cells, drop]
    accuracy = [f"{f.top1:.1%} {_range(f.intervals['top1'], 100)}", f"{f.top5:.1%}", f"{f.ece:.3f}"]
    return [*cells, *accuracy, drop, f"{f.lost}/{f.gained}", f"{f.p_value:.2g}"]


def _range(ends: tuple[float, float], scale: float) -> str:
    return f"{ends[0] * scale:.1f}–{ends[1] * scale:.1f}" if ends[0] >= 0 else _signed(ends, scale)


def _signed(ends: tuple[float, float], scale: float) -> str:
    return f"{ends[0] * scale:+.1f}…{ends[1] * scale:+.1f}"


def check_plot(path: Path | None) -> None:
    """Check that a picture can be of a format, before what it shows is measured.

    Raises:
        UsageError: its suffix is of none.
    """
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot must be a file that ends in {', '.join(_PICTURES)}; got {path.name!r}")


def say_broken(broken: Sequence[str], count: int) -> None:
    """Say in a line how many of so many images could not be decoded, if any, and why the first ones."""
    if broken:
        some = "; ".join(broken[:_NAMED]) + ("; …" if len(broken) > _NAMED else "")
        say(
            f"prunepool: {len(broken)} of {count} images cannot be decoded and are left out: {some}",
            error=True,
        )


def save_json(document: Mapping[str, object], path: Path | None) -> None:
    """Write a report as JSON, if there is a path.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        )
    except OSError as error:
        raise UsageError(f"--json {path} cannot be written: {error.strerror}") from error
