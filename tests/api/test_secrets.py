"""However a request fails, no line of the log and nothing on the terminal has the key that came with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from raw_http import RawConnection
from starlette.datastructures import Headers
from starlette.requests import Request

from prunepool.access import Key, KeysFile, digest_of
from prunepool.access.keyring import Keyring
from prunepool.api.access import presented_key
from prunepool.api.app import create_app
from prunepool.logs import logging_to
from prunepool.serving.types import Readiness
from prunepool.testing import FakeService

KEY = "pp_secret-of-alice-4711"
BOTH = {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"}
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\n" % KEY.encode()


class Broken(FakeService):
    """Fails in every way that a service can, and in those that it should not."""

    async def classify(self, image: Any, options: Any) -> Any:
        raise RuntimeError("classify is broken")

    async def infer(self, *arguments: Any, **more: Any) -> Any:
        raise RuntimeError("infer is broken")

    def readiness(self) -> Readiness:
        raise RuntimeError("readiness is broken")


def provoke(server: Any, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Have requests with the key fail in every way; return the statuses of the responses."""
    statuses = set()
    with httpx.Client(base_url=server.url, headers=BOTH, timeout=20) as client:
        asked = [
            client.post("/classify", content=b"photo"),
            client.post("/classify", files=[("file", b"one"), ("file", b"two")]),
            client.post("/classify?top_k=0", content=b"photo"),
            client.post("/classify", content=b"x" * 2000),
            client.post("/classify", content=b"photo", headers={"Content-Type": "text/html"}),
            client.post("/v2/models/fake_jpeg/infer", json={"inputs": []}),
            client.post("/v2/models/fake/infer", json=tensor()),
            client.post("/v2/repository/models/fake/unload"),
            client.get("/models"),
            client.get("/models/nope"),
            client.get("/readyz"),
            client.get("/v2/health/ready"),
            client.delete("/classify"),
            client.get("/nope"),
            client.get("/models", headers={"X-API-Key": KEY + "-revoked", "Authorization": ""}),
            client.get("/models", headers={"Authorization": "Bearer another"}),
        ]
        with monkeypatch.context() as patched:
            patched.setattr("prunepool.api.exposition.encoder_for", lambda accept: 1 / 0)
            asked.append(client.get("/metrics"))
            patched.setattr(Keyring, "identify", lambda self, key: 1 / 0)
            asked.append(client.get("/models"))
        statuses |= {response.status_code for response in asked}
    for sent in (
        b"Content-Length: x\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
        b"Content-Length: 100\r\n\r\nphoto",
        b"X: %b" % (b"x" * 40_000),
        b"Host: y\r\n\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ):
        with RawConnection(server.address) as connection:
            response = connection.send(HEAD + sent).response()
            assert response is not None
            statuses.add(response.status)
    with RawConnection(server.address) as connection:
        connection.send(HEAD + b"Content-Length: 100\r\n\r\n")  # and the client is gone
    return statuses


def tensor() -> dict[str, Any]:
    data = [0.0] * (3 * 224 * 224)
    return {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": data}]}


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_failure_shows_a_key(
    live: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    form: Literal["console", "json"],
) -> None:
    file = KeysFile(tmp_path / "keys.toml")
    file.add(Key("alice", digest_of(KEY)))
    stream = StringIO()
    with logging_to(stream, form, "debug"):
        limits = {"max_body_bytes": 1_000_000, "request_timeout_s": 0.3}
        server = live(Broken(), api_keys_file=file.path, model_control="explicit", **limits)
        statuses = provoke(server, monkeypatch)
        server.stop()
        server.join()
    assert {400, 401, 404, 405, 408, 415, 422, 431, 500} <= statuses
    logged = stream.getvalue()
    for broken in ("classify is broken", "infer is broken", "readiness is broken", "division by zero"):
        assert broken in logged, "the failure itself is in the log"
    assert "Traceback" in logged or '"exc_type"' in logged
    if form == "json":
        assert all(json.loads(line) for line in logged.splitlines())
    output = logged + "".join(capfd.readouterr())
    for secret in (KEY, "secret-of-alice", digest_of(KEY).hex(), repr(digest_of(KEY))):
        assert secret not in output


def test_a_key_that_was_read_does_not_show_itself() -> None:
    key = presented_key(Headers(BOTH))
    assert KEY not in f"{key} {key!r} {[key]}"


async def test_nothing_behind_the_check_sees_a_key(
    make_settings: Any, metrics: Any, service: FakeService, connect: Any, tmp_path: Path
) -> None:
    file = KeysFile(tmp_path / "keys.toml")
    file.add(Key("alice", digest_of(KEY)))
    app = create_app(service, make_settings(), metrics, keyring=Keyring(file, lambda: 0.0))
    seen: list[str] = []

    @app.get("/see")
    async def see(request: Request) -> str:
        seen.append(f"{request.scope}")
        return ""

    assert (await connect(app).get("/see", headers=BOTH)).status_code == 200
    assert seen
    assert KEY not in seen[0]
