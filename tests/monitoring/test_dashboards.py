"""The dashboards are those that their code makes, and each panel shows something of a server under load."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
BOARDS = sorted((ROOT / "docker/grafana/dashboards").glob("*.json"))
MODEL = "deit_tiny_imagenette"
#: Panels that stay empty where there is no GPU.
OF_A_GPU = {"GPU busy, share of time", "GPU memory in use and total", "GPU power draw"}
#: The list that is empty while all is well.
OF_ALERTS = "Alerts that fire now"
PLACES = ("namespace", "job", "instance")


def test_the_committed_dashboards_are_what_the_code_makes(tmp_path: Path) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    subprocess.run([sys.executable, ROOT / "dashboards/generate.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    committed = {path.name: path.read_text() for path in BOARDS}
    assert made == committed, "run `make dashboards` and commit what it writes"


def panels_of(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, those of closed rows too, and the rows."""
    top = json.loads(path.read_text())["panels"]
    return [*top, *(panel for row in top if row["type"] == "row" for panel in row["panels"])]


def panels() -> list[tuple[str, str, list[str]]]:
    """Dashboard, title and queries of each panel that has any."""
    return [
        (path.stem, panel["title"], [target["expr"] for target in panel["targets"]])
        for path in BOARDS
        for panel in panels_of(path)
        if panel["type"] != "row"
    ]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows_and_lies_on_the_grid(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels_of(path):
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_is_of_the_namespace_the_job_and_the_instances_that_were_chosen(path: Path) -> None:
    variables = json.loads(path.read_text())["templating"]["list"]
    assert [one["name"] for one in variables] == ["datasource", "model", *PLACES]
    assert all(one["includeAll"] and one["allValue"] == ".*" for one in variables[2:])
    for panel in panels_of(path):
        for target in panel.get("targets", ()):
            if panel["title"] == OF_ALERTS:  # an alert has the labels that its rule keeps
                continue
            selectors = re.findall(r"\{([^}]*)\}", target["expr"])
            assert selectors
            for selector in selectors:
                assert all(f'{place}=~"${place}"' in selector for place in PLACES), panel["title"]


def test_the_row_of_gpus_is_closed() -> None:
    rows = [
        panel for path in BOARDS for panel in json.loads(path.read_text())["panels"] if panel["type"] == "row"
    ]
    closed = {row["title"]: {panel["title"] for panel in row["panels"]} for row in rows if row["collapsed"]}
    assert closed == {"GPU": OF_A_GPU}


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((320, 240)).save(buffer, "JPEG")
    return buffer.getvalue()


def ask(url: str, image: bytes, i: int) -> int:
    """The status of the answer to an image, at one of five ratios."""
    answer = httpx.post(
        f"{url}/classify",
        params={"reduction_ratio": (0, 0.3, 0.5, 0.755, "auto")[i % 5]},
        content=image,
        headers={"content-type": "image/jpeg"},
        timeout=60,
    )
    return answer.status_code


def wait_for(condition: Any, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds:g} s"
        time.sleep(0.1)


class Queries:
    """Prometheus' HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return [series for series in found if series["value"][1] != "NaN"]

    def ready(self) -> bool:
        """Whether it answers queries; until then it refuses connections, or says 503."""
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def holds(self, expression: str) -> bool:
        return bool(self(expression))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queries]:
    """A real Prometheus with the shipped rules, which scraped a real server while that was busy."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus (Debian package prometheus)")
    here = tmp_path_factory.mktemp("prometheus")
    flags = ["--shadow-sample", "1", "--max-queue-requests", "8"]
    image = jpeg(0)
    with servers().running(ROOT, *flags) as server, running_prometheus(program, here, server.url) as queries:
        wait_for(queries.ready, "Prometheus")
        wait_for(lambda: queries.holds('up{job="prunepool"} == 1'), "scrape")
        with ThreadPoolExecutor(24) as pool:
            # Twice, so that there is a rate; between them the device is idle, when samples are run again.
            for _ in range(2):
                statuses = list(pool.map(lambda i: ask(server.url, image, i), range(60)))
                assert set(statuses) == {200, 503}, "some are answered, and some are refused"
                wait_for(lambda: queries.holds("sum(prunepool_shadow_images_total) > 0"), "second run")
                # The next scrape and the next evaluation see it all.
                seen = httpx.get(f"{server.url}/metrics").text
                images = sum(
                    float(line.split()[-1])
                    for line in seen.splitlines()
                    if line.startswith("prunepool_requests_total")
                )
                wait_for(lambda n=images: queries.holds(f"sum(prunepool_requests_total) >= {n}"), "scrape")
        wait_for(lambda: queries.holds("model_reduction:prunepool_speedup:ratio5m"), "speedup")
        yield queries


def servers() -> Any:
    """The module that starts servers; tests are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("e2e_servers", ROOT / "tests/e2e/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def running_prometheus(program: str, here: Path, target: str) -> Iterator[Queries]:
    """The shipped rules, scraped and evaluated twice a second."""
    for name in ("recording.yml", "alerts.yml"):
        text = (ROOT / "docker/prometheus" / name).read_text()
        (here / name).write_text(text.replace("interval: 15s", "interval: 500ms"))
    (here / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: ['{here}/recording.yml', '{here}/alerts.yml']\n"
        "scrape_configs:\n"
        f"  - {{job_name: prunepool, static_configs: [{{targets: ['{target.removeprefix('http://')}']}}]}}\n"
    )
    with create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program,
        f"--config.file={here}/prometheus.yml",
        f"--storage.tsdb.path={here}/data",
        f"--web.listen-address={address}",
    ]
    with (here / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield Queries(f"http://{address}")
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("board", "title", "expressions"), panels(), ids=[f"{board}: {title}" for board, title, _ in panels()]
)
def test_every_panel_shows_something(
    prometheus: Queries, board: str, title: str, expressions: list[str]
) -> None:
    if title in OF_A_GPU and not prometheus("prunepool_gpu_utilization_ratio"):
        pytest.skip("needs a GPU")
    for expression in expressions:
        filled = expression.replace("$model", MODEL).replace("$__rate_interval", "1m")
        for place in PLACES:
            filled = filled.replace(f"${place}", ".*")
        found = prometheus(filled)
        assert found or title == OF_ALERTS, f"{board}, {title}: {filled} is empty"


@pytest.mark.e2e
def test_what_runs_is_told_with_device_format_and_backend(prometheus: Queries) -> None:
    (found,) = prometheus("prunepool_model_runs > 0")
    (build,) = prometheus("prunepool_build_info")
    labels = found["metric"]
    assert (labels["model"], labels["device"], labels["dtype"]) == (MODEL, "cpu", build["metric"]["dtype"])
    assert labels["backend"] in ("openvino", "pytorch")
