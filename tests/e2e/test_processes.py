"""Real front ends and engines as processes: killed, stopped, and told to leave while they are asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

pytestmark = pytest.mark.e2e

TIMEOUT_S = 60.0
#: What is promised of the death of the only engine: its requests are told so soon, and it is back so soon.
ANSWERED_S, BACK_S = 2.0, 10.0
#: The kernel says when a process ends; nobody has to look.
NOTICED_S = 1.0


class Ended(NamedTuple):
    """How a request ended: its status or error code, how long it took, and when it was over."""

    how: int | str
    seconds: float
    at: float


class Fleet:
    """A server of several processes, in a temporary folder of its own."""

    def __init__(self, root: Path, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.photo = (root / "docs/images/sample.jpg").read_bytes()
        program = str(Path(sys.executable).with_name("prunepool"))
        command = [program, "serve", "--port", "0", "--dtype", "float32", "--log-format", "json"]
        command += ["--model", "deit_tiny_imagenette", *flags]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PRUNEPOOL_")}
        with self.log.open("w") as log:
            self.parent = subprocess.Popen(
                [*command, "--max-batch-size", "4"],
                cwd=root,
                env={**environment, "TMPDIR": str(folder)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.parent.stdout is not None
        found = re.search(r"at (http://\S+)", self.parent.stdout.readline())
        assert found, self.log.read_text()
        self.url = found[1]
        self.processes = [psutil.Process(self.parent.pid)]
        self.processes += self.processes[0].children(recursive=True)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def pid(self, name: str) -> int:
        """Of the latest process in a place."""
        started = [line for line in self.lines() if line["event"] == "process started"]
        pid: int = [line["pid"] for line in started if line["name"] == name][-1]
        return pid

    def with_torch(self) -> set[str]:
        """Of the parent, the front ends and the engines: those that have loaded torch."""
        started = [line["name"] for line in self.lines() if line["event"] == "process started"]
        pids = {"parent": self.parent.pid} | {name: self.pid(name) for name in started}
        return {name for name, pid in pids.items() if "libtorch" in Path(f"/proc/{pid}/maps").read_text()}

    def back(self, name: str) -> bool:
        return any(line["event"] == "process is back" and line["name"] == name for line in self.lines())

    def at(self, event: str) -> float:
        """When something was last logged, in seconds since the epoch."""
        times = [line["timestamp"] for line in self.lines() if line["event"] == event]
        return datetime.fromisoformat(times[-1]).timestamp()

    def descriptors(self) -> dict[str, int]:
        """Open files and sockets of the processes that live on when an engine dies."""
        living = {"parent": self.parent.pid, "frontend-0": self.pid("frontend-0")}
        return {name: psutil.Process(pid).num_fds() for name, pid in living.items()}

    def descriptors_at_rest(self) -> dict[str, int]:
        """The same, once those connections are closed that clients have just left."""
        frontend = psutil.Process(self.pid("frontend-0"))
        wait(lambda: all(one.status == psutil.CONN_LISTEN for one in frontend.net_connections("tcp")))
        return self.descriptors()

    def sample(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=TIMEOUT_S).text
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"prunepool_{name}")
        )

    def left(self) -> list[str]:
        """What it has left behind, once it has ended: files, and processes."""
        alive = psutil.wait_procs(self.processes, timeout=10)[1]
        # Who adopts an orphan may be slow to ask how it ended; it has ended all the same.
        alive = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        files = [*self.folder.glob("prunepool-*"), *self.folder.glob("pymp-*")]
        return [path.name for path in files] + [str(one) for one in alive]

    @contextmanager
    def asking(self, clients: int = 4) -> Iterator[list[Ended]]:
        """Clients that ask without a pause, but for one after an error: how each request ended, and how soon."""
        answers: list[Ended] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                with httpx.Client(base_url=self.url, timeout=TIMEOUT_S) as client:
                    while not over.is_set():
                        start, ended = time.time(), "broken"
                        try:
                            response = client.post("/classify", content=self.photo)
                            ended = response.json().get("code", response.status_code)
                            assert response.status_code != 503 or int(response.headers["retry-after"]) > 0
                        except httpx.TransportError:
                            break
                        finally:
                            now = time.time()
                            answers.append(Ended(ended, now - start, now))
                        if ended != 200:
                            over.wait(0.05)

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            over.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def fleet(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Fleet]]:
    started: list[Fleet] = []

    def start(*flags: str) -> Fleet:
        # The path of a socket may not be long.
        started.append(Fleet(root, tmp_path_factory.mktemp("f"), *flags))
        return started[-1]

    yield start
    for one in started:
        one.parent.kill()
        one.parent.wait()
        one.parent.stdout and one.parent.stdout.close()


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_what_dies_comes_back_and_nothing_is_lost_or_left(fleet: Any) -> None:
    shared_memory = set(Path("/dev/shm").iterdir())
    server: Fleet = fleet("--frontends", "2", "--devices", "cpu,cpu")
    assert server.with_torch() == {"engine-0", "engine-1"}
    with server.asking() as answers:
        wait(lambda: len(answers) > 8)
        os.kill(server.pid("engine-1"), signal.SIGKILL)
        wait(lambda: server.back("engine-1"))
    assert {one.how for one in answers} == {200}
    assert server.sample('requests_total{model="deit_tiny_imagenette",outcome="ok"}') == len(answers)
    assert server.sample("engine_restarts_total") == 1
    with server.asking() as answers:
        os.kill(server.pid("engine-0"), signal.SIGSTOP)
        wait(lambda: len(answers) > 8)
        os.kill(server.pid("engine-0"), signal.SIGCONT)
        assert {one.how for one in answers} == {200}
        os.kill(server.pid("frontend-1"), signal.SIGKILL)
        wait(lambda: server.back("frontend-1"))
        wait(lambda: answers[-1].how == 200)
        server.parent.terminate()
        wait(lambda: answers[-1].how != 200)
    ended = [one.how for one in answers]
    assert set(ended) <= {200, "draining", "broken"}
    assert ended.count("broken") < len(ended)
    assert server.parent.wait(TIMEOUT_S) == 0
    unanswered = [line for line in server.lines() if line["event"] == "request" and line["status"] >= 500]
    assert {line["code"] for line in unanswered} <= {"draining"}
    assert server.left() == []
    assert set(Path("/dev/shm").iterdir()) == shared_memory


def test_the_only_engine_is_missed_and_the_parent_by_nobody(fleet: Any) -> None:
    server: Fleet = fleet("--engine", "process")
    with server.asking() as answers:
        wait(lambda: len(answers) > 4)
    shared_memory, descriptors = set(Path("/dev/shm").iterdir()), server.descriptors_at_rest()
    with server.asking() as answers:
        wait(lambda: len(answers) > 4)
        killed_at = time.time()
        os.kill(server.pid("engine-0"), signal.SIGKILL)
        wait(lambda: server.back("engine-0"))
        back = len(answers)
        wait(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        wait(lambda: len(answers) > back + 8)
    # A successor that is there within a second answers what waited for it; otherwise that is refused.
    assert {one.how for one in answers} <= {200, "engine_unavailable"}
    assert {one.how for one in answers[back + 4 :]} == {200}
    in_flight = [one.at - killed_at for one in answers if one.at - one.seconds < killed_at < one.at]
    assert in_flight
    assert max(in_flight) < ANSWERED_S
    assert server.at("process died") - killed_at < NOTICED_S
    assert server.at("process is back") - killed_at < BACK_S
    wait(lambda: server.descriptors() == descriptors)
    assert set(Path("/dev/shm").iterdir()) == shared_memory
    server.processes += psutil.Process(server.parent.pid).children(recursive=True)
    server.parent.kill()
    server.parent.wait()
    assert server.left() == []
