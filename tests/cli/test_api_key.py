"""Every command that uses a server can send a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prunepool.settings import Settings
from prunepool.testing import FakeService

Run = Callable[..., Any]
COMMANDS = {
    "classify": ("classify", "photos"),
    "evaluate": ("evaluate", "--images", "photos", "--ratios", "0.5"),
    "benchmark": ("benchmark", "--images", "photos", "--ratios", "0", "--seconds", "0.5", "--rounds", "1"),
}


@pytest.fixture
def alice(run: Run) -> str:
    """Alice's key."""
    key: str = run("keys", "create", "alice", "--api-keys-file", "keys.toml").out.strip()
    return key


@pytest.fixture
def url(folder: Path, alice: str, serving: Any) -> Iterator[str]:
    """A server that requires it."""
    (folder / "photos").mkdir()
    for name in ("one", "two"):
        (folder / "photos" / f"{name}.jpg").write_bytes(name.encode())
    with serving(Settings(api_keys_file=folder / "keys.toml"), FakeService()) as found:
        yield found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flag(run: Run, url: str, alice: str, command: str) -> None:
    assert run(*COMMANDS[command], "--url", url, "--api-key", alice).status == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_variable(run: Run, url: str, alice: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEPOOL_API_KEY", alice)
    assert run(*COMMANDS[command], "--url", url).status == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_without_one_the_server_s_error_is_shown(run: Run, url: str, command: str) -> None:
    refused = run(*COMMANDS[command], "--url", url)
    assert refused.status == 1
    assert refused.err.startswith("prunepool: an API key is needed")
