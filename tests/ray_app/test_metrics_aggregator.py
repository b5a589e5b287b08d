"""One exposition of all replicas."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from prunepool.ray_app.metrics_aggregator import EXPIRE_S, MergedCollector, MetricsAggregator


def registry(images: int) -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("images_total", "Images.", ("model",), registry=made).labels("m").inc(images)
    Histogram("seconds", "Time.", buckets=(1,), registry=made).observe(0.5)
    return made


def exposed(collector: MergedCollector) -> list[Any]:
    shown = CollectorRegistry()
    shown.register(collector)
    return list(text_string_to_metric_families(generate_latest(shown).decode()))


def test_series_of_replicas_are_told_apart() -> None:
    collector = MergedCollector("ingress", registry(1))
    collector.others = {"engine": list(registry(2).collect()), "ingress": list(registry(7).collect())}
    families = exposed(collector)
    images = {s.labels["replica"]: s.value for f in families for s in f.samples if s.name == "images_total"}
    assert images == {"ingress": 1, "engine": 2}, "its own are those of now"
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "each series is declared once"
    buckets = [s for f in families for s in f.samples if s.name == "seconds_bucket"]
    assert {(s.labels["replica"], s.labels["le"]) for s in buckets} == {
        (replica, le) for replica in ("ingress", "engine") for le in ("1.0", "+Inf")
    }


async def test_reports_of_a_silent_replica_expire() -> None:
    now = 0.0
    aggregator = MetricsAggregator(lambda: now)
    await aggregator.report("a", [])
    now = EXPIRE_S - 1
    await aggregator.report("b", [])
    assert set(await aggregator.reports()) == {"a", "b"}
    now = EXPIRE_S + 1
    assert set(await aggregator.reports()) == {"b"}
