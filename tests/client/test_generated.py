"""A client generated from the OpenAPI document works with the real server."""

from __future__ import annotations

import importlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from prunepool.access import Key, KeysFile, digest_of
from prunepool.settings import Settings
from prunepool.testing import FakeService

NAME = "openapi-python-client"


@pytest.fixture(scope="module")
def generator(root: Path) -> str:
    found = shutil.which(root / ".venv-interop" / "bin" / NAME)
    if found is None:
        pytest.skip(f"needs {NAME} (make interop)")
    return found


@pytest.fixture(scope="module")
def keyed(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that requires a key."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    KeysFile(path).add(Key("alice", digest_of("pp_alice")))
    with serving(Settings.model_construct(api_keys_file=path), FakeService()) as url:
        yield url


@pytest.fixture(scope="module")
def generated(
    generator: str, keyed: str, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """Generate a client from a server's OpenAPI document, without omissions."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_text(json.dumps(httpx.get(f"{keyed}/openapi.json").json()))
    package = folder / "prunepool_generated"
    config = root / "docs" / "openapi-python-client.yaml"
    command = [generator, "generate", "--path", str(document), "--config", str(config)]
    done = subprocess.run(
        [*command, "--output-path", str(package), "--meta", "none", "--fail-on-warning"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    try:
        yield SimpleNamespace(
            **{
                name.split(".")[-1]: importlib.import_module(f"prunepool_generated.{name}")
                for name in ("models", "types", "client", "api.classify.classify")
            },
            list_models=importlib.import_module("prunepool_generated.api.models.models"),
            model=importlib.import_module("prunepool_generated.api.models.model"),
            readyz=importlib.import_module("prunepool_generated.api.health.readyz"),
        )
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "prunepool_generated"]:
            del sys.modules[name]


@pytest.fixture
def client(generated: Any, keyed: str) -> Iterator[Any]:
    with generated.client.AuthenticatedClient(base_url=keyed, token="pp_alice") as client:
        yield client


def test_an_image(generated: Any, client: Any) -> None:
    image = generated.types.File(payload=io.BytesIO(b"photo"))
    answer = generated.classify.sync(client=client, body=image, reduction_ratio=0.5, top_k=2)
    assert isinstance(answer, generated.models.Classification)
    assert (answer.reduction.applied, len(answer.predictions)) == (0.5, 2)


def test_a_form(generated: Any, client: Any) -> None:
    files = [generated.types.File(io.BytesIO(data), file_name="x") for data in (b"one", b"bad")]
    body = generated.models.ClassifyFilesBody(file=files, reduction_ratio="auto")
    answer = generated.classify.sync(client=client, body=body)
    good, bad = answer.results
    assert isinstance(good, generated.models.Classification)
    assert isinstance(bad, generated.models.Problem)
    assert bad.code == "image_undecodable"


def test_json_and_an_explanation(generated: Any, client: Any) -> None:
    body = generated.models.ClassifyJsonSeveralImages(images=["AAAA"], explain=True)
    (answer,) = generated.classify.sync(client=client, body=body).results
    assert list(answer.token_map.grid) == [14, 14]


def test_an_error(generated: Any, client: Any) -> None:
    image = generated.types.File(payload=io.BytesIO(b"photo"))
    response = generated.classify.sync_detailed(client=client, body=image, top_k=99)
    assert response.status_code == 422
    assert response.parsed.code == "invalid_parameter"
    assert response.parsed.additional_properties["limit"] == "an integer between 1 and 10"


def test_a_wrong_key(generated: Any, keyed: str) -> None:
    with generated.client.AuthenticatedClient(base_url=keyed, token="pp_wrong") as client:
        response = generated.list_models.sync_detailed(client=client)
    assert (response.status_code, response.parsed.code) == (401, "unauthorized")


def test_models_and_health(generated: Any, client: Any, keyed: str) -> None:
    listed = generated.list_models.sync(client=client)
    assert [model.name for model in listed.models] == [listed.default] == ["fake"]
    model = generated.model.sync("fake", client=client)
    assert len(model.labels) == 10
    with generated.client.Client(base_url=keyed) as anonymous:
        assert generated.readyz.sync(client=anonymous).ready is True


async def test_asynchronously(generated: Any, keyed: str) -> None:
    image = generated.types.File(payload=io.BytesIO(b"photo"))
    async with generated.client.AuthenticatedClient(base_url=keyed, token="pp_alice") as client:
        # The generator's asynchronous client cannot send a file, only bytes.
        image.payload = b"photo"
        answer = await generated.classify.asyncio(client=client, body=image)
    assert answer.model == "fake"
