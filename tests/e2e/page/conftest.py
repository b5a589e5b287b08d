"""The real server with the embedded model, and a real browser."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

TIMEOUT_MS = 60_000
_QUIET = (
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Written by the browser itself for every answer that is an error; the page shows those in its own words.
_BROWSERS_OWN = "Failed to load resource"


@pytest.fixture(scope="session")
def site(root: Path) -> Iterator[str]:
    """The URL of a server that runs for the tests of the page; it logs nothing, so no pipe can fill."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRUNEPOOL_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("prunepool")), "serve", "--port", "0", "--log-level", "error"],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"the server did not start: {line!r}"
        yield found.group()
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = (
        os.environ.get("PRUNEPOOL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if not found:
        pytest.skip("needs Chromium (apt-get install chromium, or PRUNEPOOL_CHROMIUM)")
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A headless browser. It ends with the module: its event loop would be in the way of async tests."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(_QUIET))
        yield started
        started.close()
    # Greenlets that a failed test left suspended would be ended at any later collection, and Python 3.11
    # cannot bear that while it parses.
    gc.collect()


Visit = Callable[..., Page]


@contextmanager
def _watched(browser: Browser, site: str, **context: object) -> Iterator[Page]:
    """A page; at the end, check that it made no request to other servers and logged no error."""
    options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context}
    made = browser.new_context(**options)  # type: ignore[arg-type]
    made.set_default_timeout(TIMEOUT_MS)
    page = made.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    page.on(
        "console",
        lambda message: (
            complaints.append(f"{message.type}: {message.text}")
            if message.type in ("error", "warning") and _BROWSERS_OWN not in message.text
            else None
        ),
    )
    origin = urlsplit(site).netloc
    page.on(
        "request",
        lambda request: (
            complaints.append(f"request to {request.url}")
            if urlsplit(request.url).scheme in ("http", "https", "ws", "wss")
            and urlsplit(request.url).netloc != origin
            else None
        ),
    )
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => "
        "console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));"
    )
    yield page
    made.close()
    assert complaints == []


@pytest.fixture
def visit(browser: Browser, site: str) -> Iterator[Visit]:
    """Open the page in a browser of its own; `first` runs before the page loads."""
    watched = []

    def visit(
        *, first: Callable[[Page], None] | None = None, answered: bool = True, **context: object
    ) -> Page:
        watched.append(_watched(browser, site, **context))
        page = watched[-1].__enter__()
        if first:
            first(page)
        page.goto(site)
        if answered:
            page.locator("#agreement").wait_for()
        return page

    yield visit
    for one in watched:
        one.__exit__(None, None, None)


@pytest.fixture
def page(visit: Visit) -> Page:
    """The page with the first sample's answer on it."""
    return visit()
