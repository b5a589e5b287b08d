"""Behind a proxy that serves it under a path: links, documentation and routes work there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import httpx
import pytest

from prunepool.settings import Settings
from prunepool.testing import FakeService

Start = Callable[..., Any]
TRUSTED = {"trusted_proxies": "127.0.0.1"}


def links_of(page: str) -> list[str]:
    return [part.split('"')[0] for part in page.replace("'", '"').split('"/')[1:]]


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"root_path": "/vit"}, {}),
        (TRUSTED, {"X-Forwarded-Prefix": "/vit"}),
        (TRUSTED, {"X-Forwarded-Prefix": "/vit/"}),
        ({**TRUSTED, "root_path": "/other"}, {"X-Forwarded-Prefix": "/vit"}),
    ],
)
def test_everything_works_under_the_prefix(
    live: Start, settings: dict[str, str], headers: dict[str, str]
) -> None:
    server = live(FakeService(), **settings)
    for passed_on in ("", "/vit"):  # whether the proxy strips the prefix or not
        with httpx.Client(base_url=f"{server.url}{passed_on}", headers=headers) as client:
            docs = client.get("/docs")
            assert docs.status_code == 200
            links = links_of(docs.text)
            assert "vit/openapi.json" in links
            assert all(link.startswith("vit/") for link in links)
            for link in links:
                assert client.get(link.removeprefix("vit")).status_code == 200
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/vit"}]
            assert client.get("/").status_code == 200
            assert client.post("/classify", content=b"photo").status_code == 200
            assert client.get("/v2/models/fake").status_code == 200


@pytest.mark.parametrize(
    ("settings", "forwarded"),
    [
        ({}, [["/vit"]]),
        ({"trusted_proxies": "10.0.0.0/8"}, [["/vit"]]),
        (
            TRUSTED,
            [
                ["vit"],
                ['/vit"><script>'],
                ["/a", "/b"],
                ["/a, /b"],
                ["//evil.example"],
                ["/"],
                [""],
                ["/\xff"],
            ],
        ),
    ],
)
def test_a_prefix_that_is_not_trusted_or_no_path_is_ignored(
    live: Start, settings: dict[str, str], forwarded: list[list[str]]
) -> None:
    server = live(FakeService(), **settings)
    for values in forwarded:
        headers = [(b"X-Forwarded-Prefix", value.encode("latin-1")) for value in values]
        docs = httpx.get(f"{server.url}/docs", headers=headers)
        assert "openapi.json" in links_of(docs.text)
        assert "><script>" not in docs.text.replace("<body>", "")


def test_keys_are_needed_under_the_prefix_too(live: Start, tmp_path: Any) -> None:
    (tmp_path / "keys.toml").write_text("")
    server = live(FakeService(), **TRUSTED, root_path="/vit", api_keys_file=tmp_path / "keys.toml")
    for prefix, headers in product(("", "/vit"), ({}, {"X-Forwarded-Prefix": "/vit"})):
        assert httpx.get(f"{server.url}{prefix}/healthz", headers=headers).status_code == 200
        for path in ("/models", "/vit/models", "/vit/healthz", "/static/../models", "/vit/static/../models"):
            found = httpx.get(f"{server.url}{prefix}{path}", headers=headers)
            assert found.status_code == (200 if prefix + path == "/vit/healthz" else 401), (prefix, path)


def test_the_log_and_the_metrics_have_the_path_without_the_prefix(live: Start, log_lines: Any) -> None:
    server = live(FakeService(), root_path="/vit")
    httpx.get(f"{server.url}/vit/healthz")
    httpx.get(f"{server.url}/vit/models")
    assert 'route="/models"' in httpx.get(f"{server.url}/metrics").text
    server.stop()
    server.join()
    assert [line["path"] for line in log_lines() if line["event"] == "request"] == ["/models"]


@pytest.mark.parametrize("wrong", ["vit", "/vit/", "/v it", "//vit", '/"', "/ü"])
def test_a_root_path_that_is_no_path_is_refused(make_settings: Callable[..., Settings], wrong: str) -> None:
    with pytest.raises(ValueError, match="it must be a path like /vit"):
        make_settings(root_path=wrong)
