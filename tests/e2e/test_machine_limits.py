"""Real processes where the machine has little to give: no room on the disk, few addresses, a log nobody reads."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet import TIMEOUT_S, Fleet, wait

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]


@pytest.fixture
def fleet(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Fleet]]:
    started: list[Fleet] = []

    def start(*flags: str, prefix: tuple[str, ...] = (), **options: Any) -> Fleet:
        # The path of a socket may not be long.
        folder = tmp_path_factory.mktemp("f")
        command = [part.replace("{folder}", str(folder)) for part in prefix]
        started.append(Fleet(root, folder, *flags, prefix=command, **options))
        return started[-1]

    yield start
    for one in started:
        one.parent.kill()
        one.parent.wait()
        one.parent.stdout and one.parent.stdout.close()


#: A small TMPDIR, and few addresses: writing to a mapped page that finds no room on a disk is SIGBUS.
LITTLE_ROOM = 'mount -t tmpfs -o size=2m none {folder} && ulimit -v 40000000 && exec "$@"'


def test_without_room_in_memory_and_on_the_disk_it_serves_and_engines_come_back(fleet: Any) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs a file system of its own, by user namespaces")
    server: Fleet = fleet(
        "--engine",
        "process",
        "--max-queue-requests",
        "100000",
        prefix=("unshare", "-rm", "sh", "-c", LITTLE_ROOM, "sh"),
    )
    filler = Path(f"/proc/{server.parent.pid}/root{server.folder}/filler")
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(4 << 20))
    with server.asking() as answers:
        wait(lambda: len(answers) > 20)
        assert {one.how for one in answers} == {200}
        os.kill(server.pid("engine-0"), signal.SIGKILL)
        wait(lambda: server.back("engine-0"))
        back = len(answers)
        wait(lambda: len(answers) > back + 20)
    assert {one.how for one in answers[back + 4 :]} == {200}
    died = [line["status"] for line in server.lines() if line["event"] == "process died"]
    assert died == [-signal.SIGKILL]
    assert server.sample("requests_total") > 0
    server.parent.terminate()
    assert server.parent.wait(TIMEOUT_S) == 0


def test_a_log_that_nobody_reads_stops_no_process(fleet: Any) -> None:
    """Nor the parent, which sees that an engine comes back and ends all of them."""
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb", buffering=0) as stderr:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while stderr.write(bytes(100)):
                pass
        os.set_blocking(writing, True)
        server: Fleet = fleet("--engine", "process", "--log-level", "debug", stderr=writing)
        engine = next(p for p in server.processes if "libtorch" in Path(f"/proc/{p.pid}/maps").read_text())
        with server.asking() as answers:
            wait(lambda: len(answers) > 20)
            assert {one.how for one in answers} == {200}
            engine.kill()
            engine.wait(TIMEOUT_S)
            killed = len(answers)
            wait(lambda: len(answers) > killed + 20 and answers[-1].how == 200)
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        server.parent.terminate()
        assert server.parent.wait(TIMEOUT_S) == 0
        assert server.left() == []
