"""The command as a whole: fast help, one line for wrong usage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest

Run = Callable[..., Any]


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.status == 0
    for command in ("serve", "classify", "models", "doctor", "settings"):
        assert command in result.out


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, prunepool.cli as cli; status = cli.run(['--help']);"
        "heavy = {'torch', 'timm', 'numpy', 'fastapi', 'uvicorn', 'httpx', 'PIL'} & set(sys.modules);"
        "sys.exit(status or str(heavy) if heavy or status else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version(run: Run) -> None:
    result = run("--version")
    assert (result.status, result.out) == (0, f"prunepool {version('prunepool')}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "Missing command"),
        (("serv",), "'serve'"),
        (("--nope",), "--nope"),
        (("serve", "--nope"), "--nope"),
        (("serve", "--port"), "--port"),
        (("serve", "extra"), "extra"),
        (("classify",), "FILES"),
    ],
)
def test_a_wrong_call_is_one_line(run: Run, refused: Any, arguments: tuple[str, ...], named: str) -> None:
    assert named in refused(run(*arguments))


@pytest.mark.parametrize("command", ["serve", "classify", "models", "doctor", "settings"])
def test_every_command_has_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert (result.status, result.err) == (0, "")
    assert f"prunepool {command}" in result.out


def test_the_interpreter_does_not_end_under_a_thread_that_still_computes() -> None:
    script = (
        "import atexit, sys, threading\n"
        "from prunepool import cli\n"
        "atexit.register(lambda: print('the interpreter ends'))\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "sys.argv = ['prunepool', '--version']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("prunepool ")
    assert "the interpreter ends" not in done.stdout
