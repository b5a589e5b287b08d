"""The page and the API documentation load nothing from other servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from prunepool.api.page import PageFiles

STATIC = Path(str(files("prunepool.api"))) / "static"
MODULES = sorted(path.name for path in (STATIC / "js").glob("*.js"))


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
async def test_the_page_loads_nothing_from_other_origins(http: httpx.AsyncClient, path: str) -> None:
    policy = (await http.get(path)).headers["content-security-policy"]
    directives = {
        name: sources for name, _, sources in (part.strip().partition(" ") for part in policy.split(";"))
    }
    assert directives["default-src"] == "'none'"
    assert directives["base-uri"] == "'none'"
    assert directives["frame-ancestors"] == "'none'"
    allowed = {"'self'", "'none'", "'unsafe-inline'", "'script'", "blob:", "data:"}
    assert set(" ".join(directives.values()).split()) <= allowed


async def test_the_page_runs_no_inline_script_or_style(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "form-action 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page.text)


@pytest.mark.parametrize("path", ["/", "/docs", "/static/js/main.js", "/static/samples/church.jpg"])
async def test_responses_forbid_sniffing_and_referrers(http: httpx.AsyncClient, path: str) -> None:
    headers = (await http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/static/js/main.js", "/static/css/theme.css"])
async def test_a_cached_file_is_sent_again_only_if_it_changed(http: httpx.AsyncClient, path: str) -> None:
    first = await http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    known = await http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    changed = await http.get(path, headers={"If-None-Match": '"of an older release"'})
    assert (changed.status_code, changed.content) == (200, first.content)


@pytest.mark.parametrize("path", ["/", "/static/js/main.js"])
@pytest.mark.parametrize("value", ["bytes=0-9", "bytes=5-2", "bytes=99999999-", "items=0-1", "bytes=0-1,3-4"])
@pytest.mark.parametrize("condition", [{}, {"If-Range": "x"}, {"If-Range": "Thu, 01 Jan 1970 00:00:00 GMT"}])
async def test_a_file_is_sent_whole_whatever_part_is_asked_for(
    http: httpx.AsyncClient, path: str, value: str, condition: dict[str, str]
) -> None:
    whole = await http.get(path)
    asked = await http.get(path, headers={"Range": value, **condition})
    assert (asked.status_code, asked.content) == (200, whole.content)
    assert "accept-ranges" not in asked.headers


async def test_a_change_is_noticed_even_if_size_and_time_are_equal(tmp_path: Path) -> None:
    served = httpx.ASGITransport(PageFiles(directory=tmp_path))
    tags = []
    async with httpx.AsyncClient(transport=served, base_url="http://test") as client:
        for text in ("one", "two"):
            (tmp_path / "a.js").write_text(text)
            os.utime(tmp_path / "a.js", (0, 0))
            tags.append((await client.get("/a.js")).headers["etag"])
    assert tags[0] != tags[1]


async def test_a_file_is_read_again_only_if_it_has_changed(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    whole = Path.read_bytes

    def counting(self: Path) -> bytes:
        read.append(self)
        return whole(self)

    monkeypatch.setattr(Path, "read_bytes", counting)
    tags = {(await http.head("/static/docs/swagger-ui-bundle.js")).headers["etag"] for _ in range(3)}
    assert len(tags) == 1
    assert len(read) <= 1


async def test_the_page_answers_head(http: httpx.AsyncClient) -> None:
    asked = await http.head("/")
    assert (asked.status_code, asked.content) == (200, b"")


async def test_no_other_file_is_served(http: httpx.AsyncClient) -> None:
    for path in ("/static/../page.py", "/static/%2e%2e/page.py", "/static/js/", "/static/absent.js"):
        assert (await http.get(path)).status_code == 404, path


@pytest.mark.parametrize("module", MODULES)
async def test_a_module_is_a_script_that_imports_its_neighbours_only(
    http: httpx.AsyncClient, module: str
) -> None:
    served = await http.get(f"/static/js/{module}")
    assert "javascript" in served.headers["content-type"]
    imported = re.findall(r'from "([^"]+)"', served.text)
    assert {name.removeprefix("./") for name in imported} <= set(MODULES)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|https?://(?!www\.w3\.org)",
        served.text,
    )


async def test_every_element_that_a_script_looks_for_is_on_the_page(http: httpx.AsyncClient) -> None:
    page = (await http.get("/")).text
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    wanted = {
        name
        for module in MODULES
        for name in re.findall(r'\bby\("([^"]+)"\)', (STATIC / "js" / module).read_text())
    }
    assert wanted
    assert wanted <= set(ids)


async def test_without_javascript_the_page_shows_a_command(http: httpx.AsyncClient) -> None:
    page = (await http.get("/")).text
    assert re.search(r"<noscript>.*curl.*classify.*</noscript>", page, re.DOTALL)


def test_the_samples_are_what_their_script_paints(root: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, root / "tests" / "samples" / "draw.py", tmp_path], check=True)
    painted = sorted(path.name for path in tmp_path.iterdir())
    assert painted == sorted(path.name for path in (STATIC / "samples").iterdir())
    for name in painted:
        with Image.open(tmp_path / name) as new, Image.open(STATIC / "samples" / name) as shipped:
            assert new.size == shipped.size
            difference = np.abs(np.asarray(new, dtype=float) - np.asarray(shipped, dtype=float))
        # Another release of a JPEG library may round differently.
        assert difference.mean() < 1.0, name


async def test_the_docs_describe_this_server(http: httpx.AsyncClient) -> None:
    assert "/openapi.json" in (await http.get("/docs")).text
