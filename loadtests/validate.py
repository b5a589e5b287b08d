"""Checks the claimed speedups of a model over HTTP under load. Exits with 1 if they are not reached.

Starts a server, lets Locust send real JPEGs in phases that take turns (ratio 0, and each reduced one), and
holds each speedup and its confidence interval against what the bare model gains here, measured just before.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import orjson
import torch
from quiet import Watch
from random_model import random_model
from report import save
from servers import PRUNEPOOL, Server, serving
from shapes import Phase, phases
from speedups import Answer, Verdict, judge, quiet_rounds, speedups
from validation_plot import draw

from prunepool.lab.environment import environment

_HERE = Path(__file__).parent
#: Smallest number of quiet rounds for a result.
_FEWEST = 3


def options() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deit_tiny_imagenette")
    parser.add_argument("--model-store", default="model_store")
    parser.add_argument("--architecture", help="a timm architecture with random weights instead of a model")
    parser.add_argument("--images", type=Path, help="folder of JPEGs to send; without it, generated ones")
    parser.add_argument("--ratios", default="0.5,0.755", help="ratios to compare with ratio 0")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the bare model and of the server: a gain in one dtype says nothing of another",
    )
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6, help="rounds over all ratios; 2 or more")
    parser.add_argument("--phase-seconds", type=float, default=8.0)
    parser.add_argument(
        "--settle-seconds", type=float, default=1.5, help="seconds of each phase that do not count"
    )
    parser.add_argument(
        "--predict",
        choices=["benchmark", "profile", "macs"],
        default="benchmark",
        help="where the claim is from: the bare model measured here and now, the model's profile, or its "
        "multiply-accumulates",
    )
    parser.add_argument(
        "--keep", type=float, default=0.7, help="share of the predicted gain that must arrive over HTTP"
    )
    parser.add_argument(
        "--busy",
        type=float,
        default=0.1,
        help="a round is left out if other programs took more of the cores in one of its phases",
    )
    parser.add_argument("--out", type=Path, default=Path("out/loadtest"), help="folder of the results")
    parser.add_argument(
        "--server", nargs="+", default=PRUNEPOOL, metavar="PART", help="another program to start"
    )
    return parser.parse_args()


def predictions(
    source: str, ratios: list[str], info: dict[str, Any], measured: dict[str, float]
) -> dict[str, float]:
    """Return the claimed speedup over ratio 0 at each ratio.

    Args:
        source: `benchmark`, `profile` or `macs`.
        ratios: which.
        info: of the model, as the server shows it.
        measured: by ratio, what the benchmark found, if it was asked.

    Raises:
        SystemExit: the profile says nothing of a ratio.
    """
    if source == "benchmark":
        return measured
    found = {}
    for ratio in ratios:
        points = (info.get("profile") or []) if source == "profile" else info["plans"]
        key = "ratio" if source == "profile" else "reduction_ratio"
        point = next((one for one in points if abs(one[key] - float(ratio)) < 0.005), None)
        if point is None or (source == "profile" and "speed" not in point):
            raise SystemExit(f"the model's {source} says nothing of the speed at ratio {ratio}")
        found[ratio] = point["speed"]["speedup"] if source == "profile" else info["gmacs"] / point["gmacs"]
    return found


def benchmark(model: list[str], ratios: list[str], dtype: str, folder: Path) -> dict[str, float]:
    """Measure the speedup of the bare model as `prunepool benchmark` does, at batch size 8."""
    report = folder / "benchmark.json"
    command = [*PRUNEPOOL, "benchmark", *model, "--batches", "8", "--rounds", "5", "--rivals", "timm eager"]
    command += ["--dtypes", dtype, "--ratios", ",".join(["0", *ratios]), "--json", str(report)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    rows = orjson.loads(report.read_bytes())["rows"]
    rates = {row["ratio"]: row["images_per_s"] for row in rows if row["ratio"] is not None}
    return {ratio: rates[float(ratio)] / rates[0.0] for ratio in ratios}


def locust(server: Server, ratios: list[str], wanted: argparse.Namespace) -> tuple[float, list[Answer]]:
    """Run all phases; write Locust's report to the folder.

    Returns:
        When the run began, as `time.time` gives it, and the answers.
    """
    record = wanted.out / "answers.jsonl"
    record.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "locust", "-f", str(_HERE / "locustfile.py"), "--host", server.url,
        "--headless", "--only-summary", "--loglevel", "WARNING", "--users", str(wanted.users),
        "--load-shape", "phases", "--ratios", ",".join(ratios), "--rounds", str(wanted.rounds),
        "--phase-seconds", f"{wanted.phase_seconds:g}", "--stop-timeout", "30",
        "--record", str(record), "--html", str(wanted.out / "locust.html"),
        "--csv", str(wanted.out / "locust"), "--exit-code-on-error", "0",
        *(["--images", str(wanted.images)] if wanted.images else []),
        "PhasedUser",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr)
    first, *rows = map(orjson.loads, record.read_bytes().splitlines())
    return first["began"], [Answer(row["phase"], row["sent"], row["answered"], row["error"]) for row in rows]


def show(verdicts: list[Verdict], dense: float, failed: list[str]) -> None:
    """Print the result as a table."""
    print(f"{'ratio':>8}  {'images/s':>8}  {'speedup':>7}  {'95 %':>15}  {'claimed':>7}  {'needed':>6}  ")
    print(f"{'0':>8}  {dense:8.1f}  {'×1.00':>7}")
    for one in verdicts:
        speedup = one.speedup
        print(
            f"{speedup.ratio:>8}  {dense * speedup.mean:8.1f}  ×{speedup.mean:6.2f}  "
            f"×{speedup.low:6.2f}–×{speedup.high:5.2f}  ×{one.predicted:6.2f}  ×{one.needed:5.2f}  "
            f"{'there' if one.shown else 'NOT THERE'}"
        )
    for error in sorted(set(failed)):
        print(f"failed: {failed.count(error)} × {error}")


def main() -> int:
    """Run, compare, report."""
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    wanted.out.mkdir(parents=True, exist_ok=True)
    reduced = [ratio.strip() for ratio in wanted.ratios.split(",")]
    ratios = ["0", *reduced]
    with ExitStack() as stack:
        store, model = wanted.model_store, wanted.model
        if wanted.architecture:
            store = stack.enter_context(tempfile.TemporaryDirectory())
            model = random_model(wanted.architecture, Path(store))
        which = ["--model", model, "--model-store", str(store)]
        by_benchmark = wanted.predict == "benchmark"
        measured = benchmark(which, reduced, wanted.dtype, wanted.out) if by_benchmark else {}
        # No latency target, since this measures throughput; PyTorch, which runs the bare model too.
        flags = [
            *which,
            "--dtype",
            wanted.dtype,
            "--cpu-openvino",
            "false",
            "--target-latency-ms",
            "inf",
            "--default-reduction-ratio",
            "0",
        ]
        server = stack.enter_context(serving("validated", flags, program=wanted.server))
        info = httpx.get(f"{server.url}/models/{model}", timeout=30).json()
        predicted = predictions(wanted.predict, reduced, info, measured)
        schedule: list[Phase] = phases(ratios, wanted.rounds, wanted.phase_seconds, 3.0)
        with Watch() as watch:
            began, answers = locust(server, ratios, wanted)
    kept = quiet_rounds(schedule, lambda start, end: watch.others(began + start, began + end), wanted.busy)
    if len(kept) < min(_FEWEST, wanted.rounds):
        print(
            f"only {len(kept)} of {wanted.rounds} rounds had the machine to themselves: nothing can be said"
        )
        return 1
    schedule = [phase for phase in schedule if phase.round < 0 or phase.round in kept]
    failed = [one.error for one in answers if one.error is not None]
    speeds = speedups(answers, schedule, wanted.settle_seconds)
    verdicts = judge(speeds, predicted, wanted.keep)
    report = {
        "model": info["name"],
        "architecture": info["architecture"],
        "dtype": info["dtype"],
        "environment": environment(torch.device("cpu")),
        "users": wanted.users,
        "rounds": wanted.rounds,
        "rounds_kept": sorted(kept),
        "phase_seconds": wanted.phase_seconds,
        "prediction": wanted.predict,
        "keep": wanted.keep,
        "answers": len(answers),
        "failed": len(failed),
        "dense": asdict(speeds[0]),
        "verdicts": [asdict(one) for one in verdicts],
    }
    save(report, wanted.out / "speedups.json")
    draw(report, wanted.out / "speedups.png")
    show(verdicts, sum(speeds[0].images_per_s) / len(kept), failed)
    return 0 if not failed and all(one.shown for one in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
