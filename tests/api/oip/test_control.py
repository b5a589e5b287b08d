"""Loading and unloading models: the calls to the model control, and who may make them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from prunepool.access import Key, Keyring, KeysFile, digest_of
from prunepool.api.app import create_app
from prunepool.errors import ModelNotFound
from prunepool.metrics import Metrics
from prunepool.testing import FakeService, fake_model

LOAD, UNLOAD = "/v2/repository/models/b/load", "/v2/repository/models/a/unload"


class Control:
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def loadable(self) -> tuple[str, ...]:
        return ("a", "b")

    async def load(self, name: str) -> None:
        if name not in self.loadable():
            raise ModelNotFound(f"no model named {name!r} can be served")
        self.calls.append(("load", name))

    async def unload(self, name: str) -> None:
        self.calls.append(("unload", name))


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def make(make_settings: Any, metrics: Metrics, connect: Any, control: Control) -> Callable[..., Any]:
    """A client of an app whose models can be controlled."""

    def make(keyring: Keyring | None = None) -> httpx.AsyncClient:
        service = FakeService([fake_model("a")])
        return connect(create_app(service, make_settings(), metrics, keyring=keyring, control=control))

    return make


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("models/b/load", ("load", "b")),
        ("models/a_jpeg/load", ("load", "a")),
        ("models/b_jpeg/load", ("load", "b")),
        ("models/a/unload", ("unload", "a")),
        ("models/a_jpeg/unload", ("unload", "a")),
    ],
)
async def test_a_model_is_found_by_its_name_or_that_of_a_view(
    make: Any, control: Control, path: str, asked: tuple[str, str]
) -> None:
    response = await make().post(f"/v2/repository/{path}")
    assert response.status_code == 200
    assert control.calls == [asked]


@pytest.mark.parametrize("path", ["models/nope/load", "models/nope/unload", "models/nope_jpeg/load"])
async def test_an_unknown_model_is_refused(make: Any, control: Control, path: str) -> None:
    response = await make().post(f"/v2/repository/{path}")
    assert response.status_code == 404
    assert f"'{path.split('/')[1]}'" in response.json()["error"]
    assert not control.calls


async def test_models_that_can_be_loaded_are_listed(make: Any) -> None:
    http = make()
    listed = (await http.post("/v2/repository/index")).json()
    assert [(one["name"], one["state"], one["reason"]) for one in listed] == [
        ("a", "READY", ""),
        ("a_jpeg", "READY", ""),
        ("b", "UNAVAILABLE", "unloaded"),
    ]
    ready = (await http.post("/v2/repository/index", json={"ready": True})).json()
    assert [one["name"] for one in ready] == ["a", "a_jpeg"]


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
async def test_a_page_from_elsewhere_is_refused(make: Any, control: Control, path: str) -> None:
    http = make()
    refused = await http.post(path, headers={"Origin": "https://elsewhere.example"})
    assert refused.status_code == 403
    assert "elsewhere.example" in refused.json()["error"]
    assert not control.calls
    own = await http.post(path, headers={"Origin": "http://test"})
    assert own.status_code == 200


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
async def test_a_key_must_be_an_admin_s(make: Any, control: Control, path: str, tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.toml")
    file.add(Key("alice", digest_of("one")))
    file.add(Key("root", digest_of("two"), admin=True))
    http = make(Keyring(file, lambda: 0.0))
    assert (await http.post(path)).status_code == 401
    refused = await http.post(path, headers={"X-API-Key": "one"})
    assert refused.status_code == 403
    assert "'alice'" in refused.json()["error"]
    assert not control.calls
    assert (await http.post(path, headers={"X-API-Key": "two"})).status_code == 200
    assert len(control.calls) == 1
