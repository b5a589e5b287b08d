"""`prunepool keys`: create, list, revoke; and a real server that reloads them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from prunepool.access import KeysFile, Rate, digest_of

Run = Callable[..., Any]
FILE = ("--api-keys-file", "keys.toml")
SERVER = Path(__file__).with_name("held_server.py")


def test_a_key_is_shown_once_and_kept_as_its_hash(run: Run, folder: Path) -> None:
    result = run("keys", "create", "alice", *FILE)
    assert result.status == 0
    key = result.out.strip()
    assert re.fullmatch(r"pp_[A-Za-z0-9_-]{43}", key)
    assert "cannot be shown again" in result.err
    assert key not in result.err
    (kept,) = KeysFile(folder / "keys.toml").read().values()
    assert (kept.name, kept.digest, kept.rate) == ("alice", digest_of(key), None)
    assert kept.created is not None


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (("--rate", "50/s"), Rate(50, 50)),
        (("--rate", "50"), Rate(50, 50)),
        (("--rate", "90/min"), Rate(1.5, 1.5)),
        (("--rate", "36/h", "--burst", "7"), Rate(0.01, 7)),
    ],
)
def test_a_key_with_a_rate(run: Run, folder: Path, given: tuple[str, ...], rate: Rate) -> None:
    assert run("keys", "create", "alice", *given, *FILE).status == 0
    assert KeysFile(folder / "keys.toml").read()["alice"].rate == rate


def test_the_list_has_no_hashes(run: Run, folder: Path) -> None:
    run("keys", "create", "alice", "--rate", "50/s", "--burst", "100", *FILE)
    run("keys", "create", "bob", *FILE)
    shown = run("keys", "list", *FILE).out
    assert re.search(r"alice +50 images a second, 100 at once +\d{4}-\d\d-\d\d", shown)
    assert re.search(r"bob +no limit", shown)
    listed = json.loads(run("keys", "list", "--json", *FILE).out)
    assert [(key["name"], key["rate"], key["burst"]) for key in listed] == [
        ("alice", 50, 100),
        ("bob", None, None),
    ]
    for key in KeysFile(folder / "keys.toml").read().values():
        assert key.digest.hex() not in shown


def test_a_revoked_key_is_removed(run: Run, folder: Path) -> None:
    run("keys", "create", "alice", *FILE)
    run("keys", "create", "bob", *FILE)
    assert run("keys", "revoke", "alice", *FILE).status == 0
    assert set(KeysFile(folder / "keys.toml").read()) == {"bob"}


def test_the_file_in_the_settings_is_used(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEPOOL_API_KEYS_FILE", "elsewhere.toml")
    assert run("keys", "create", "alice").status == 0
    assert (folder / "elsewhere.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "alice"), "no file of keys: set --api-keys-file or PRUNEPOOL_API_KEYS_FILE"),
        (("create", "a b", *FILE), "NAME must be 1 to 64 letters, digits, - and _; got 'a b'"),
        (("create", "alice", "--rate", "fast", *FILE), "--rate must be like 50/s"),
        (("create", "alice", "--rate", "0/s", *FILE), "rate must be above 0 images a second; got 0"),
        (("create", "alice", "--rate", "-1/s", *FILE), "--rate must be like 50/s"),
        (("create", "alice", "--burst", "5", *FILE), "burst needs a rate"),
        (("create", "alice", "--rate", "5/s", "--burst", "0", *FILE), "burst must be at least 1 image"),
        (("create", "alice", "--rate", "5/s", "--burst", "x", *FILE), "--burst must be a number of images"),
        (("list", *FILE), "No such file or directory"),
        (("revoke", "alice", *FILE), "No such file or directory"),
    ],
)
def test_a_wrong_call_is_one_line(run: Run, refused: Any, folder: Path, arguments: Any, said: str) -> None:
    assert said in refused(run("keys", *arguments))
    assert not (folder / "keys.toml").exists()


def test_a_name_in_use_is_refused(run: Run, refused: Any) -> None:
    run("keys", "create", "alice", *FILE)
    assert "NAME must be one that keys.toml does not have yet" in refused(
        run("keys", "create", "alice", *FILE)
    )


def test_a_folder_that_is_not_there_is_one_line(run: Run) -> None:
    result = run("keys", "create", "alice", "--api-keys-file", "nowhere/keys.toml")
    assert (result.status, result.out) == (1, "")
    assert result.err == "prunepool: nowhere/keys.toml cannot be written: No such file or directory\n"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "(No such file or directory)"), ("alice = 1\n", "('alice': it must be { sha256")],
)
def test_a_server_does_not_start_with_unreadable_keys(folder: Path, text: str | None, said: str) -> None:
    if text is not None:
        (folder / "keys.toml").write_text(text)
    command = [sys.executable, str(SERVER), "serve", "--port", "0", *FILE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("prunepool: api_keys_file must be a file of keys that can be read")
    assert said in line


@contextmanager
def serving(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real `prunepool serve` over an engine of the tests, and where it is."""
    with subprocess.Popen(
        [sys.executable, str(SERVER), "serve", "--port", "0", "--log-format", "json", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        try:
            yield process, found.group()
        finally:
            process.kill()


@pytest.mark.e2e
def test_sighup_makes_the_server_reload_its_keys(run: Run, folder: Path) -> None:
    alice = run("keys", "create", "alice", *FILE).out.strip()
    with serving(*FILE) as (process, url):

        def asked_with(key: str) -> int:
            return httpx.get(f"{url}/models", headers={"X-API-Key": key}).status_code

        assert asked_with(alice) == 200
        bob = run("keys", "create", "bob", *FILE).out.strip()
        run("keys", "revoke", "alice", *FILE)
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "API keys reloaded":
                break
        assert (asked_with(bob), asked_with(alice)) == (200, 401)
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.e2e
def test_a_server_notices_a_change_by_itself(run: Run, folder: Path) -> None:
    alice = run("keys", "create", "alice", *FILE).out.strip()
    with (
        serving(*FILE, "--log-level", "error") as (process, url),  # nobody reads the lines
        httpx.Client(base_url=url, headers={"X-API-Key": alice}) as client,
    ):
        assert client.get("/models").status_code == 200
        run("keys", "revoke", "alice", *FILE)
        while client.get("/models").status_code == 200:
            pass
        assert client.get("/models").status_code == 401
        process.terminate()
        assert process.wait(30) == 0
