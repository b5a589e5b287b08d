"""Every command in the README and the docs works as pasted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

#: Commands that need what a test has not (a hub, the reader's files, an hour): checked for their form.
FORM_ONLY = ("prunepool models pull", "prunepool models add", "prunepool keys", "prunepool serve")


def commands() -> Iterator[Any]:
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                if command := line.split(" #")[0].strip():
                    yield pytest.param(command, id=f"{page.name}: {command[:70]}")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("command", list(commands()))
def test_command(command: str, server: Any, tmp_path: Path) -> None:
    if command.startswith("make "):
        assert command.split()[1] in targets(), f"there is no target {command!r}"
        return
    if command.startswith(FORM_ONLY):
        words = command.split()
        command = " ".join([*words[: 3 if words[1] in ("models", "keys") else 2], "--help"])
    command = command.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "/classify" in command and "=0.9'" not in command:
        answer = json.loads(done.stdout)
        assert "predictions" in (answer["results"][0] if "results" in answer else answer), answer


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"
