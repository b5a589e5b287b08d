"""The examples of docs/clients.md run as they stand there."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from prunepool import build
from prunepool.api.server import bind, url_of
from prunepool.metrics import Metrics
from prunepool.settings import Settings
from prunepool.testing import FakeEngine

PATIENCE_S = 20.0


def test_every_example_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    page = (root / "docs" / "clients.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    server = build.create_server(Settings.model_construct(), FakeEngine(), Metrics(CollectorRegistry()))
    bound = bind("127.0.0.1", 0)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve_until_signal(bound, ready.set)))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        names: dict[str, Any] = {}
        for example in examples:
            exec(example.replace("http://127.0.0.1:8000", url_of(bound)), names)
    finally:
        server.stop("test")
        thread.join(PATIENCE_S)
    out = capsys.readouterr().out
    assert "reduction_ratio must be auto or a number between 0 and 0.8724; got 0.9" in out
    assert "True ['fake']" in out
    assert "docs/images/sample.jpg class" in out
