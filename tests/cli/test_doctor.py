"""`prunepool doctor`: what is in the way of a server, and what to do about it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunepool import machine
from prunepool.cli import doctor_machine
from prunepool.errors import InvalidParameter

Run = Callable[..., Any]
MODEL = "deit_tiny_imagenette"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A store with one model."""
    store = tmp_path_factory.mktemp("whole") / "store"
    shutil.copytree(root / "model_store" / MODEL, store / MODEL)
    return store


@pytest.fixture
def look(run: Run, whole: Path) -> Callable[..., dict[str, dict[str, str]]]:
    """What is found of each thing, with the status checked."""

    def look(*options: str) -> dict[str, dict[str, str]]:
        given = ("--port", "0", "--model-store", str(whole), "--model", MODEL)
        result = run("doctor", "--json", *given, *options)
        assert result.err == ""
        found = {one["what"]: one for one in json.loads(result.out)}
        assert result.status == any(one["level"] == "problem" for one in found.values())
        assert all(one["advice"] for one in found.values() if one["level"] != "ok"), "what to do"
        return found

    return look


def test_all_is_looked_at_and_here_nothing_is_in_the_way(look: Any) -> None:
    found = look()
    wanted = ["Python", "libraries", "processor", "device", "memory", "shared memory", "open files", "TMPDIR"]
    assert list(found) == [*wanted, "store", f"model {MODEL}", "conversions", "port"]
    assert [one for one in found.values() if one["level"] == "problem"] == []
    assert "checksums are right, compiled in int8" in found[f"model {MODEL}"]["found"]


def test_people_get_a_line_for_each_and_a_last_one(run: Run, whole: Path) -> None:
    given = ("doctor", "--port", "0", "--model-store", str(whole))
    *lines, last = run(*given, "--model", MODEL).out.splitlines()
    assert lines[0].startswith("ok       Python: 3.")
    assert last == "nothing is in the way of `prunepool serve`" or "warning" in last
    result = run(*given, "--model", "none")
    assert result.status == 1
    lines = result.out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("problem "))
    assert lines[place] == f"problem  model none: no model 'none' in {whole}; it has {MODEL}"
    assert lines[place + 1].startswith("         → ")
    assert lines[-1].startswith("1 problem, ")


def test_a_port_that_is_taken(look: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = look("--port", str(taken.getsockname()[1]))["port"]
    assert (found["level"], "in use" in found["found"]) == ("problem", True)


def test_keys(look: Any, run: Run, tmp_path: Path) -> None:
    keys = ("--api-keys-file", str(tmp_path / "keys.toml"))
    found = look(*keys)["API keys"]
    assert (found["level"], "keys.toml" in found["found"]) == ("problem", True)
    run("keys", "create", "alice", *keys)
    assert look(*keys)["API keys"]["found"].startswith("1 in ")


def test_settings_that_do_not_go_together(look: Any) -> None:
    found = look("--host", "0.0.0.0", "--model-control", "explicit")["settings"]
    assert (found["level"], "model_control" in found["found"]) == ("problem", True)


@pytest.mark.parametrize("served", [True, False])
def test_weights_with_a_changed_bit(look: Any, whole: Path, tmp_path: Path, served: bool) -> None:
    store = shutil.copytree(whole, tmp_path / "store")
    other = store / "other"
    shutil.copytree(store / MODEL, other)
    manifest = other / "model.json"
    manifest.write_text(manifest.read_text().replace(f'"{MODEL}"', '"other"'))
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = look("--model-store", str(store), "--model", "other" if served else MODEL)["model other"]
    assert found["level"] == ("problem" if served else "warning")
    assert "sha256" in found["found"]


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_a_store_that_is_none(look: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    found = look("--model-store", str(tmp_path / name))["store"]
    assert (found["level"], str(tmp_path / name) in found["found"]) == ("problem", True)


def test_fewer_files_than_connections(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    found = look()["open files"]
    assert found["level"] == "warning"
    assert found["advice"] == "raise `ulimit -Hn`, or only 372 connections are served at a time"
    assert look("--max-connections", "300")["open files"]["level"] == "ok"


@pytest.mark.parametrize(("frontends", "level"), [("1", "warning"), ("2", "problem")])
def test_a_folder_whose_name_is_too_long_for_sockets(look: Any, frontends: str, level: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as root, pytest.MonkeyPatch.context() as patch:
        long = Path(root) / ("x" * 90)
        long.mkdir()
        patch.setattr(tempfile, "tempdir", str(long))
        found = look("--frontends", frontends)["TMPDIR"]
    assert found["level"] == level
    excess = len(os.fsencode(long)) + len("/prunepool-12345678/engine-9999.sock") - 107
    assert f"shorter by {excess} bytes" in found["advice"]


def test_a_folder_that_cannot_be_written_to(look: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/proc/none")
        assert look()["TMPDIR"]["level"] == "problem"


@pytest.mark.parametrize(
    ("allowed", "level"), [(500_000_000, "problem"), (1_000_000_000, "warning"), (None, "ok")]
)
def test_memory(look: Any, monkeypatch: pytest.MonkeyPatch, allowed: int | None, level: str) -> None:
    monkeypatch.setattr(machine, "memory_limit", lambda: allowed)
    monkeypatch.setattr(machine, "available_memory", lambda: 8_000_000_000)
    found = look()["memory"]
    assert found["level"] == level
    assert "an embedded model takes up to 1.1 GB" in found["found"]


def test_a_device_that_is_not_there(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(device: str) -> str:
        raise InvalidParameter("device", device, "cpu: no GPU is visible")

    monkeypatch.setattr("prunepool.backends.devices.resolve_device", none)
    found = look("--device", "cuda:7")["device"]
    assert (found["level"], found["found"]) == (
        "problem",
        "device must be cpu: no GPU is visible; got 'cuda:7'",
    )


def test_a_driver_that_nothing_uses(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "driver_is_there", lambda: True)
    assert look("--device", "cpu")["device"]["level"] == "warning"


def test_without_a_library_that_computes(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "installed", dict)
    monkeypatch.setattr(doctor_machine, "has_torch", lambda: False)
    found = look("--grpc-port", "0", "--otel-endpoint", "http://127.0.0.1:4318")
    assert {one["what"]: one["advice"] for one in found.values() if one["level"] == "problem"} == {
        "libraries": 'nothing computes: pip install "prunepool[cpu]"',
        "gRPC": 'pip install "prunepool[grpc]"',
        "traces": 'pip install "prunepool[otel]"',
    }


@pytest.mark.parametrize(
    ("number", "within"), [((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)]
)
def test_the_version_of_python(number: tuple[int, int], within: bool) -> None:
    assert doctor_machine._is_within(number, ">=3.11,<3.15") == within


def test_the_issue_template_asks_for_it(root: Path) -> None:
    assert "prunepool doctor" in (root / ".github" / "ISSUE_TEMPLATE" / "bug.md").read_text()


def test_a_model_that_is_not_there_is_to_be_added_or_named_right(look: Any) -> None:
    missing = look("--model", "tulips")["model tulips"]
    assert missing["level"] == "problem"
    assert MODEL in missing["found"], "which there are"
    assert missing["advice"] == "`prunepool models add` or `models pull` it, or name another with --model"
