"""Many bodies at once, each within its limit: the process holds no more of them than it may."""

from __future__ import annotations

import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.e2e

TIMEOUT_S = 60.0
MIB = 2**20
ROOM, BODY, CLIENTS = 32 * MIB, 6 * MIB, 24
CHUNK = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"


def send_most_of_a_body(connection: socket.socket) -> str:
    """The status that comes before the body is complete; nothing where the server goes on waiting."""
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    try:
        connection.sendall(head)
        for _ in range(BODY // MIB):
            connection.sendall(CHUNK)
        connection.settimeout(2)
        return connection.recv(100).split()[1].decode()
    except TimeoutError:
        return "waiting"
    except ConnectionError:
        return "503"  # it was answered, and closed before all was sent


def test_a_flood_of_bodies(start: Any, root: Path) -> None:
    with start("--max-buffered-bytes", str(ROOM)) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        process = psutil.Process(server.process.pid)
        photo = (root / "docs/images/sample.jpg").read_bytes()
        assert httpx.post(f"{server.url}/classify", content=photo, timeout=TIMEOUT_S).status_code == 200
        before = process.memory_info().rss
        connections = [socket.create_connection(address, timeout=TIMEOUT_S) for _ in range(CLIENTS)]
        try:
            with ThreadPoolExecutor(CLIENTS) as pool:
                ended = Counter(pool.map(send_most_of_a_body, connections))
            grown = process.memory_info().rss - before
            figures = httpx.get(f"{server.url}/metrics", timeout=TIMEOUT_S).text
            held = float(re.findall(r"^prunepool_body_bytes (\S+)", figures, re.MULTILINE)[0])
            small = httpx.post(f"{server.url}/classify", content=photo, timeout=TIMEOUT_S)
        finally:
            for connection in connections:
                connection.close()
        print(
            f"{CLIENTS} bodies of {BODY // MIB} MiB: {dict(ended)}, {held / MIB:.0f} held, {grown / MIB:+.0f} MiB"
        )
        assert 0 < ended["waiting"] <= ROOM // BODY
        assert ended["waiting"] + ended["503"] == CLIENTS
        assert held == ended["waiting"] * BODY
        assert small.status_code == 200
        # Beside the bodies, each connection has a buffer of its own, and the allocator keeps some.
        assert grown < 2 * ROOM
