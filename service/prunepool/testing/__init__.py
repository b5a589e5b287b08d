"""Stand-ins for testing what is built on prunepool, without a model, a device or a thread of their own.

`FakeService` takes the place of an engine under the HTTP layer, or under your own code. `FakeBackend` takes the
place of a model on a device under the real scheduler; its `Gate` makes "the device is busy" something that a
test decides, so that no test needs to sleep.
"""

from __future__ import annotations

from prunepool.testing.fake_backend import FakeBackend, Gate, fake_served
from prunepool.testing.fake_models import FakeCosts, fake_gmacs, fake_model
from prunepool.testing.fake_service import FakeService

__all__ = ["FakeBackend", "FakeCosts", "FakeService", "Gate", "fake_gmacs", "fake_model", "fake_served"]
