"""Benchmark each setting of the dial against the fastest dense way to run the same network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import nn

from prunepool.backends.compiled_pass import CompiledPasses
from prunepool.backends.openvino_compile import open_network
from prunepool.backends.plan_family import PlanFamily
from prunepool.lab.environment import environment
from prunepool.lab.operations import Share, operations
from prunepool.lab.rivals import RIVALS, available
from prunepool.lab.timing import Sample, take_turns
from prunepool.models.families import reducing
from prunepool.models.loader import resolve_device
from prunepool.models.vit import Group, ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan, plan_for_ratio

#: Ratios of the `mixed` candidate, in shares of a batch that are as equal as possible.
MIX = (0.0, 0.25, 0.5, 0.755, 0.85)


@dataclass(frozen=True, slots=True)
class Case:
    """Candidates that are measured together.

    Attributes:
        dtype: dtype of the passes.
        batch: batch size.
    """

    dtype: torch.dtype
    batch: int


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One measured candidate.

    Attributes:
        dtype: dtype of the passes.
        batch: batch size.
        candidate: its name.
        ratio: reduction ratio; None for a baseline and for the mix.
        images_per_s: by the median time.
        low: images/s at the 90th percentile of time.
        high: images/s at the 10th percentile of time.
        speedup: over timm's fastest dense run of the same case, by medians of one run; over the fastest
            baseline if timm was not measured.
        bound: the speedup that the multiply-accumulates alone would allow; None for baselines.
        rounds: number of timings.
        of_uniform: for the mix, its share of the speed of uniform batches at the same ratios; else None.
        operations: time by kind of operation, for prunepool's own candidates if asked for.
    """

    dtype: str
    batch: int
    candidate: str
    ratio: float | None
    images_per_s: float
    low: float
    high: float
    speedup: float
    bound: float | None
    rounds: int
    of_uniform: float | None = None
    operations: tuple[Share, ...] = ()


