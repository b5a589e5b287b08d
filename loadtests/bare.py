"""The bare model in a process of its own: no HTTP, no decoding, no queue; crops of photos are in memory.

It is run by the same backend as the server runs it by.

It reads turns from its input, one JSON line each, and answers them; in between it takes no time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from pictures import photos

from prunepool.backends.registry import BackendOptions
from prunepool.machine import compute_threads

#: Number of photos in memory.
_MOST_CROPS = 64
#: How often a batch is stacked to see how long it takes.
_STACKED = 5


class Turn(msgspec.Struct, frozen=True):
    """A measurement to make.

    Attributes:
        ratio: of all images.
        batch: images in a run.
        seconds: how long, at least one run.
    """

    ratio: float
    batch: int
    seconds: float


class Done(msgspec.Struct, frozen=True):
    """The result of a measurement.

    Attributes:
        images_per_s: through the model, in batches that are stacked already.
        stack_ms: to stack the pixels of an image into a batch, which is not counted in the rate.
    """

    images_per_s: float
    stack_ms: float


class Bare:
    """The process of the bare model, as the caller sees it.

    Args:
        process: started.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def run(self, turn: Turn) -> Done:
        """Make a measurement.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(turn) + b"\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the bare model's process ended with {self._process.wait()}")
        return msgspec.json.decode(line, type=Done)


@contextmanager
def bare(folder: Path, images: Path | None, dtype: str, *, openvino: bool) -> Iterator[Bare]:
    """Start the process, and stop it at the end.

    Args:
        folder: of the model.
        images: folder of photos, of which the first few are used; None: generated ones.
        dtype: of the model.
        openvino: whether OpenVINO runs it, which then must be compiled, or PyTorch.
    """
    command = [sys.executable, __file__, str(folder), dtype, str(int(openvino))]
    command += [str(images)] if images else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Bare(process)
        finally:
            process.kill()


def backend_options(dtype: str, *, openvino: bool) -> BackendOptions:
    """How the model is run: as the server runs it, with a thread for each core."""
    return BackendOptions(
        "cpu",
        dtype,
        max_batch_size=1,
        cuda_graphs=0,
        cuda_compile=False,
        cpu_openvino=openvino,
        cpu_openvino_folder=Path(os.devnull),
        threads=compute_threads(),
    )


def main() -> None:
    """Make measurements until the pipe is closed."""
    # Before torch is imported, as in the service, so that the same model is measured.
    from prunepool.machine import set_openmp_wait_policy, tune_malloc

    set_openmp_wait_policy(os.environ)
    tune_malloc()
    from prunepool.backends import registry
    from prunepool.core.types import Batch, BatchItem, RatioSpec, Request
    from prunepool.imaging import ImageLimits, decode
    from prunepool.models.preprocess import preprocess_of
    from prunepool.store import open_store

    folder, dtype, openvino, *images = sys.argv[1:]
    stored = open_store().open(folder)
    manifest = stored.manifest
    preprocess = preprocess_of(manifest)
    encoded = photos(Path(images[0]) if images else None)[:_MOST_CROPS]
    crops = [decode(image, preprocess, ImageLimits()) for image in encoded]
    options = backend_options(dtype, openvino=bool(int(openvino)))
    backend = registry.find(options)(stored, options, {}).backend
    backend.warm_up()
    for line in sys.stdin:
        turn = msgspec.json.decode(line, type=Turn)
        chosen = (crops * (1 + turn.batch // len(crops)))[: turn.batch]
        dial = RatioSpec(turn.ratio, turn.ratio)
        batch = Batch(tuple(BatchItem(Request(pixels, dial, 0.0), turn.ratio, "") for pixels in chosen), 0.0)
        times = []
        for _ in range(_STACKED):
            begun = time.perf_counter()
            prepared = backend.prepare(batch)
            times.append(time.perf_counter() - begun)
        begun, runs = time.perf_counter(), 0
        while not runs or time.perf_counter() - begun < turn.seconds:
            backend.run(batch, prepared)
            runs += 1
        seconds = time.perf_counter() - begun
        done = Done(runs * turn.batch / seconds, statistics.median(times) / turn.batch * 1000)
        sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
