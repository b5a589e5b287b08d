"""`prunepool settings`, and the table in docs/configuration.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunepool.settings import Settings

Run = Callable[..., Any]


def test_every_setting_and_its_value(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEPOOL_PORT", "1234")
    flags = ("--host", "::1", "--trusted-proxies", "10.0.0.1,fd00::/8")
    shown = dict(line.split(maxsplit=1) for line in run("settings", *flags).out.splitlines())
    assert shown["trusted_proxies"] == "10.0.0.1/32, fd00::/8"
    assert set(shown) == set(Settings.model_fields)
    assert (shown["port"], shown["host"], shown["max_reduction_ratio"]) == ("1234", "::1", "unset")


def test_the_documentation_has_every_setting(run: Run, root: Path) -> None:
    table = run("settings", "--markdown").out
    assert table in (root / "docs" / "configuration.md").read_text(), (
        "write the output of `prunepool settings --markdown` into docs/configuration.md"
    )
    assert table.count("\n") == 2 + len(Settings.model_fields)
