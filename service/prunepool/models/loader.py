"""Load a model from the store onto a device."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from prunepool.errors import InvalidParameter, ManifestInvalid, WeightsInvalid
from prunepool.models.families import make_network
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.mapped_weights import fill
from prunepool.models.token_and_mean import POOL, read_token_and_mean
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE
from prunepool.store import Geometry, Manifest, NetworkOptions, StoredModel, open_store

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: Characters of the problem that is named; a list of missing keys has thousands.
_LONGEST_PROBLEM = 300

#: `auto` leaves float32 only for a dtype that is faster by this factor: rounding costs accuracy.
_WORTH_IT = 1.1

#: An emulated bfloat16 is several times slower than float32: one round is enough to see that.
_HOPELESS = 2.0


def load_model(
    name: str | Path | StoredModel = "deit_tiny_imagenet1k",
    *,
    device: str = "auto",
    dtype: str = "auto",
    store: str | Path | None = None,
) -> LoadedModel:
    """Load a model from the store, verify its weights, and move it to a device.

    Args:
        name: its name in the store, or a folder with a model.json; or the model itself.
        device: `auto` (a GPU if one is visible), `cpu`, `cuda` or `cuda:N`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`, which measures on this device and takes the
            fastest.
        store: the folder of models; None for the one that :func:`prunepool.store.open_store` takes.

    Raises:
        ModelNotFound: no such model.
        ManifestInvalid: its model.json is invalid, or states another geometry than its network has.
        WeightsInvalid: its weights have changed, are of another architecture, or are too large for the dtype.
        ArchitectureUnsupported: its tokens cannot be reduced.
        InvalidParameter: the device or dtype does not exist.
    """
    stored = name if isinstance(name, StoredModel) else open_store(store).open(name)
    stored.verify()
    network = network_with_weights(stored)
    check_geometry(stored.manifest, network.geometry)
    network = network.requires_grad_(False).to(resolve_device(device))
    network = network.to(resolve_dtype(dtype, network, stored.manifest))
    check_finite(network, stored.manifest)
    return LoadedModel(network, stored.manifest)


@torch.inference_mode()
def check_finite(network: ReducingViT, manifest: Manifest) -> None:
    """Compute one image of noise: weights that are finite may still overflow.

    Args:
        network: on its device and in its dtype.
        manifest: of the model.

    Raises:
        WeightsInvalid: the logits are not finite; names the largest number among the weights.
    """
    parameter = next(network.parameters())
    noise = torch.randn(
        1, 3, manifest.input_size, manifest.input_size, generator=torch.Generator().manual_seed(0)
    )
    logits = network(noise.to(parameter.device, parameter.dtype), [(DENSE, 1)]).logits
    if bool(torch.isfinite(logits).all()):
        return
    sizes = {
        key: float(value.abs().max()) for key, value in network.vit.state_dict().items() if value.numel()
    }
    key = max(sizes, key=sizes.__getitem__)
    dtype = str(parameter.dtype).removeprefix("torch.")
    raise WeightsInvalid(
        f"{manifest.name}: its answers are not finite in {dtype}; the largest of its weights is "
        f"{sizes[key]:.3g}, in {key}"
    )


def check_geometry(manifest: Manifest, geometry: Geometry) -> None:
    """Compare a manifest's geometry, from which token counts and costs are computed, with its network's.

    Raises:
        ManifestInvalid: they differ; names the first key that does.
    """
    if manifest.geometry is None or manifest.geometry == geometry:
        return
    for key, value in geometry:
        stated = getattr(manifest.geometry, key)
        if stated != value:
            raise ManifestInvalid(
                f"{manifest.name}: geometry.{key} is {stated}, but {manifest.architecture} at "
                f"{manifest.input_size}² has {value}"
            )


def network_of(manifest: Manifest, outputs: int = 0) -> ReducingViT:
    """The network of a manifest, with random weights, in evaluation mode.

    Args:
        manifest: of the model.
        outputs: of the head of a network without classes, if the manifest does not state its geometry yet; 0: it
            has no head.

    Raises:
        ArchitectureUnsupported: timm cannot make it, or its tokens cannot be reduced.
    """
    classes = len(manifest.labels)
    if not classes:
        classes = outputs if manifest.geometry is None else manifest.geometry.classes
    return new_network(manifest.architecture, classes, manifest.input_size, manifest.network)


def new_network(
    architecture: str, outputs: int, input_size: int, options: NetworkOptions | None = None
) -> ReducingViT:
    """A network with random weights, in evaluation mode.

    Args:
        architecture: timm's name, without a tag.
        outputs: of its head; 0 for none.
        input_size: input resolution, in pixels a side.
        options: what it has otherwise than its architecture.

    Raises:
        ArchitectureUnsupported: timm cannot make it, or its tokens cannot be reduced.
    """
    options = options or NetworkOptions()
    arguments = options.for_timm()
    if both := options.global_pool == POOL:
        arguments["global_pool"] = "token"
    network = make_network(architecture, num_classes=outputs, img_size=input_size, **arguments)
    if both:
        read_token_and_mean(network, outputs)
    if options.norm_eps is not None:
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = options.norm_eps
    return network


def network_without_weights(manifest: Manifest, outputs: int = 0) -> ReducingViT:
    """The same network on the meta device: shapes without values, which cost neither time nor memory."""
    with torch.device("meta"):
        return network_of(manifest, outputs)


def network_with_weights(stored: StoredModel) -> ReducingViT:
    """A stored model's network with its weights as float32, on the CPU; there is never a second copy of them.

    Raises:
        ArchitectureUnsupported: as :func:`network_of`.
        WeightsInvalid: keys or shapes do not match, or the file is no safetensors; names the first of them.
    """
    network = network_without_weights(stored.manifest)
    path = stored.weights_path
    try:
        fill(network.vit, path)
    except (SafetensorError, OSError) as error:
        raise WeightsInvalid(f"{path}: is not a safetensors file ({error})") from error
    except RuntimeError as error:
        _, *problems = [line.strip() for line in str(error).splitlines()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        why = problems[0].removesuffix(".")[:_LONGEST_PROBLEM] if problems else str(error)
        raise WeightsInvalid(f"{path.name} of {stored.manifest.name}: {why}{more}") from error
    return network


def resolve_device(device: str) -> torch.device:
    """The device that a setting names; `auto` is a GPU if one is visible.

    Raises:
        InvalidParameter: the device does not exist.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InvalidParameter("device", device, "auto, cpu, cuda or cuda:N") from error
    count = torch.cuda.device_count()
    if place.type == "cuda" and (place.index or 0) >= count:
        raise InvalidParameter(
            "device", device, f"one of the {count} GPUs that torch {torch.__version__} sees"
        )
    return place


def set_compute_threads(count: int) -> None:
    """Set the number of threads that models of this process use on a CPU; call it before the first one runs."""
    torch.set_num_threads(count)


def resolve_dtype(dtype: str, network: ReducingViT, manifest: Manifest) -> torch.dtype:
    """The dtype that a setting names; `auto` is decided by timing the network.

    Raises:
        InvalidParameter: the dtype does not exist.
    """
    if dtype == "auto":
        on_cpu = next(network.parameters()).device.type == "cpu"
        # With few images a GPU waits for kernel launches, which takes as long in every dtype.
        return fastest_dtype(network, manifest.input_size, batch=2 if on_cpu else 64)
    if dtype not in _DTYPES:
        raise InvalidParameter("dtype", dtype, "auto, " + ", ".join(_DTYPES))
    return _DTYPES[dtype]


@torch.inference_mode()
def fastest_dtype(
    network: ReducingViT,
    size: int,
    *,
    batch: int = 2,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> torch.dtype:
    """Time the dense network in float32 and bfloat16, alternating, and return the faster dtype.

    bfloat16 must be faster by a clear margin, because its rounding costs a little accuracy. It is timed because the
    name of a CPU does not tell: some emulate bfloat16 an order of magnitude slower than float32.

    Args:
        network: on its device, in float32.
        size: input resolution: height and width in pixels.
        batch: images in each timed pass.
        rounds: passes of each dtype.
        clock: a monotonic clock, in seconds.
    """
    device = next(network.parameters()).device
    candidates = {torch.float32: network, torch.bfloat16: copy.deepcopy(network).to(torch.bfloat16)}
    images = torch.zeros(batch, 3, size, size, device=device)
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in candidates}
    for turn in range(rounds + 1):
        for dtype, candidate in candidates.items():
            start = clock()
            candidate(images, [(DENSE, batch)]).logits.cpu()  # waits for the device
            if turn:  # the first pass of each also pays for set-up
                seconds[dtype].append(clock() - start)
        if turn and min(seconds[torch.bfloat16]) > _HOPELESS * max(seconds[torch.float32]):
            return torch.float32
    median = {dtype: statistics.median(times) for dtype, times in seconds.items()}
    wins = median[torch.float32] / median[torch.bfloat16] >= _WORTH_IT
    return torch.bfloat16 if wins else torch.float32
