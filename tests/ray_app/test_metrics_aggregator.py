"""One exposition of all replicas."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from prunepool.ray_app.metrics_aggregator import FORGET_S, Collected, MetricsAggregator


def registry(images: int) -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("images_total", "Images.", ("model",), registry=made).labels("m").inc(images)
    Histogram("seconds", "Time.", buckets=(1,), registry=made).observe(0.5)
    return made


def exposed(collected: Collected) -> list[Any]:
    shown = CollectorRegistry()
    shown.register(collected)
    return list(text_string_to_metric_families(generate_latest(shown).decode()))


def test_series_of_replicas_are_told_apart() -> None:
    collected = Collected("ingress", registry(1))
    collected.others = {"engine": list(registry(2).collect()), "ingress": list(registry(7).collect())}
    families = exposed(collected)
    images = {s.labels["replica"]: s.value for f in families for s in f.samples if s.name == "images_total"}
    assert images == {"ingress": 1, "engine": 2}, "its own are those of now"
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "each series is declared once"
    buckets = [s for f in families for s in f.samples if s.name == "seconds_bucket"]
    assert {(s.labels["replica"], s.labels["le"]) for s in buckets} == {
        (replica, le) for replica in ("ingress", "engine") for le in ("1.0", "+Inf")
    }


async def test_a_replica_that_is_gone_is_forgotten() -> None:
    now = 0.0
    figures = MetricsAggregator(lambda: now)
    await figures.tell("a", [])
    now = FORGET_S - 1
    await figures.tell("b", [])
    assert set(await figures.all()) == {"a", "b"}
    now = FORGET_S + 1
    assert set(await figures.all()) == {"b"}
