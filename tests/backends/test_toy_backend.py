"""A backend that a package of somebody else registers runs the whole service, over real HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from prunepool.backends import registry
from prunepool.backends.registry import BackendOptions

HERE = Path(__file__).parent
TIMEOUT_S = 60.0
Serve = Callable[..., "Server"]


class Server(NamedTuple):
    """A running `prunepool serve`, where it is, and the line that it announced itself with."""

    process: subprocess.Popen[str]
    url: str
    announced: str


ENTRY_POINTS = """\
[prunepool.backends]
toy = toy_backend:make
losable = lost_device:make
"""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path with these files on it as an installed package."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    path = [str(folder), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(part for part in path if part)


@contextmanager
def serving(root: Path, packages: str, log: Path, *flags: str, **environment: str) -> Iterator[Server]:
    program = str(Path(sys.executable).with_name("prunepool"))
    command = [program, "serve", "--port", "0", "--model", "deit_tiny_imagenette"]
    mine = {k: v for k, v in os.environ.items() if not k.startswith("PRUNEPOOL_")}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *flags],
            cwd=root,
            env={**mine, "PYTHONPATH": packages, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://\S+)", line)
        assert found, f"the server ended before it served: {log.read_text()}"
        yield Server(process, found[1], line)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
        process.stdout.close()


@pytest.fixture
def serve(root: Path, packages: str, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda *flags, **environment: stack.enter_context(
            serving(root, packages, tmp_path / "log", *flags, **environment)
        )


@pytest.fixture(scope="session")
def photos(root: Path) -> list[bytes]:
    samples = root / "service/prunepool/api/static/samples"
    return [file.read_bytes() for file in sorted(samples.glob("*.jpg"))]


def classify(url: str, photo: bytes, ratio: float) -> dict[str, Any]:
    parameters = {"reduction_ratio": str(ratio), "top_k": "10"}
    response = httpx.post(f"{url}/classify", content=photo, params=parameters, timeout=TIMEOUT_S)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_it_serves_batches_of_mixed_ratios(serve: Serve, photos: list[bytes]) -> None:
    url = serve("--device", "toy").url
    wanted = [(photos[i % len(photos)], i / 20) for i in range(16)]  # no two of one ratio
    alone = [classify(url, *one) for one in wanted]
    with ThreadPoolExecutor(len(wanted)) as pool:
        together = list(pool.map(lambda one: classify(url, *one), wanted))
    for (_, ratio), answer, own in zip(wanted, together, alone, strict=True):
        assert answer["predictions"] == own["predictions"]
        assert answer["reduction"]["tokens"] == [197, 197 - int(ratio * 196)]
    assert max(answer["batch_size"] for answer in together) > 1
    assert len({str(answer["predictions"]) for answer in alone}) > 4
    assert httpx.get(f"{url}/models/deit_tiny_imagenette").json()["device"] == "toy"


def test_a_process_whose_device_is_lost_says_so_and_ends(
    serve: Serve, photos: list[bytes], tmp_path: Path
) -> None:
    lose = tmp_path / "lose"
    process, url, _ = serve("--device", "losable", LOSE_DEVICE=str(lose))
    assert httpx.get(f"{url}/healthz").status_code == 200
    lose.touch()
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(httpx.post, f"{url}/classify", content=photos[0], timeout=TIMEOUT_S)
        seen = set()
        while process.poll() is None:
            try:
                seen.add(httpx.get(f"{url}/healthz", timeout=TIMEOUT_S).status_code)
            except httpx.TransportError:
                continue  # it is ending
        assert lost.result().status_code == 503
    assert process.wait(TIMEOUT_S) == 1
    assert seen == {200, 503}
    (last,) = (tmp_path / "log").read_text().splitlines()[-1:]
    assert last == (
        "prunepool: the engine does not recover in this process: deit_tiny_imagenette: 2 restarts in a row failed,"
        " the last with RuntimeError: CUDA error: an illegal memory access was encountered"
    )


def test_an_engine_process_whose_device_is_lost_is_replaced_and_decides_nothing_anew(
    serve: Serve, photos: list[bytes], tmp_path: Path
) -> None:
    lose = tmp_path / "lose"
    url = serve("--device", "losable", "--engine", "process", LOSE_DEVICE=str(lose)).url
    classify(url, photos[0], 0.5)
    decided = dtype(url)
    lose.touch()
    while True:
        response = httpx.post(f"{url}/classify", content=photos[0], timeout=TIMEOUT_S)
        if response.status_code == 200 and not lose.exists():
            break
        assert response.json()["code"] == "engine_unavailable"
        time.sleep(0.05)
    log = (tmp_path / "log").read_text()
    assert "the engine does not recover in this process" in log
    assert "2 restarts in a row failed" in log  # it was found to be lost, not to hang
    assert dtype(url) == decided


def test_what_one_engine_decides_holds_for_all(serve: Serve, tmp_path: Path) -> None:
    server = serve("--devices", "losable:0,losable:1", LOSE_DEVICE=str(tmp_path / "lose"))
    assert re.fullmatch(
        rf"prunepool \S+ serves deit_tiny_imagenette on losable:0,losable:1 in {dtype(server.url)} at .*\n",
        server.announced,
    )


def dtype(url: str) -> str:
    return str(httpx.get(f"{url}/models/deit_tiny_imagenette", timeout=TIMEOUT_S).json()["dtype"])


def test_a_device_type_that_nobody_registered_is_refused(tmp_path: Path) -> None:
    options = BackendOptions("abacus", "auto", 1, 0, False, False, tmp_path)
    with pytest.raises(LookupError, match="no backend is registered for the device 'abacus'"):
        registry.find(options)
