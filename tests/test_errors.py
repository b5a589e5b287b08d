"""What errors say can be sent and shown anywhere."""

from __future__ import annotations

import os

import orjson
import pytest

from prunepool.errors import PrunepoolError, WeightsInvalid, why_of

#: A name of a file that is no UTF-8.
NAME = os.fsdecode(b"caf\xe9.bin")


@pytest.mark.parametrize("error", [WeightsInvalid(f"{NAME}: is not there"), OSError(2, "missing", NAME)])
def test_a_file_whose_name_is_no_utf8(error: Exception) -> None:
    assert r"caf\udce9.bin" in why_of(error)
    if isinstance(error, PrunepoolError):
        assert orjson.loads(orjson.dumps(error.problem()))["detail"] == why_of(error)
    assert why_of(WeightsInvalid("café.bin: is not there")) == "café.bin: is not there"
