"""An engine that is stuck, stopped, lost or cannot load a model: what it costs, to the last request."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import zmq
from fleet import TIMEOUT_S, Ended, Fleet, wait

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]

MODEL = "deit_tiny_imagenette"
#: A request that a stuck or stopped engine had is answered by another one, or refused, within this: five heartbeats
#: are missed, and where there is no other engine, one is waited for, for 1 s.
MOVED_S, REFUSED_S = 2.5, 3.5
#: Of a lost device, the engine itself tells.
AT_ONCE_S = 1.0
#: Ten pings are missed, then it is ended; a device that is lost for good fails twice more before that.
ENDED_BY_PARENT_S = 15.0
ENDED_S = 10.0


@pytest.fixture
def start(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Fleet]]:
    """Starts a server of several processes, in a folder with a short path."""
    started: list[Fleet] = []

    def start(*flags: str, **environment: str) -> Fleet:
        started.append(Fleet(root, tmp_path_factory.mktemp("f"), *flags, **environment))
        return started[-1]

    yield start
    for one in started:
        one.parent.kill()
        one.parent.wait()
        one.parent.stdout and one.parent.stdout.close()


@pytest.fixture
def fragile(start: Callable[..., Fleet], tmp_path: Path) -> Fleet:
    """Two engines, of which one stands still when the file `wedge` appears, or loses its device for `lose`."""
    info = tmp_path / "fragile-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[prunepool.backends]\nwedging = wedging_device:make\n")
    backends = Path(__file__).parents[1] / "backends"
    path = [str(tmp_path), str(backends), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return start(
        *("--devices", "wedging:0,wedging:1"),
        PYTHONPATH=os.pathsep.join(part for part in path if part),
        WEDGE=str(tmp_path / "wedge"),
        LOSE_DEVICE=str(tmp_path / "lose"),
    )


@contextmanager
def accounted(server: Fleet) -> Iterator[list[Ended]]:
    """Clients that ask; at the end, the server must have counted exactly what they were answered."""
    before = server.outcomes()
    with server.asking() as answers:
        wait(lambda: len(answers) > 8)
        yield answers
    counted = server.outcomes() - before
    assert counted == Counter("ok" if one.how == 200 else str(one.how) for one in answers)


def slowest(answers: list[Ended]) -> float:
    return max(one.seconds for one in answers)


def appeared(file: Path) -> None:
    """Have the next batch of one engine find a file."""
    file.touch()
    wait(lambda: not file.exists())


def returns(server: Fleet) -> int:
    return sum(line["event"] == "process is back" for line in server.lines())


@pytest.mark.timeout(600)  # three engines are replaced, one after the other
def test_stuck_stopped_and_lost_engines_cost_no_request_and_are_replaced(
    fragile: Fleet, tmp_path: Path
) -> None:
    def replaced(how: Callable[[], object]) -> list[Ended]:
        before = returns(fragile)
        with accounted(fragile) as answers:
            how()
            began = time.time()
            wait(lambda: returns(fragile) > before)
        assert fragile.at("process died") - began < ENDED_BY_PARENT_S
        assert {one.how for one in answers} == {200}
        return answers

    assert slowest(replaced(lambda: appeared(tmp_path / "wedge"))) < MOVED_S
    stopped = fragile.pid("engine-1")
    assert slowest(replaced(lambda: os.kill(stopped, signal.SIGSTOP))) < MOVED_S
    events = Counter(line["event"] for line in fragile.lines())
    assert events["process does not answer and is replaced"] == 2
    assert events["engine does not answer"] >= 2
    assert slowest(replaced(lambda: appeared(tmp_path / "lose"))) < AT_ONCE_S
    assert fragile.sample("engine_up") == 2

    with accounted(fragile) as answers:  # garbage from a stranger
        (address,) = fragile.folder.glob("prunepool-*/engine-0.sock")
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(f"ipc://{address}")
            for frames in ([b"\xc1"], [b""], [b"\x80", b"more"]):
                stranger.send_multipart(frames)
                assert stranger.poll(TIMEOUT_S * 1000)
                stranger.recv_multipart()
        asked = len(answers)
        wait(lambda: len(answers) > asked + 20)
    assert ({one.how for one in answers}, slowest(answers) < AT_ONCE_S) == ({200}, True)


def test_where_all_engines_stand_still_callers_are_told_and_a_sigterm_ends_all(
    fragile: Fleet, tmp_path: Path
) -> None:
    engines = [fragile.pid(name) for name in ("engine-0", "engine-1")]
    with accounted(fragile) as answers:
        for pid in engines:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        wait(lambda: httpx.get(f"{fragile.url}/readyz").status_code == 503)
        assert time.monotonic() - began < MOVED_S
        wait(lambda: answers[-1].how != 200)
        assert httpx.get(f"{fragile.url}/healthz").status_code == 200
        for pid in engines:
            os.kill(pid, signal.SIGCONT)
        wait(lambda: answers[-1].how == 200)
    assert {one.how for one in answers} == {200, "engine_unavailable"}
    assert slowest(answers) < REFUSED_S

    with fragile.asking():
        appeared(tmp_path / "wedge")
        began = time.monotonic()
        fragile.parent.terminate()
        assert fragile.parent.wait(TIMEOUT_S) == 0
        assert time.monotonic() - began < ENDED_S
    assert fragile.left() == []


def test_a_second_sigterm_leaves_nothing(start: Callable[..., Fleet]) -> None:
    server = start("--frontends", "2", "--devices", "cpu,cpu")
    os.kill(server.pid("engine-0"), signal.SIGSTOP)
    os.kill(server.pid("frontend-1"), signal.SIGSTOP)
    server.parent.terminate()
    wait(lambda: any(line["event"] == "draining" for line in server.lines()))
    server.parent.terminate()
    assert server.parent.wait(5.0) == 128 + signal.SIGTERM
    assert server.left() == []


def test_a_drain_without_a_limit_ends_where_nothing_is_to_be_done(start: Callable[..., Fleet]) -> None:
    server = start("--engine", "process", "--drain-timeout-s", "inf")
    server.parent.terminate()
    assert server.parent.wait(ENDED_S) == 0
    assert server.left() == []


def put(root: Path, store: Path, name: str, prefix: str = "") -> Path:
    """Put the embedded model into a store under another name, its labels with a prefix."""
    folder = store / name
    if not folder.exists():
        shutil.copytree(root / "model_store" / MODEL, folder)
    manifest = json.loads((root / "model_store" / MODEL / "model.json").read_text())
    labels = [prefix + label for label in manifest["labels"]]
    (folder / "draft").write_text(json.dumps({**manifest, "name": name, "labels": labels}))
    (folder / "draft").rename(folder / "model.json")
    return folder


def test_a_successor_serves_the_wanted_version_and_what_loads(
    start: Callable[..., Fleet], root: Path, tmp_path: Path
) -> None:
    put(root, tmp_path, MODEL, "old ")
    other = put(root, tmp_path, "other")
    server = start("--engine", "process", "--model-store", str(tmp_path), "--models", "other")

    def classify(model: str) -> Any:
        return httpx.post(f"{server.url}/classify?model={model}", content=server.photo, timeout=TIMEOUT_S)

    def label(model: str) -> str:
        return str(classify(model).json()["predictions"][0]["label"])

    def restart() -> None:
        before = returns(server)
        os.kill(server.pid("engine-0"), signal.SIGKILL)
        wait(lambda: returns(server) > before)
        wait(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)

    server.settle()
    put(root, tmp_path, MODEL, "new ")
    weights = other / json.loads((other / "model.json").read_text())["weights"]["file"]
    shutil.move(weights, tmp_path / "kept")
    restart()
    assert label(MODEL).startswith("old ")
    assert classify("other").status_code == 200  # removed, and still what was wanted
    shutil.copyfile(tmp_path / "kept", weights)
    server.parent.send_signal(signal.SIGHUP)
    wait(lambda: label(MODEL).startswith("new "))
    with (tmp_path / "kept").open("r+b") as file:  # in place: it is the file that engines have open
        file.truncate(1000)
    restart()
    assert label(MODEL).startswith("new ")
    assert (classify("other").status_code, classify("other").json()["code"]) == (503, "engine_unavailable")
    (missing,) = httpx.get(f"{server.url}/readyz").json()["missing"]
    assert missing.startswith("other: could not be loaded: ")
    (failed,) = httpx.get(f"{server.url}/models").json()["failed"]
    assert (failed["name"], failed["why"]) == ("other", missing.removeprefix("other: could not be loaded: "))
    server.parent.send_signal(signal.SIGHUP)
    wait(lambda: classify("other").status_code == 200)
    assert httpx.get(f"{server.url}/readyz").json() == {"ready": True, "missing": []}


def test_one_process_bears_signals_while_it_loads_and_drains_without_a_limit(
    start: Callable[..., Fleet],
) -> None:
    server = start("--drain-timeout-s", "inf")  # SIGHUP and SIGUSR1 came all the while
    server.settle()
    assert httpx.post(f"{server.url}/classify", content=server.photo, timeout=TIMEOUT_S).status_code == 200
    server.parent.terminate()
    assert server.parent.wait(ENDED_S) == 0
