"""The examples in docs/clients.md run, each by itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from prunepool.settings import Settings
from prunepool.testing import FakeService


def test_every_example_runs(
    serving: Any, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    page = (root / "docs" / "clients.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 5
    with serving(Settings.model_construct(), FakeService()) as url:
        for example in examples:
            exec(example.replace("http://127.0.0.1:8000", url), {})
    out = capsys.readouterr().out
    assert "reduction_ratio must be auto or a number between 0 and 0.8724; got 0.9" in out
    assert "True ['fake']" in out
    assert "docs/images/sample.jpg class" in out
