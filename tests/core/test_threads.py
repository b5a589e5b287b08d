"""The system knows threads by their names."""

from __future__ import annotations

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
        child = threading.Thread(target=look)
        child.start()
        child.join()

    thread = threading.Thread(target=item)
    thread.start()
    thread.join()
    assert seen == [kept, kept]
