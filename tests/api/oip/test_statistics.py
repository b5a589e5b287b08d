"""Statistics, in the form that Triton's clients read."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunepool.api.oip.statistics import Statistics
from prunepool.serving.types import Inference, Reduction, Timing

REDUCTION = Reduction(0.0, 0.0, "requested", (197,), 1.0, 0.0)


def answer(batch: int = 0, size: int = 1, **timing: float) -> Inference:
    stages = {"decode": 1.0, "queue": 2.0, "inference": 3.0, "total": 6.0, **timing}
    return Inference(
        "m", np.zeros(2, np.float32), REDUCTION, Timing(**stages), batch, size, labels=("a", "b")
    )


def statistics() -> Statistics:
    return Statistics(epoch_ms=lambda: 1234)


def counts(of: Statistics, view: str = "m") -> Any:
    return of.json(view)


def test_before_the_first_request_all_is_nothing() -> None:
    found = counts(statistics())
    assert (found["name"], found["version"], found["last_inference"]) == ("m", "1", 0)
    assert (found["inference_count"], found["execution_count"], found["batch_stats"]) == (0, 0, [])
    assert set(found["inference_stats"]) >= {
        "success",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    assert all((stat.count, stat.ns) == (0, 0) for stat in found["inference_stats"].values())


def test_images_are_counted_and_the_last_is_dated() -> None:
    made = statistics()
    made.inferred("m", answer(batch=0))
    made.inferred("m", answer(batch=1))
    found = counts(made)
    assert (found["inference_count"], found["execution_count"], found["last_inference"]) == (2, 2, 1234)


def test_images_of_one_batch_are_one_execution() -> None:
    made = statistics()
    for _ in range(3):
        made.inferred("m", answer(batch=7, size=3))
    assert (counts(made)["inference_count"], counts(made)["execution_count"]) == (3, 1)


def test_a_batch_that_returns_between_others_is_one_execution() -> None:
    made = statistics()
    for batch in (1, 2, 1, 3, 2):
        made.inferred("m", answer(batch=batch, size=2))
    assert counts(made)["execution_count"] == 3


def test_executions_are_counted_by_batch_size() -> None:
    made = statistics()
    for batch, size, inference in ((0, 1, 3.0), (1, 4, 5.0), (2, 4, 6.0)):
        made.inferred("m", answer(batch=batch, size=size, inference=inference))
    told = [
        (one["batch_size"], one["compute_infer"].count, one["compute_infer"].ns)
        for one in counts(made)["batch_stats"]
    ]
    assert told == [(1, 1, 3_000_000), (4, 2, 11_000_000)]


def test_views_are_counted_apart() -> None:
    made = statistics()
    made.inferred("m", answer())
    assert counts(made, "m_jpeg")["inference_count"] == 0


def test_a_request_is_timed_by_stage() -> None:
    made = statistics()
    made.succeeded("m", [answer()], decode_ns=10, encode_ns=20, total_ns=7_000_000)
    stats = counts(made)["inference_stats"]
    assert {name: (stats[name].count, stats[name].ns) for name in stats if stats[name].count} == {
        "success": (1, 7_000_000),
        "queue": (1, 2_000_000),
        "compute_input": (1, 1_000_010),
        "compute_infer": (1, 3_000_000),
        "compute_output": (1, 20),
    }


def test_the_slowest_image_stands_for_its_request() -> None:
    made = statistics()
    answers = [answer(queue=1.0, total=5.0), answer(queue=9.0, total=13.0), answer(queue=2.0, total=6.0)]
    made.succeeded("m", answers, decode_ns=0, encode_ns=0, total_ns=0)
    assert counts(made)["inference_stats"]["queue"].ns == 9_000_000


def test_a_failure_is_counted_and_timed() -> None:
    made = statistics()
    made.failed("m", 5)
    stats = counts(made)["inference_stats"]
    assert (stats["fail"].count, stats["fail"].ns, stats["success"].count) == (1, 5, 0)
