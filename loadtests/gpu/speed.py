"""The bare model on a GPU: our CUDA graphs beside timm's, plain and compiled; memory; share of the peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from part import Part, attempt
from turns import captured, seconds_of

from prunepool.backends.cuda_capture import PassOutputs, compute
from prunepool.backends.cuda_device import CudaDevice
from prunepool.backends.cuda_graphs import CudaGraphBackend
from prunepool.core.types import Batch, BatchItem, RatioSpec, Request
from prunepool.lab.environment import environment
from prunepool.lab.networks import random_network
from prunepool.models.loader import load_model
from prunepool.models.vit import Group, ReducingViT
from prunepool.reduction.plan import DENSE, plan_for_ratio

RATIOS = (0.0, 0.25, 0.5, 0.755, 0.85)


class Speed:
    """Measures one network.

    Args:
        part: how it was called.
        architecture: timm's name.
        batches: numbers of images, the most telling first.
        dtype: number format.
    """

    def __init__(self, part: Part, architecture: str, batches: tuple[int, ...], dtype: torch.dtype) -> None:
        self._part = part
        self._place = torch.device(part.device)
        vit, self._size = random_network(architecture)
        self._vit: Any = vit.to(self._place, dtype)
        self._network = ReducingViT(self._vit)
        self._device = CudaDevice(self._place) if part.gpu else None
        self._batches = batches
        self._dtype = dtype
        self.report: dict[str, Any] = {
            "architecture": architecture,
            "dtype": str(dtype).removeprefix("torch."),
            "environment": environment(self._place),
            "peak_tflops": self._peak(),
            "rows": [],
            "graph_megabytes": {},
            "model_megabytes": sum(p.numel() * p.element_size() for p in vit.parameters()) / 1e6,
        }

    def run(self) -> None:
        """Everything, the cheap first; what needs a compiler last, as far as there is time."""
        for batch in self._batches:
            self._case(batch, {"timm graph": lambda images: self._vit(images)})
        self.report["backend"] = attempt(self._backend)
        self._part.save(self.report)
        for batch in self._batches:
            if self._part.left < 60 and not self._part.quick:
                self.report.setdefault("no_time_for", []).append(f"compiled, batch {batch}")
                continue
            found = attempt(lambda batch=batch: self._compiled(batch))
            if found is not None:
                self.report.setdefault("compiled_failed", {})[batch] = found
            self._part.save(self.report)

    def _compiled(self, batch: int) -> None:
        if self._part.quick:
            return  # a compiler takes longer than all the rest
        timm = torch.compile(self._vit, dynamic=False)
        patch = torch._dynamo.config.patch(recompile_limit=64, accumulated_recompile_limit=512)
        ours: Any = torch.compile(compute, fullgraph=True, dynamic=False)
        plan = self._groups(0.755, batch)

        def timm_compiled(images: torch.Tensor) -> Any:
            with patch:
                return timm(images)

        def ours_compiled(images: torch.Tensor) -> Any:
            with patch:
                return ours(self._network, images, plan)

        self._case(batch, {"timm compiled": timm_compiled})
        if self._part.left > 90:
            self._case(batch, {"timm compiled": timm_compiled, "compiled 0.755": ours_compiled})

    @torch.inference_mode()
    def _case(self, batch: int, rivals: dict[str, Callable[[torch.Tensor], Any]]) -> None:
        images = torch.randn((batch, 3, self._size, self._size), device=self._place).to(self._dtype)
        groups = {f"ratio {ratio:g}": self._groups(ratio, batch) for ratio in RATIOS}
        runs: dict[str, Callable[[], object]] = {}
        for name, rival in rivals.items():
            runs[name] = self._record(f"{name}, {batch}", lambda rival=rival: rival(images))
        for name, own in groups.items():
            runs[name] = self._record(f"{name}, {batch}", lambda own=own: compute(self._network, images, own))
        share = batch // len(RATIOS)
        if share:
            counts = [share] * (len(RATIOS) - 1) + [batch - share * (len(RATIOS) - 1)]
            mix = [self._groups(ratio, n)[0] for ratio, n in zip(RATIOS, counts, strict=True)]
            # As served: a CUDA graph for each plan, one after the other; and packed, eagerly.
            pieces = [self._record("", lambda g=g: compute(self._network, images[: g[1]], [g])) for g in mix]
            runs["mixed, graphs"] = lambda: [piece() for piece in pieces]
            runs["mixed, packed"] = lambda: compute(self._network, images, mix)
            groups["mixed, graphs"] = groups["mixed, packed"] = mix
        rounds, least_s = (1, 0.0) if self._part.quick else (7, 0.05)
        measured = seconds_of(runs, rounds=rounds, least_s=least_s, device=self._device)
        dense = min(measured[name][0] for name in rivals if name.startswith("timm"))
        geometry = self._network.geometry
        for name, (median, least, most) in measured.items():
            own = groups.get(name, self._groups(0.755 if name.startswith("compiled") else 0.0, batch))
            gmacs = sum(geometry.gmacs(plan) * count for plan, count in own)
            self.report["rows"].append(
                {
                    "batch": batch,
                    "against": next(iter(rivals)),
                    "candidate": name,
                    "images_per_s": batch / median,
                    "low": batch / most,
                    "high": batch / least,
                    "ms": median * 1000,
                    "speedup": dense / median,
                    "by_macs": geometry.gmacs(DENSE) * batch / gmacs,
                    "of_peak": 2 * gmacs / 1000 / median / self.report["peak_tflops"],
                }
            )
        self._part.save(self.report)

    def _record(self, name: str, function: Callable[[], PassOutputs]) -> Callable[[], object]:
        before = self._device.used() if self._device else 0
        run = captured(self._device, function)
        if self._device and name:
            self.report["graph_megabytes"][name] = (self._device.used() - before) / 1e6
        return run

    def _groups(self, ratio: float, batch: int) -> list[Group]:
        geometry = self._network.geometry
        plan = plan_for_ratio(ratio, patches=geometry.patches, depth=geometry.depth) if ratio else DENSE
        return [(plan, batch)]

    def _peak(self) -> float:
        """TFLOP/s of one large matrix product of random numbers."""
        n = 8192 if self._part.gpu else 256
        a, b = (torch.randn((n, n), device=self._place).to(self._dtype) for _ in range(2))
        product = {"product": lambda: a @ b}
        rounds = 1 if self._part.quick else 7
        (median, _, _) = seconds_of(product, rounds=rounds, least_s=0.05, device=self._device)["product"]
        return 2 * n**3 / median / 1e12

    def _backend(self) -> dict[str, Any]:
        """The embedded model as the server runs it: uint8 in host memory to logits in host memory."""
        if not self._part.gpu:
            raise RuntimeError("there is no GPU")
        most = 256
        model = load_model(device=self._part.device, dtype="bfloat16")
        backend = CudaGraphBackend(
            model, CudaDevice(self._place), ratios=(0.0, 0.755), max_batch_size=most, most_graphs=64
        )
        start = time.perf_counter()
        backend.warm_up()
        found: dict[str, Any] = {
            "model": model.name,
            "warm_up_s": time.perf_counter() - start,
            "graphs": [
                {"tokens": model.dial.tokens(g.plan), "images": g.images, "mb": g.bytes / 1e6, "s": g.seconds}
                for g in backend.graphs.all
            ],
        }
        source = np.random.default_rng(0)
        for ratio in (0.0, 0.755):
            size = model.manifest.input_size
            pixels = source.integers(0, 256, (most, size, size, 3), dtype=np.uint8)
            items = tuple(
                BatchItem(Request(one, RatioSpec(ratio, ratio), 0.0), ratio, "requested") for one in pixels
            )
            batch = Batch(items, 0.0)
            count, begin = 30, time.perf_counter()
            running = backend.launch(batch, backend.prepare(batch))
            for _ in range(count - 1):
                following = backend.launch(batch, backend.prepare(batch))
                backend.collect(batch, running)
                running = following
            backend.collect(batch, running)
            found[f"images_per_s at {ratio:g}"] = count * most / (time.perf_counter() - begin)
        backend.close()
        return found


def main() -> None:
    """Measure what the flags say."""
    part = Part.called()
    if part.quick:
        Speed(part, "deit_tiny_patch16_224", (1,), torch.float32).run()
    else:
        Speed(part, "deit_small_patch16_224", (256, 8, 1, 32), torch.bfloat16).run()


if __name__ == "__main__":
    main()
