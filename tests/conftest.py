"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: test processes share the cores, and should sleep while they wait, not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
from prometheus_client import CollectorRegistry

from prunepool.metrics import Metrics

# For make fuzz; tests of hostile input have multiples of a profile's examples.
hypothesis.settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1500")),
    suppress_health_check=list(hypothesis.HealthCheck),
)

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PRUNEPOOL_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference photos, weights and outputs, kept beside the checkout.

    It cannot be published with the code; without it, what needs it is skipped by name.
    """
    if not (SHARED / "reference" / "ppt_parity.npz").is_file():
        pytest.skip("needs the reference material beside the checkout (../shared, or PRUNEPOOL_SHARED)")
    return SHARED


@pytest.fixture
def metrics() -> Metrics:
    """The series on a registry of their own."""
    return Metrics(CollectorRegistry())
