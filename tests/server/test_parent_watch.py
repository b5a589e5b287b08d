"""A child whose parent is killed ends, whatever state it is in, and somebody removes what the parent had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

PROGRAM = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from prunepool.server.parent_folder import parent_folder
from prunepool.server.parent_watch import die_with_parent, outlive_parent_to_clean_up

def child(connection, kind, folder):
    if kind == "engine":
        die_with_parent()
    else:
        outlive_parent_to_clean_up(Path(folder))
    connection.send(os.getpid())
    connection.recv()  # so that it takes no core from those that are starting
    while True:  # an event loop that is stuck
        pass

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with parent_folder() as folder:
        print(folder, flush=True)
        pipes = []
        for kind in sys.argv[1:]:
            ours, theirs = context.Pipe()
            context.Process(target=child, args=(theirs, kind, str(folder))).start()
            pipes.append(ours)
        pids = [ours.recv() for ours in pipes]
        for ours in pipes:
            ours.send("get stuck")
        print(*pids, flush=True)
        time.sleep(60)
"""


def test_stuck_and_stopped_children_end_with_their_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    kinds = ("engine", "frontend") * 2
    command = [sys.executable, str(program), *kinds]
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as short,  # enough for sockets
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": short}
        ) as parent,
    ):
        assert parent.stdout is not None
        folder = Path(parent.stdout.readline().strip())
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        for one in children[2:]:
            one.send_signal(signal.SIGSTOP)
        assert folder.is_dir()
        parent.kill()
        parent.wait()
        alive = psutil.wait_procs(children, timeout=20)[1]
        alive = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        for one in alive:
            one.kill()
        assert alive == []
        assert not folder.exists()
