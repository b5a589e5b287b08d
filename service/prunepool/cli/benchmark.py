"""`prunepool benchmark`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from prunepool.cli import inputs
from prunepool.cli.accuracy import check_plot, numbers, save_json
from prunepool.cli.options import ApiKeyOption, UsageError, load_settings, with_flags
from prunepool.cli.terminal import say_skipped, say_table
from prunepool.extras import needs_torch
from prunepool.imaging.image_files import SUFFIXES, find_files
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import PlanError

_MAX_BATCH = 4096
_DTYPES = ("float32", "bfloat16", "float16")


@with_flags("model", "model_store", "device")
def benchmark(
    flags: Mapping[str, str],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Time this timm architecture with random weights instead of a model.", metavar="NAME"
        ),
    ] = None,
    dtypes: Annotated[str, typer.Option(help="Dtypes, comma-separated.")] = "float32",
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1,8,32",
    ratios: Annotated[
        str, typer.Option(help="Reduction ratios, comma-separated.")
    ] = "0,0.1,0.25,0.5,0.755,0.85",
    method: Annotated[str, typer.Option(help=f"Reduction method: {', '.join(METHODS)}.")] = "ppt",
    rivals: Annotated[
        str, typer.Option(help="Dense baselines; those that are not installed are listed and left out.")
    ] = "timm eager,timm channels-last,timm compiled,openvino,onnxruntime",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds; candidates alternate.")] = 9,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Measure each ratio with OpenVINO too, on a CPU; also in int8.")
    ] = False,
    operations: Annotated[
        bool, typer.Option("--operations", help="Show the share of the time of each kind of operation.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Measure this running server over HTTP instead.", metavar="URL")
    ] = None,
    api_key: ApiKeyOption = None,
    images: Annotated[
        Path | None, typer.Option(help="With --url: folder of images to send.", metavar="DIR")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, help="With --url: concurrent clients.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.5, help="With --url: seconds per phase.")] = 5.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write rows and environment to this file.", metavar="FILE")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw images/s against the ratio into this file.", metavar="FILE.png")
    ] = None,
) -> None:
    """Measure images/s at several ratios and of dense baselines, or of a server over HTTP."""
    check_plot(plot)
    if url is not None:
        _over_http(url, api_key, images, ratios.split(","), clients, seconds, rounds, json_file)
        return
    wanted, sizes = numbers("--ratios", ratios), _batches(batches)
    needs_torch("benchmark without --url")
    from prunepool.lab.benchmark import Benchmark, Case

    settings = load_settings(flags)
    vit, size, name = _network(flags, architecture)
    bench = Benchmark(
        vit,
        size=size,
        device=settings.device,
        ratios=wanted,
        rivals=_known_rivals(rivals),
        rounds=rounds,
        method=_known_method(method),
        profiled=operations,
        openvino=openvino,
    )
    cases = [Case(d, b) for d in _known_dtypes(dtypes) for b in sizes]
    try:
        with _progress(bench.steps(cases)) as advance:
            rows = bench.run(cases, advance)
    except PlanError as error:
        raise UsageError(f"--ratios: {error}") from error
    report = bench.report(rows, name)
    try:  # what was measured is neither lost with a reader of the output nor with a file that cannot be written
        save_json(report, json_file)
        if plot is not None:
            from prunepool.lab.speed_plot import draw

            draw(report, plot)
    finally:
        _print(report)


def _network(flags: Mapping[str, str], architecture: str | None) -> tuple[Any, int, str]:
    """Return the network to time, its input resolution and its name."""
    from prunepool.store import open_store

    if architecture is None:
        from prunepool.models.loader import load_model

        settings = load_settings(flags)
        stored = open_store(settings.model_store).open(settings.model)
        model = load_model(stored.folder, device="cpu", dtype="float32")
        return model.vit.vit, stored.manifest.input_size, stored.manifest.architecture
    from prunepool.lab.networks import random_network

    vit, size = random_network(architecture)
    return vit, size, architecture


def _over_http(
    url: str,
    api_key: SecretStr | None,
    folder: Path | None,
    ratios: Sequence[str],
    clients: int,
    seconds: float,
    phases: int,
    json_file: Path | None,
) -> None:
    """Measure a server."""
    from dataclasses import asdict

    from prunepool.lab.http_benchmark import HttpBenchmark, described

    if folder is None:
        raise UsageError("--url needs --images, a folder of images to send")
    if not folder.is_dir():
        raise UsageError(f"--images {folder} is no folder")
    found = find_files(folder)
    say_skipped(found, str(folder))
    if not found.files:
        raise UsageError(f"--images {folder} holds no {', '.join(sorted(SUFFIXES))} file")
    try:
        photos = [inputs.read(str(file)) for file in found.files]
    except OSError as error:
        raise UsageError(f"--images {error.filename} {error.strerror}") from error
    bench = HttpBenchmark(url, photos, clients=clients, seconds=seconds, phases=phases, api_key=api_key)
    server = described(url, api_key)
    with _progress(phases * len(ratios)) as advance:
        rows = asyncio.run(bench.run(ratios, advance))
    table = Table("ratio", "images/s", "over the first", "p50 ms", "p99 ms", "failed")
    for row in rows:
        gain = row.images_per_s / rows[0].images_per_s
        figures = (f"{row.images_per_s:.1f}", f"×{gain:.2f}", f"{row.p50_ms:.0f}", f"{row.p99_ms:.0f}")
        table.add_row(row.ratio, *figures, str(row.failed))
    report = {"url": url, "clients": clients, **asdict(server), "rows": [asdict(row) for row in rows]}
    try:
        save_json(report, json_file)
    finally:
        say_table(table, str(server))


def _print(report: Mapping[str, Any]) -> None:
    """Print the rows as a table, with a section for each dtype and batch size, and the machine."""
    from prunepool.lab.environment import in_words

    table = Table("dtype", "batch", "candidate", "images/s", "10–90 %", "over timm's best", "MAC bound")
    last = None
    for row in report["rows"]:
        case = (row["dtype"], row["batch"])
        if last not in (None, case):
            table.add_section()
        last = case
        spread = f"{row['low']:.1f}–{row['high']:.1f}"
        bound = "" if row["bound"] is None else f"×{row['bound']:.2f}"
        figures = (f"{row['images_per_s']:.1f}", spread, f"×{row['speedup']:.3f}", bound)
        table.add_row(row["dtype"], str(row["batch"]), row["candidate"], *figures)
    parts: list[Table | str] = [table, in_words(report["environment"])]
    for row in report["rows"]:
        if row["of_uniform"] is not None:
            share = f"the mix runs at {row['of_uniform']:.2f} of uniform batches of its ratios"
            parts.append(f"{row['dtype']}, batch {row['batch']}: {share}")
    parts += _operations(report["rows"])
    if report["not_measured"]:
        parts.append("not measured here: " + ", ".join(report["not_measured"]))
    say_table(*parts)


def _operations(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Make a table of the share of the time of each kind of operation, if it was profiled."""
    profiled = [row for row in rows if row["operations"]]
    if not profiled:
        return []
    kinds = list(dict.fromkeys(one["kind"] for row in profiled for one in row["operations"]))
    table = Table("dtype", "batch", "candidate", *kinds, title="share of the time, by kind of operation")
    for row in profiled:
        share = {one["kind"]: f"{one['share']:.1%}" for one in row["operations"]}
        table.add_row(row["dtype"], str(row["batch"]), row["candidate"], *(share.get(k, "") for k in kinds))
    return [table]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """Show a progress bar on a terminal; yield a function that advances it by one."""
    console = Console(stderr=True)
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda: bar.advance(task)


def _batches(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(1 <= size <= _MAX_BATCH for size in sizes):
        raise UsageError(f"--batches must be comma-separated integers from 1 to {_MAX_BATCH}; got {text!r}")
    return sizes


def _known_dtypes(text: str) -> list[Any]:
    import torch

    for name in text.split(","):
        if name not in _DTYPES:
            raise UsageError(f"--dtypes must be of {', '.join(_DTYPES)}; got {name!r}")
    return [getattr(torch, name) for name in text.split(",")]


def _known_rivals(text: str) -> list[str]:
    from prunepool.lab.rivals import RIVALS

    for name in text.split(","):
        if name not in RIVALS:
            raise UsageError(f"--rivals must be of {', '.join(RIVALS)}; got {name!r}")
    return text.split(",")


def _known_method(name: str) -> Any:
    if name not in METHODS:
        raise UsageError(f"--method must be one of {', '.join(METHODS)}; got {name!r}")
    return name
