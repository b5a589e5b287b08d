"""One scrape for all processes: nothing twice, and nothing lost with a process that dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from prunepool.metrics import Metrics

#: A process of its own, for prometheus_client keeps its files for as long as a process lives.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from prometheus_client import generate_latest
from prunepool.server.metrics_files import expose, shared_metrics

folder, name, images, served, last = sys.argv[1:]
folder, images, served = Path(folder), int(images), served.split()
metrics = shared_metrics(folder, name)
expose(metrics, folder, lambda: served)
for model in ("a", "b"):
    metrics.requests.labels(model, "ok").inc(images)
    metrics.batch_size.labels(model).observe(images)
    metrics.engine_up.labels(model).set(1)
metrics.bind(metrics.auto_ratio.labels("a"), lambda: images / 10)
print(generate_latest(metrics.exposed).decode(), flush=True)
if last == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(folder: Path, name: str, images: int, served: str = "a b", last: str = "ends") -> dict[str, float]:
    """Let a process count, and have it scraped; the samples, by name and model."""
    command = [sys.executable, "-c", PROGRAM, str(folder), name, str(images), served, last]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (-signal.SIGKILL if last == "dies" else 0), done.stderr
    return {
        f"{sample.name} {sample.labels.get('model')} {sample.labels.get('le', '')}".strip(): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }


def test_every_gauge_says_what_becomes_of_it(metrics: Metrics) -> None:
    modes = {
        name: gauge._multiprocess_mode for name, gauge in vars(metrics).items() if isinstance(gauge, Gauge)
    }
    assert modes
    assert {name for name, mode in modes.items() if not mode.startswith("live")} == set()


def test_counters_go_on_and_gauges_do_not_when_a_process_dies(tmp_path: Path) -> None:
    from prunepool.server.metrics_files import forget_gauges

    assert run(tmp_path, "engine-0", 2, last="dies")["prunepool_requests_total a"] == 2
    both = run(tmp_path, "engine-1", 3)
    assert both["prunepool_requests_total a"] == 5
    assert both["prunepool_batch_size_count a"] == 2
    assert both["prunepool_batch_size_sum a"] == 5
    assert both["prunepool_engine_up a"] == 2
    assert both["prunepool_auto_reduction_ratio a"] == pytest.approx(0.3)
    forget_gauges(tmp_path, "engine-0")
    forget_gauges(tmp_path, "engine-1")
    successor = run(tmp_path, "engine-0", 10, served="a")
    assert successor["prunepool_requests_total a"] == 15
    assert successor["prunepool_engine_up a"] == 1
    assert successor["prunepool_requests_total b"] == 15
    assert "prunepool_engine_up b" not in successor
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None


#: More series than a file has room for at first, on a disk without room for more.
MANY = """
import resource, sys
from pathlib import Path
from prometheus_client import generate_latest
from prunepool.server.metrics_files import expose, shared_metrics

folder, series = Path(sys.argv[1]), int(sys.argv[2])
filler = folder / "filler"
if "full" in sys.argv:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
metrics = shared_metrics(folder, "engine-0")
expose(metrics, folder, lambda: ["m"])
if "full later" in sys.argv:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
for number in range(series):
    metrics.requests.labels("m", str(number)).inc()
    metrics.engine_up.labels("m").set(1)
seen = generate_latest(metrics.exposed).decode().count("prunepool_requests_total{")
holes = [p.name for p in folder.glob("*.db") if p.stat().st_blocks * 512 < p.stat().st_size]
print(seen, *holes, *(p.name for p in folder.glob("*.new")))
"""


def series_seen(folder: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Series that a scrape shows, and what the process said on standard error; no file has a hole."""
    command = [*prefix, sys.executable, "-c", MANY, *map(str, (folder, *arguments))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    seen, *holes = done.stdout.splitlines()[-1].split()
    assert not holes
    return int(seen), done.stdout + done.stderr


def test_files_are_reserved_before_they_are_mapped_and_grow(tmp_path: Path) -> None:
    """A page of a mapped file that finds no room on the disk would end the process by SIGBUS."""
    assert series_seen(tmp_path, 1500)[0] == 1500


def test_series_that_find_no_room_stop_nothing_and_one_line_says_so(tmp_path: Path) -> None:
    seen, said = series_seen(tmp_path, 1500, "full later")
    assert 100 < seen < 1500
    assert said.count("series find no room on the disk") == 1


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=256k none {tmp_path} && exec "$@"'
    unshare = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("needs a file system of its own, by user namespaces")
    seen, said = series_seen(tmp_path, 10, "full", prefix=unshare)
    assert seen == 0
    assert said.count("series find no room on the disk") == 1
