"""No failure of a command repeats the API key that it was given."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr

from prunepool.access import new_key
from prunepool.api.listening import claim
from prunepool.client import AsyncClient, Client
from prunepool.client.connection import ConnectionSettings
from prunepool.settings import Settings
from prunepool.testing import FakeService

Run = Callable[..., Any]
KEY = "pp_" + "Sesame-1234_" * 3 + "abcdefg"


@pytest.fixture
def photos(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for name in ("one", "two"):
        (folder / "photos" / f"{name}.jpg").write_bytes(name.encode())
    return folder / "photos"


@pytest.fixture
def url(photos: Path, run: Run, serving: Any) -> Iterator[str]:
    """A server that requires another key than KEY."""
    run("keys", "create", "alice", "--api-keys-file", "keys.toml")
    with serving(Settings(api_keys_file=Path("keys.toml").resolve()), FakeService()) as found:
        yield found


def test_the_key_has_the_form_of_ours() -> None:
    assert len(KEY) == len(new_key().get_secret_value())


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        held = {"key": KEY}  # a variable that a traceback with locals would show
        structlog.get_logger("prunepool.test").error("it failed", exc_info=error)
        assert held
        raise error

    return fail


def raising_later(error: BaseException) -> Callable[..., Any]:
    async def fail(*_: object, **__: object) -> Any:
        held = {"key": KEY}
        assert held
        raise error

    return fail


BUGS = [
    RuntimeError("a bug"),
    MemoryError(),
    RecursionError("too deep"),
    OSError(5, "Input/output error"),
    KeyError(3),
]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("by_variable", [False, True])
def test_no_failure_repeats_the_key(
    run: Run, url: str, photos: Path, monkeypatch: pytest.MonkeyPatch, debug: bool, by_variable: bool
) -> None:
    if debug:
        monkeypatch.setenv("PRUNEPOOL_LOG_LEVEL", "debug")
    if by_variable:
        monkeypatch.setenv("PRUNEPOOL_API_KEY", KEY)
    key = () if by_variable else ("--api-key", KEY)
    with claim("127.0.0.1", 0) as nobody:
        nowhere = nobody.url
    commands = [
        ("classify", "photos", "--url", url, *key),
        ("classify", "photos", "--url", nowhere, *key),
        ("classify", "photos", "--url", url + "/elsewhere", *key),
        ("classify", "photos", "--url", "http://localhost:99999", *key),
        ("classify", "photos", "--url", f"http://{KEY}:{KEY}@127.0.0.1:1", *key),
        ("classify", "photos", "--url", f"http://{KEY}:{KEY}@{url.removeprefix('http://')}/elsewhere"),
        ("classify", "photos", "--url", "nonsense", *key),
        ("classify", "photos", "--url", url, "--nonsense", *key),
        ("classify", "photos", "--url", url, "--top-k", "none", *key),
        ("classify", "photos", "--url", url, "--device", "cpu", *key),
        ("classify", "photos", "--url", url, "--api-key", KEY + " "),
        ("classify", "photos", "--url", url, "--api-key", KEY + "\n\x1b"),
        ("evaluate", "--images", "photos", "--url", url, *key),
        ("evaluate", "--images", "photos", "--url", nowhere, *key),
        ("evaluate", "--images", "nowhere", "--url", url, *key),
        ("benchmark", "--images", "photos", "--url", url, "--seconds", "0.5", "--rounds", "1", *key),
        ("benchmark", "--images", "nowhere", "--url", url, *key),
        ("benchmark", "--images", "photos", "--url", nowhere, *key),
        ("keys", "revoke", KEY, "--api-keys-file", "keys.toml"),
        ("keys", "create", KEY + KEY, "--api-keys-file", "keys.toml"),
        (KEY,),
    ]
    for words in commands:
        result = run(*words)
        assert result.status in (1, 2), words
        assert "Sesame" not in result.out + result.err, (words, result.err)
        if not debug:
            assert result.err.count("\n") == 1, (words, result.err)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_bug_is_one_line_and_its_traceback_shows_no_variables(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, debug: bool
) -> None:
    monkeypatch.setenv("PRUNEPOOL_API_KEY", KEY)
    monkeypatch.setattr(AsyncClient, "classify", raising_later(error))
    monkeypatch.setattr(Client, "models", raising(error))
    if debug:
        monkeypatch.setenv("PRUNEPOOL_LOG_LEVEL", "debug")
    result = run("classify", "photos", "--url", "http://127.0.0.1:1", "--reduction-ratio", "0.5")
    assert result.status == 1
    assert "Sesame" not in result.out + result.err
    assert debug or result.err.count("\n") == 1 + isinstance(
        error, OSError
    )  # that one is of one image, of two
    result = run("evaluate", "--images", "photos", "--url", "http://127.0.0.1:1")
    assert (result.status, result.out) == (1, "")
    assert "it failed" in result.err, "what is logged is shown"
    assert "Sesame" not in result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("prunepool: ")


def test_a_bug_says_what_and_where_and_with_debug_how_it_came_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunepool.cli.settings.load_settings", lambda flags: 3 / 0)
    run("settings")
    (line,) = run("settings").err.splitlines()
    assert line.startswith("prunepool: internal error: ZeroDivisionError: division by zero ")
    assert "(prunepool/cli/settings.py, line " in line
    assert line.endswith("PRUNEPOOL_LOG_LEVEL=debug shows the traceback")
    monkeypatch.setenv("PRUNEPOOL_LOG_LEVEL", "debug")
    assert "Traceback (most recent call last)" in run("settings").err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "prunepool: there is too little memory (prunepool/"),
        (
            RuntimeError("can't start new thread"),
            "prunepool: the system has no thread left to give: raise the limit",
        ),
    ],
)
def test_a_limit_of_the_machine_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr("prunepool.cli.settings.load_settings", raising(error))
    assert run("settings").err.splitlines()[-1].startswith(said)


def test_a_key_is_no_text_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200, json={"ready": True, "missing": []})

    settings = ConnectionSettings("http://127.0.0.1:1", SecretStr(KEY), 1, 1)
    for key in (KEY, SecretStr(KEY)):
        client = Client("http://127.0.0.1:1", api_key=key, transport=httpx.MockTransport(answer))
        client.readiness()
        assert "Sesame" not in repr(vars(client)) + repr(vars(client._http))
    assert sent == [f"Bearer {KEY}"] * 2
    assert "Sesame" not in repr(settings) + repr(settings.settings())
    with pytest.raises(Exception, match="api_key") as caught:
        ConnectionSettings("http://127.0.0.1:1", KEY + " ", 1, 1).settings()
    assert "Sesame" not in "".join(traceback.format_exception(caught.value))
    assert os.environ.get("PRUNEPOOL_API_KEY") is None
