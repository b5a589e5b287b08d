"""Everything that a machine with a GPU is needed for, in one call: tests, speed, decoders, the service.

Each part is a process with a time limit of its own, so that what fails costs its part alone; the report is
written after each. `--device cpu --quick` runs the same in seconds, to see that it would.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
from plot import draw
from report import save

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: The tests that need a GPU.
TESTS = "tests/backends/test_gpu.py"
#: The parts and how long each may take; together under 9 minutes.
PARTS = {"tests": 75, "speed": 200, "decode": 40, "service": 210}


def run(command: Sequence[str], seconds: float, log: Path) -> dict[str, Any]:
    """Run a part; whatever becomes of it is told, and nothing of it is left behind."""
    paths = (ROOT / "service", HERE, HERE.parent)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")]),
    }
    start = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status: int | str = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found: dict[str, Any] = {"status": status, "seconds": time.monotonic() - start}
    if status != 0:
        found["log"] = log.read_text(errors="replace")[-4000:]
    return found


def main() -> int:
    """All parts, or those that are named; 0 if every one of them came to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--quick", action="store_true", help="the form alone, in seconds")
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs; generated ones, if not given")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gpu-check")
    parser.add_argument("--parts", default=",".join(PARTS), help="of them, with commas between")
    flags = parser.parse_args()
    out = flags.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"device": flags.device, "quick": flags.quick, "date": time.strftime("%Y-%m-%d")}
    photos = [] if flags.photos is None else ["--photos", str(flags.photos.resolve())]
    for name in flags.parts.split(","):
        seconds = PARTS[name]
        own = out / f"{name}.json"
        own.unlink(missing_ok=True)
        if name == "tests":
            if flags.photos is not None:
                os.environ["PRUNEPOOL_PHOTOS"] = str(flags.photos.resolve())
            os.environ["PRUNEPOOL_GPU"] = flags.device
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-o",
                "filterwarnings=default",
                "-m",
                "gpu",
                "-rs",
                TESTS,
            ]
        else:
            command = [sys.executable, str(HERE / f"{name}.py"), "--device", flags.device, "--out", str(own)]
            command += ["--seconds", str(seconds - 10), *photos, *(["--quick"] if flags.quick else [])]
        print(f"{name}: at most {seconds} s", flush=True)
        found = run(command, seconds, out / f"{name}.log")
        if own.exists():
            found["report"] = orjson.loads(own.read_bytes())
            own.unlink()
        elif name == "tests":
            found["report"] = (out / "tests.log").read_text(errors="replace").splitlines()[-15:]
        report[name] = found
        save(report, out / "gpu-check.json")
        print(f"{name}: {found['status']} after {found['seconds']:.0f} s\n{found.get('log', '')}", flush=True)
    if report.get("speed", {}).get("report", {}).get("rows"):
        draw(report, out / "gpu-check.png")
    return int(any(report[name]["status"] != 0 for name in flags.parts.split(",")))


if __name__ == "__main__":
    sys.exit(main())
