"""The system knows threads by their names."""

from __future__ import annotations

import _thread
import sys
import threading
from pathlib import Path

import pytest

from prunepool.core.threads import name_thread


@pytest.mark.skipif(sys.platform != "linux", reason="where Linux keeps names")
@pytest.mark.parametrize(("name", "kept"), [("model", "model"), ("a name that is long", "a name that is ")])
def test_the_system_has_the_name_of_a_thread_and_of_those_it_starts(name: str, kept: str) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.append(Path("/proc/thread-self/comm").read_text().rstrip("\n"))

    def item() -> None:
        name_thread(name)
        look()
        # As a library starts one: from 3.14 on, Python itself would name a threading.Thread.
        done = threading.Event()
        _thread.start_new_thread(lambda: (look(), done.set()), ())
        assert done.wait(20)

    thread = threading.Thread(target=item)
    thread.start()
    thread.join()
    assert seen == [kept, kept]
