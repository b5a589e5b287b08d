"""The closed loop against a server of another's making."""

from __future__ import annotations

import httpx
import pytest

from prunepool.client import ServerUnreachable
from prunepool.errors import Unauthorized
from prunepool.lab.http_benchmark import HttpBenchmark


async def test_a_server_that_is_not_there_is_named() -> None:
    bench = HttpBenchmark("http://127.0.0.1:9", [b"one"], clients=1, seconds=0.1, phases=1)
    with pytest.raises(ServerUnreachable, match=r"no answer from http://127\.0\.0\.1:9"):
        await bench.run(["0"])


async def test_every_answer_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.params["reduction_ratio"], request.content))
        return httpx.Response(503 if len(seen) % 5 == 0 else 200, json={})

    real = httpx.AsyncClient
    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **given: real(transport=transport, **given))
    bench = HttpBenchmark("http://server/", [b"one", b"two"], clients=2, seconds=0.02, phases=2)
    rows = await bench.run(["0", "auto"])
    assert [row.ratio for row in rows] == ["0", "auto"]
    assert all(row.images > 0 and row.failed > 0 and len(row.phases) == 2 for row in rows)
    assert {ratio for ratio, _ in seen} == {"0", "auto"}
    assert {content for _, content in seen} == {b"one", b"two"}


async def test_a_key_goes_with_every_image_and_a_wrong_one_is_no_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        known = request.headers["authorization"] == "Bearer pp_alice"
        refusal = {"status": 401, "code": "unauthorized", "detail": "not known", "title": "Unauthorized"}
        kind = {"content-type": "application/problem+json"}
        return httpx.Response(200, json={}) if known else httpx.Response(401, json=refusal, headers=kind)

    real = httpx.AsyncClient
    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(httpx, "AsyncClient", lambda **given: real(transport=transport, **given))
    rules = {"clients": 1, "seconds": 0.01, "phases": 1}
    (row,) = await HttpBenchmark("http://server", [b"one"], api_key="pp_alice", **rules).run(["0"])
    assert (row.images > 0, row.failed) == (True, 0)
    with pytest.raises(Unauthorized, match="not known"):
        await HttpBenchmark("http://server", [b"one"], api_key="pp_bob", **rules).run(["0"])
