"""Real front ends and engines as processes: killed, stopped, and told to leave while they are asked."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fleet import TIMEOUT_S, Fleet, wait

pytestmark = pytest.mark.e2e

#: What is promised of the death of the only engine: its requests are told so soon, and it is back so soon. A fresh
#: interpreter needs some 5 s of processor time for PyTorch and timm, here on cores that other tests use as well.
ANSWERED_S, BACK_S = 2.0, 25.0
#: The kernel says when a process ends; nobody has to look.
NOTICED_S = 1.0


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


def test_what_dies_comes_back_and_nothing_is_lost_or_left(fleet: Any) -> None:
    shared_memory = set(Path("/dev/shm").iterdir())
    server: Fleet = fleet("--frontends", "2", "--devices", "cpu,cpu")
    assert server.with_torch() == {"engine-0", "engine-1"}
    scores = [server.oom_score_adj(name) for name in ("parent", "frontend-0", "engine-0")]
    assert scores == sorted(set(scores))  # where memory runs out, what comes back most easily ends first
    with server.asking() as answers:
        wait(lambda: len(answers) > 8)
        for one in server.helpers():  # of multiprocessing: nothing that serves needs them
            one.kill()
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
    for name in ("engine-0", "frontend-0"):
        os.kill(server.pid(name), signal.SIGSTOP)
    server.parent.kill()
    server.parent.wait()
    assert server.left() == []
