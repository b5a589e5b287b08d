"""What the service takes without PyTorch: room on the disk, time to the first answer, memory under many clients.

The server is that of `.venv-cpu`, which has what docker/cpu.lock lists. Its model is compiled in int8 by this
environment. Ends with 1 if a limit is exceeded or a request fails.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import torch
from pictures import photos
from random_model import model_folder
from report import save
from resident import crowd
from servers import PRUNEPOOL, serving

from prunepool.lab.environment import environment

ROOT = Path(__file__).resolve().parent.parent
#: Largest values that are allowed.
LIMITS = {"disk_mb": 475.0, "first_answer_s": 3.0, "peak_mb": 350.0}


def disk_mb(folder: Path) -> float:
    """What the files of a folder take, those that are linked to left out."""
    return (
        sum(one.lstat().st_size for one in folder.rglob("*") if one.is_file() and not one.is_symlink()) / 1e6
    )


def first_answer_s(program: Path, flags: Sequence[str], image: bytes) -> float:
    """Seconds from the start of a server's process to its first answer to a photo."""
    began = time.perf_counter()
    with serving("first answer", flags, program=[str(program)]) as server:
        httpx.post(f"{server.url}/classify", content=image, timeout=60).raise_for_status()
        return time.perf_counter() - began


def measure(wanted: argparse.Namespace, folder: Path, kept: Path) -> dict[str, Any]:
    """Run all parts.

    Args:
        wanted: the arguments.
        folder: of the compiled model.
        kept: folder in which OpenVINO keeps what it prepares; empty at first.
    """
    images = photos(wanted.images)
    program = wanted.environment / "bin" / "prunepool"
    flags = ["--model", str(folder), "--dtype", wanted.dtype, "--cpu-openvino-folder", str(kept)]
    starts = [first_answer_s(program, flags, images[0]) for _ in range(1 + wanted.starts)]
    # As many clients wait longer than the default limits allow.
    patient = [*flags, "--target-latency-ms", "inf", "--max-queue-ms", "600000"]
    with serving(wanted.dtype, patient, program=[str(program)]) as server:
        crowded = crowd(server, images, ratio=wanted.ratio, clients=wanted.clients, seconds=wanted.seconds)
    return {
        "disk_mb": disk_mb(wanted.environment),
        "model_mb": disk_mb(folder),
        "very_first_answer_s": starts[0],
        "first_answer_s": statistics.median(starts[1:]),
        "starts_s": starts[1:],
        **crowded,
    }


def exceeded(found: Mapping[str, Any]) -> list[str]:
    """Which limits are exceeded, in words."""
    return [
        f"{name} is {found[name]:.4g}; at most {limit:g} is allowed"
        for name, limit in LIMITS.items()
        if found[name] > limit
    ]


def table(found: Mapping[str, Any], dtype: str) -> str:
    """The figures as a table, in Markdown."""
    rows = {
        "libraries on the disk": f"{found['disk_mb']:.0f} MB",
        "the model on the disk": f"{found['model_mb']:.0f} MB",
        "process start to first answer, nothing kept": f"{found['very_first_answer_s']:.2f} s",
        "the same later": f"{found['first_answer_s']:.2f} s",
        "memory, idle": f"{found['before_mb']:.0f} MB",
        f"memory at most, {found['clients']} clients": f"{found['peak_mb']:.0f} MB",
        f"images/s, ratio {found['ratio']}": f"{found['images_per_s']:.1f}",
    }
    return "\n".join(
        [f"| {dtype} | |", "|---|---|", *(f"| {what} | {much} |" for what, much in rows.items())]
    )


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="deit_small_patch16_224", help="with random weights")
    parser.add_argument("--model", type=Path, help="folder of a model to use instead; it is copied")
    parser.add_argument("--images", type=Path, help="folder of JPEGs to send; without it, generated ones")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-cpu", help="without PyTorch")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--ratio", default="0.755")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30.0, help="of load")
    parser.add_argument("--starts", type=int, default=3, help="starts after the first one")
    parser.add_argument("--json", type=Path, default=Path("out/footprint.json"))
    return parser.parse_args(arguments)


def main() -> int:
    """Compile, run, report, and compare with the limits."""
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    with ExitStack() as stack:
        given = stack.enter_context(model_folder(wanted.model, wanted.architecture))
        store = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        shutil.copytree(given, store / given.name)
        command = [*PRUNEPOOL, "models", "compile", given.name, "--model-store", str(store)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        found = measure(wanted, store / given.name, store / "converted")
    report = {
        "architecture": wanted.architecture if wanted.model is None else wanted.model.name,
        "environment": environment(torch.device("cpu")),
        "dtype": wanted.dtype,
        "limits": LIMITS,
        **found,
    }
    save(report, wanted.json)
    print(table(found, wanted.dtype))
    failures = [*exceeded(found), *found["errors"]]
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
