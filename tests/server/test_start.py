"""A start that is interrupted: Ctrl-C goes to every process of a terminal, at any moment."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

from prunepool.server.parent import _unless

PROGRAM = """
import multiprocessing, signal
from prunepool.server.spawning import start

def say():
    print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=say)
    start(process)
    process.join()
    print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), flush=True)
"""


def test_no_process_can_be_interrupted_before_it_ignores_signals(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    child, parent = done.stdout.splitlines()
    assert all(f"<Signals.{name}:" in child for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"))
    assert parent == "[]"


async def test_what_an_interrupted_start_fails_of_is_no_news() -> None:
    news: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: news.append(context))
    stopped, ended = asyncio.Event(), asyncio.Event()

    async def starting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
            raise RuntimeError("the process has ended before it was ready")

    waiting = asyncio.create_task(_unless(stopped, starting()))
    await asyncio.sleep(0)
    stopped.set()
    assert not await waiting
    assert ended.is_set()
    gc.collect()
    assert not news
