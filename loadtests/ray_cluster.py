"""The service on a local Ray cluster: does it give the results of the plain server, and lose no request?

Started with the Python of .venv-ray (make ray-test). What is deployed is docker/ray/serve.yaml, with less of
everything: a core for each engine, the local model store, a free port. Scenes: the same answers; overhead; two
engines against one; an engine killed under load; models changed and replicas replaced under load; one engine, two,
and one again, by load.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from pictures import pictures
from ray_local import Cluster, cluster
from ray_scenes import TWIN, Scenes
from report import save
from servers import Server, serving

from prunepool.lab.environment import environment

ROOT = Path(__file__).resolve().parent.parent
MODEL = "deit_tiny_imagenette"
#: The plain server, from the environment of this program.
PROGRAM = (sys.executable, "-c", "from prunepool.cli import main; main()")


def failures(report: dict[str, Any]) -> list[str]:
    """Return the faults of the scenes that ran."""
    scenes = report["scenes"]
    found = []
    if (same := scenes.get("parity")) and (
        same["other_best_label"] or same["other_reduction"] or same["largest_difference_of_a_score"] > 1e-4
    ):
        found.append("answers differ from the plain server's")
    for name in ("killed", "model_changed", "replaced", "by_load"):
        lost = scenes.get(name, {}).get("not_answered", {})
        if set(lost) - ({"overloaded"} if name == "by_load" else set()):
            found.append(f"{name}: {lost}")
    if "by_load" in scenes and [number for _, number in scenes["by_load"]["engines_since"]] != [1, 2, 1]:
        found.append(f"engines by load: {scenes['by_load']['engines_since']}")
    return found


async def play(ours: Cluster, plain: Server, seconds: float, only: Sequence[str]) -> dict[str, Any]:
    """Return the selected scenes, in order."""
    scenes = Scenes(ours, plain, pictures(), seconds)
    every = ("parity", "overhead", "throughput", "killed", "model_changed", "replaced", "by_load")
    found = {}
    for name in every:
        if name in only or not only:
            found[name] = await getattr(scenes, name)()
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Run the scenes and report; exit with 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each load")
    parser.add_argument("--only", nargs="*", default=[], help="scenes; those under load need `throughput`")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        store = Path(made)
        for name in (MODEL, TWIN):
            shutil.copytree(ROOT / "model_store" / MODEL, store / name)
        manifest = store / TWIN / "model.json"
        manifest.write_text(manifest.read_text().replace(f'"name": "{MODEL}"', f'"name": "{TWIN}"'))
        flags = ["--model-store", made, "--model", MODEL, "--dtype", "float32", "--compute-threads", "1"]
        with serving("plain", flags, program=PROGRAM) as plain, cluster(store) as ours:
            ours.engines(1, user_config={"model": MODEL})
            scenes = asyncio.run(play(ours, plain, wanted.seconds, wanted.only))
    report = {
        "ray": ray.__version__,
        "model": MODEL,
        "seconds": wanted.seconds,
        "environment": environment(torch.device("cpu")),
        "scenes": scenes,
    }
    report["failures"] = failures(report)
    if wanted.json:
        save(report, wanted.json)
    print("\n".join(report["failures"]) or "all as it must be")
    sys.exit(bool(report["failures"]))


if __name__ == "__main__":
    main()
