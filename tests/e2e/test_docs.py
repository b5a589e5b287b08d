"""Every command in the README and the docs works as pasted."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunepool import cli
from prunepool.access import KeysFile
from prunepool.settings import Settings

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

#: Commands that need what a test has not (a hub, the reader's files, a port): that each option is one is checked.
FORM_ONLY = ("prunepool models pull", "prunepool models add", "prunepool serve", "prunepool train")
#: Commands that write into the folder where they run: run in order, in a folder of the test.
WRITING = "prunepool keys"


def blocks(page: Path, language: str) -> list[str]:
    """The examples of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def lines(block: str) -> Iterator[str]:
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        if command := line.split(" #")[0].strip():
            yield command


Done = subprocess.CompletedProcess[str]


def bash(command: str, folder: Path) -> Done:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def in_process(command: str, folder: Path, output: pytest.CaptureFixture[str]) -> Done:
    """Run a command of prunepool without a process of its own: to start one takes seconds."""
    with contextlib.chdir(folder):
        status = cli.run(shlex.split(command)[1:])
    return subprocess.CompletedProcess(command, status, *output.readouterr())


def is_plain(command: str) -> bool:
    """Whether it is prunepool's alone, with nothing in it that a shell would do."""
    return command.startswith("prunepool ") and not re.search(r"[|&;<>$`*~]", command)


def commands() -> Iterator[Any]:
    """Each command of each page, and whether a shell runs it: of prunepool's own, one a page."""
    for page in PAGES:
        found = [
            line for block in blocks(page, "sh") for line in lines(block) if not line.startswith(WRITING)
        ]
        plain = sorted(filter(is_plain, found), key=lambda command: command.startswith(FORM_ONLY))
        for command in found:
            in_shell = not is_plain(command) or command == plain[0]
            yield pytest.param(command, in_shell, id=f"{page.name}: {command[:70]}")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("command", "in_shell"), list(commands()))
def test_command(
    command: str, in_shell: bool, default_server: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(command: str) -> Done:
        return bash(command, ROOT) if in_shell else in_process(command, ROOT, capfd)

    if command.startswith("make "):
        assert command.split()[1] in targets(), f"there is no target {command!r}"
        return
    if command.startswith(FORM_ONLY):
        words = command.split()
        named = 3 if words[1] == "models" else 2
        help_text = run(" ".join([*words[:named], "--help"])).stdout
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        assert [option for option in options if option not in help_text] == []
        assert "Usage: prunepool" in help_text
        return
    done = run(command.replace("http://127.0.0.1:8000", default_server.url))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "/classify" in command and "=0.9'" not in command:
        answer = json.loads(done.stdout)
        assert "predictions" in (answer["results"][0] if "results" in answer else answer), answer


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_write(page: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = [line for block in blocks(page, "sh") for line in lines(block) if line.startswith(WRITING)]
    for command in wanted:
        done = in_process(command, tmp_path, capfd) if is_plain(command) else bash(command, tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "keys.toml").exists() == bool(wanted)


def test_the_answer_that_the_readme_shows_is_the_one_that_comes(default_server: Any) -> None:
    (shown,) = blocks(ROOT / "README.md", "json")
    (command,) = (
        line for block in blocks(ROOT / "README.md", "sh") for line in lines(block) if "curl" in line
    )
    answer = json.loads(bash(command.replace("http://127.0.0.1:8000", default_server.url), ROOT).stdout)
    first = answer["predictions"][0]
    assert f'"index": {first["index"]}, "label": "{first["label"]}"' in shown
    assert float(re.findall(r'"score": ([\d.]+)', shown)[0]) == pytest.approx(first["score"], abs=2e-4)
    reduction = answer["reduction"]
    assert f'"tokens": {reduction["tokens"]}' in shown
    for name in ("gmacs", "macs_saved"):
        assert float(re.findall(rf'"{name}": ([\d.]+)', shown)[0]) == pytest.approx(reduction[name], abs=1e-4)


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = blocks(ROOT / "README.md", "python")
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["out"].logits.shape == (2, 1000)
    (said,) = re.findall(r"# (ReductionPlan\(.*), \.\.\.\)", example)
    assert repr(names["plan"]).startswith(said)


def test_the_settings_file_that_is_shown_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks(ROOT / "docs" / "configuration.md", "toml")
    (tmp_path / "prunepool.toml").write_text(example)
    monkeypatch.chdir(tmp_path)
    assert Settings().target_latency_ms == 200


def test_the_keys_file_that_is_shown_is_one(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "docs" / "security.md", "toml")
    (tmp_path / "keys.toml").write_text(example.replace("64 hexadecimal digits", "0" * 64))
    assert [str(key.rate) for key in KeysFile(tmp_path / "keys.toml").read().values()] == [
        "50 images a second, 100 at once"
    ]


def test_every_language_of_an_example_is_tried_somewhere() -> None:
    """Beside this module: clients.md in tests/client, the inference protocol's page in test_oip."""
    tried = {
        "python": {"README.md", "clients.md", "open-inference-protocol.md"},
        "toml": {"configuration.md", "security.md"},
        "json": {"README.md"},
    }
    for language, pages in tried.items():
        assert {page.name for page in PAGES if blocks(page, language)} == pages


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)|(?:src|srcset)=\"([^\"]+)\"", page.read_text())
        for link in filter(None, itertools.chain(*links)):
            assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"
