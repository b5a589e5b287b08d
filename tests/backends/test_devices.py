"""Which device a setting names, and what is said where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunepool.backends import devices
from prunepool.errors import InvalidParameter


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("torch", [False, True])
def test_in_a_container_a_gpu_that_is_not_visible_is_told_with_what_makes_it_so(
    monkeypatch: pytest.MonkeyPatch, inside: bool, torch: bool
) -> None:
    monkeypatch.setattr(devices, "in_container", lambda: inside)
    monkeypatch.setattr(devices, "has_torch", lambda: torch)
    with pytest.raises(InvalidParameter) as caught:
        devices.resolve_device("cuda:99")
    assert ("docker-compose.gpu.yml" in caught.value.detail) == inside
    assert ("NVIDIA runtime" in caught.value.detail) == (inside and torch)
    assert ("pip install" in caught.value.detail) == (not torch), "a container may be the user's own"
    assert "\n" not in caught.value.detail


def test_a_container_is_known_by_its_marks(tmp_path: Path) -> None:
    mark = tmp_path / ".dockerenv"
    assert not devices.in_container([mark], {})
    assert devices.in_container([mark], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    mark.touch()
    assert devices.in_container([mark], {})
