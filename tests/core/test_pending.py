"""Pending requests: how their batches are numbered."""

from __future__ import annotations

import subprocess
import sys

#: As engine processes start: forked from a process that has imported all that they need.
FORKED = """
import asyncio, os
import numpy as np
from prunepool.core.events import BatchReport
from prunepool.core.pending import PendingRequests
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request

async def ids():
    pending, numbers = PendingRequests(), []
    for _ in range(2):
        request = Request(np.zeros((1, 1, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0)
        future = pending.open(request)
        batch = Batch((BatchItem(request, 0.0, "requested"),), 1.0)
        output = Output(np.zeros(2, np.float32), (1,), 1.0)
        pending.resolve(BatchReport(batch, batch, [output], 0.0, 1.0, False))
        numbers.append((await future).batch_id)
    return numbers

for _ in range(3):
    if (child := os.fork()) == 0:
        print(*asyncio.run(ids()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_batches_of_all_processes_have_numbers_of_their_own() -> None:
    """Two engines that numbered alike had half of their batches counted."""
    told = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True).stdout
    numbers = [int(number) for number in told.split()]
    assert len(set(numbers)) == len(numbers) == 6
    assert all(0 <= number < 2**63 for number in numbers)
