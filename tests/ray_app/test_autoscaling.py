"""How many replicas are wanted, by what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core import ratio_controller as controller
from prunepool.ray_app.autoscaling import DRAIN_S, SPENT, ByDrain
from prunepool.settings import Settings


@dataclass
class Context:
    current_num_replicas: int = 2
    target_num_replicas: int = 2
    aggregated_metrics: dict[str, dict[str, float]] | None = field(default_factory=dict)


def said(drains: list[float], spent: list[float], replicas: int | None = None) -> Context:
    names = [f"r{i}" for i in range(len(drains))]
    figures = {DRAIN_S: dict(zip(names, drains, strict=True)), SPENT: dict(zip(names, spent, strict=True))}
    return Context(replicas or len(drains), replicas or len(drains), figures)


def wanted(context: Context) -> float:
    return ByDrain(drain_s=0.15, spent=0.5)(context)[0]


def test_each_gets_its_share_of_the_work() -> None:
    assert wanted(said([0.3, 0.6], [0.0, 0.0])) == pytest.approx(6)


def test_what_auto_spends_counts_where_it_asks_for_more() -> None:
    assert wanted(said([0.15, 0.15], [1.0, 0.5])) == pytest.approx(3)


def test_idle_ones_are_not_wanted() -> None:
    assert wanted(said([0.0, 0.0], [0.0, 0.0])) == 0


@pytest.mark.parametrize("figures", [None, {}, {DRAIN_S: {"r0": 9.0}}])
def test_nothing_changes_while_nothing_is_known(figures: dict[str, dict[str, float]] | None) -> None:
    assert wanted(Context(3, 4, figures)) == 4


def test_one_that_has_said_nothing_is_taken_to_be_as_the_others() -> None:
    assert wanted(said([0.15], [0.0], replicas=3)) == pytest.approx(3)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.floats(0, 10))
def test_more_work_never_wants_fewer(drains: list[float], more: float) -> None:
    spent = [0.0] * len(drains)
    assert wanted(said([drains[0] + more, *drains[1:]], spent)) >= wanted(said(drains, spent))


@pytest.mark.parametrize("values", [(0.0, 0.5), (0.15, 0.0), (0.15, 1.1), (float("nan"), 0.5)])
def test_targets_that_make_no_sense_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="drain_s"):
        ByDrain(*values)


def test_the_committed_configuration_scales_before_auto_reduces(root: Path) -> None:
    application = yaml.safe_load((root / "docker/ray/serve.yaml").read_text())["applications"][0]
    deployments = {one["name"]: one for one in application["deployments"]}
    policy = deployments["Engine"]["autoscaling_config"]["policy"]
    assert policy["policy_function"] == f"{ByDrain.__module__}:{ByDrain.__name__}"
    ByDrain(**policy["policy_kwargs"])
    settings = Settings(**application["args"])
    assert policy["policy_kwargs"]["drain_s"] < controller._STEP_UP_SHARE * settings.target_latency_ms / 1000
    assert deployments["Engine"]["max_ongoing_requests"] == settings.max_queue_requests
    assert deployments["Engine"]["graceful_shutdown_timeout_s"] > settings.drain_timeout_s
    variables = application["runtime_env"]["env_vars"]
    assert {name.removeprefix("PRUNEPOOL_").lower() for name in variables} <= Settings.model_fields.keys()
    assert set(deployments["Engine"]["user_config"]) <= {"model", "models"}