class Benchmark:
    """Times one network.

    Args:
        vit: a timm ViT in float32, evaluation mode.
        size: input resolution: height and width in pixels.
        device: the device to run on.
        ratios: reduction ratios; 0 is prunepool's own dense pass.
        rivals: baselines by their name in `RIVALS`; those that are not installed are skipped and named in the
            report.
        rounds: timed rounds of each candidate.
        method: the reduction method.
        profiled: whether to profile operations after timing.
        openvino: whether to measure each ratio, and the mix, with OpenVINO too: in the dtype of the case, and
            with float32 in int8.
    """

    def __init__(
        self,
        vit: nn.Module,
        *,
        size: int,
        device: str,
        ratios: Sequence[float],
        rivals: Sequence[str],
        rounds: int,
        method: str = "ppt",
        profiled: bool = False,
        openvino: bool = False,
    ) -> None:
        self._device = resolve_device(device)
        self._vit = vit.to(self._device)
        self._size = size
        self._ratios = tuple(ratios)
        self._rivals = tuple(rivals)
        self._rounds = rounds
        self._method: str = method
        self._profiled = profiled
        self._openvino = openvino and self._device.type == "cpu"
        self._converted: dict[str, CompiledPasses] = {}
        self.missing: set[str] = set()

    def steps(self, cases: Sequence[Case]) -> int:
        """Number of timed calls of a run, for a progress bar."""
        candidates = len(self._rivals) + len(self._ratios) + 1
        converted = 2 * (len(self._ratios) + 1) if self._openvino else 0
        return len(cases) * (candidates + converted) * (self._rounds + 1)

    def run(self, cases: Sequence[Case], advance: Callable[[], object] = lambda: None) -> list[SpeedRow]:
        """Measure every case; the candidates of a case alternate."""
        return [row for case in cases for row in self._case(case, advance)]

    def report(self, rows: Sequence[SpeedRow], architecture: str) -> dict[str, object]:
        """Rows and the conditions they were measured under, JSON-serialisable."""
        return {
            "architecture": architecture,
            "method": self._method,
            "mix": MIX,
            "rounds": self._rounds,
            "not_measured": sorted(self.missing),
            "environment": environment(self._device),
            "rows": [asdict(row) for row in rows],
        }

    @torch.inference_mode()
    def _case(self, case: Case, advance: Callable[[], object]) -> Iterator[SpeedRow]:
        network = reducing(self._vit.to(case.dtype))
        shape = (case.batch, 3, self._size, self._size)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        images = noise.to(self._device, case.dtype)
        candidates: dict[str, Callable[[], object]] = {}
        for name in self._rivals:
            if available(name, case.dtype, self._device):
                candidates[name] = RIVALS[name][0](self._vit, images)
            else:
                self.missing.add(f"{name} ({_name(case.dtype)})")
        groups: dict[str, list[Group]] = {
            f"ratio {ratio:g}": [(self._plan(network, ratio), case.batch)] for ratio in self._ratios
        }
        if case.batch >= len(MIX):
            groups["mixed"] = self._mix(network, case.batch)
        for name, own in groups.items():
            candidates[name] = _bind(network, images, own)
        if self._openvino:
            arrays = images.float().numpy()
            dtypes = (_name(case.dtype), *(["int8"] if case.dtype == torch.float32 else []))
            for dtype, one in self._passes(network, groups, dtypes).items():
                end = "openvino" if dtype == _name(case.dtype) else f"openvino {dtype}"
                for name, own in list(groups.items()):
                    if "openvino" not in name:
                        candidates[f"{name} {end}"] = partial(one, arrays, own)
                        groups[f"{name} {end}"] = own
        wait = torch.cuda.synchronize if self._device.type == "cuda" else lambda: None
        samples = take_turns(candidates, self._rounds, wait=wait, advance=advance)
        rivals = {name: s.median for name, s in samples.items() if name not in groups}
        dense = min(
            {name: s for name, s in rivals.items() if name.startswith("timm")}.values() or rivals.values()
        )
        for name, sample in samples.items():
            row = self._row(case, name, sample, dense, network, groups.get(name))
            if name.startswith("mixed"):
                row = replace(row, of_uniform=_of_uniform(samples, name, groups[name]))
            # PyTorch's profiler cannot see OpenVINO's operations.
            if self._profiled and name in groups and "openvino" not in name:
                row = replace(row, operations=tuple(operations(candidates[name], self._device)))
            yield row

    def _passes(
        self, network: ReducingViT, groups: Mapping[str, list[Group]], dtypes: Sequence[str]
    ) -> dict[str, CompiledPasses]:
        """The network in OpenVINO in some number formats, converted once for all batch sizes."""
        if not self._converted.keys() >= set(dtypes):
            (family,) = PlanFamily.all_of(plan for own in groups.values() for plan, _ in own)
            threads = torch.get_num_threads()
            self._converted |= open_network(network, family, self._size, dtypes, threads)
        return {dtype: self._converted[dtype] for dtype in dtypes}

    def _row(
        self,
        case: Case,
        name: str,
        sample: Sample,
        dense: float,
        network: ReducingViT,
        groups: list[Group] | None,
    ) -> SpeedRow:
        bound = None
        if groups is not None:
            spent = sum(network.geometry.gmacs(plan) * count for plan, count in groups)
            bound = network.geometry.gmacs(DENSE) * case.batch / spent
        return SpeedRow(
            dtype=_name(case.dtype),
            batch=case.batch,
            candidate=name,
            ratio=float(name.split()[1]) if name.startswith("ratio ") else None,
            images_per_s=case.batch / sample.median,
            low=case.batch / sample.high,
            high=case.batch / sample.low,
            speedup=dense / sample.median,
            bound=bound,
            rounds=sample.rounds,
        )

    def _plan(self, network: ReducingViT, ratio: float) -> ReductionPlan:
        if ratio == 0:
            return DENSE
        geometry = network.geometry
        return plan_for_ratio(ratio, patches=geometry.patches, depth=geometry.depth, method=self._method)

    def _mix(self, network: ReducingViT, batch: int) -> list[Group]:
        """Divide a batch among the ratios of the mix; the last gets the remainder."""
        share = batch // len(MIX)
        counts = [share] * (len(MIX) - 1) + [batch - share * (len(MIX) - 1)]
        return [(self._plan(network, ratio), n) for ratio, n in zip(MIX, counts, strict=True)]


def _of_uniform(samples: Mapping[str, Sample], name: str, mix: Sequence[Group]) -> float | None:
    """The mix's share of the speed of uniform batches of its ratios; None if one of them was not timed."""
    names = [f"ratio {ratio:g}{name.removeprefix('mixed')}" for ratio in MIX]
    if not all(name in samples for name in names):
        return None
    counts = [count for _, count in mix]
    uniform = sum(samples[name].median * count for name, count in zip(names, counts, strict=True)) / sum(
        counts
    )
    return uniform / samples[name].median


def _bind(network: ReducingViT, images: torch.Tensor, groups: list[Group]) -> Callable[[], object]:
    return lambda: network(images, groups)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
