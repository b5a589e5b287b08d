"""The page and the API's documentation work without a request to anywhere else."""

from __future__ import annotations

import re

import httpx
import pytest


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_everything_that_a_page_loads_is_served_here(http: httpx.AsyncClient, path: str) -> None:
    page = await http.get(path)
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for url in loaded:
        assert "//" not in url
        response = await http.get(httpx.URL(f"http://test{path}").join(url))
        assert response.status_code == 200, url


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_may_load_nothing_from_elsewhere(http: httpx.AsyncClient, path: str) -> None:
    policy = (await http.get(path)).headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert set(" ".join(directives.values()).split()) <= {
        "'self'",
        "'none'",
        "'unsafe-inline'",
        "blob:",
        "data:",
    }


async def test_the_page_runs_no_inline_script(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", page.text)


async def test_the_form_works_without_a_script(http: httpx.AsyncClient) -> None:
    page = (await http.get("/")).text
    assert re.search(r'<form[^>]*action="classify"[^>]*method="post"[^>]*enctype="multipart/form-data"', page)
    names = re.findall(r'<input[^>]*\sname="([^"]+)"', page)
    sent = await http.post("/classify", files={"file": b"photo"}, data={"reduction_ratio": "auto"})
    assert names == ["file", "reduction_ratio"]
    assert sent.status_code == 200


async def test_the_docs_describe_this_server(http: httpx.AsyncClient) -> None:
    assert "/openapi.json" in (await http.get("/docs")).text
