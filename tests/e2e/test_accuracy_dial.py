"""Asking for an accuracy instead of a ratio, of the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e


def classify(server: Any, **options: object) -> Any:
    photo = (Path(__file__).resolve().parents[2] / "docs/images/sample.jpg").read_bytes()
    headers = {"content-type": "image/jpeg"}
    answer = httpx.post(f"{server.url}/classify", params=options, content=photo, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["reduction"]


@pytest.fixture(scope="module")
def profile(server: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/models/deit_tiny_imagenette").json()["profile"]
    return found


def test_the_model_shows_what_its_ratios_cost(profile: list[dict[str, Any]]) -> None:
    assert profile[0]["ratio"] == 0
    for point in profile:
        assert {"gmacs", "agreement", "drop", "images", "intervals"} <= point.keys()


def test_every_plan_is_the_one_that_was_measured(server: Any, profile: list[dict[str, Any]]) -> None:
    for point in profile[1:]:
        reduction = classify(server, reduction_ratio=point["ratio"])
        assert reduction["gmacs"] == pytest.approx(point["gmacs"], abs=1e-5)
        assert reduction["tokens"][-1] == 197 - sum(point["removed"])


def speedup(point: dict[str, Any]) -> float:
    """As the profile says; the unreduced model's is 1."""
    return float(point["speed"]["speedup"]) if point["ratio"] else 1.0


def test_an_accuracy_takes_the_plan_that_was_measured_to_be_the_fastest_that_keeps_it(
    server: Any, profile: list[dict[str, Any]]
) -> None:
    for point in profile:
        if point["drop"] < 0:
            continue
        reduction = classify(server, max_accuracy_drop=point["drop"])
        kept = [other for other in profile if other["drop"] <= point["drop"]]
        assert reduction["reason"] == "accuracy"
        assert reduction["requested"] == max(kept, key=speedup)["ratio"]
