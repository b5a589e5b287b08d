"""Prometheus' own checker and its unit tests of the rules that are shipped."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    return program


def alerts(root: Path) -> list[dict[str, object]]:
    groups = yaml.safe_load((root / "docker/prometheus/alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_do_what_their_unit_tests_say(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "test", "rules", "rules.test.yml"], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test(root: Path) -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load((HERE / "rules.test.yml").read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in alerts(root)}


def test_prometheus_takes_its_configuration(promtool: str, root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "docker/prometheus.yml", tmp_path)
    shutil.copytree(root / "docker/prometheus", tmp_path / "rules")
    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout, "the rules beside it were not found"


def test_every_alert_is_explained_where_it_says(root: Path) -> None:
    page = (root / "docs/operations.md").read_text()
    sections = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", page, re.MULTILINE)}
    for rule in alerts(root):
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        file, anchor = annotations["runbook"].split("#")
        assert file == "docs/operations.md"
        assert anchor in sections, f"{file} has no section {anchor}"
