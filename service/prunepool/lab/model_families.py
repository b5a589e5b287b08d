"""Which of timm's weights are served: `python -m prunepool.lab.model_families docs/models.md` writes the table.

Each architecture is made in full on the meta device, where shapes have no values, checked, and run dense and
reduced. Then a small network of its kind answers with random weights, and must give timm's own output to the bit.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from prunepool.errors import ArchitectureUnsupported
from prunepool.lab.small_networks import kind_of, randomise, small_network
from prunepool.models.families import family_of, make_network, timm_modules
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, plan_for_ratio

#: The table goes between these lines.
BEGIN, END = "<!-- families: made by `make families` -->", "<!-- families end -->"

_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of an architecture.

    Attributes:
        architecture: timm's name, without a tag.
        module: of timm, that defines it.
        weights: how many sets of weights timm lists.
        refused: why it is not served; None if it is.
        pool: how it makes one vector of its tokens; empty if it is refused.
        headless: how many of its sets of weights have no head.
    """

    architecture: str
    module: str
    weights: int
    refused: str | None
    pool: str
    headless: int


def same_as_timm(architecture: str, done: set[str]) -> bool:
    """Compare a small network of an architecture with timm, dense and to the bit, and run it reduced.

    Args:
        architecture: timm's name, without a tag.
        done: the kinds that were compared; one that is among them is not compared again. Its own is added.

    Returns:
        Whether it was compared now.

    Raises:
        ArchitectureUnsupported: it is refused.
        AssertionError: it gives something else than timm.
    """
    family = family_of(architecture)
    with torch.device("meta"):
        vit = small_network(architecture)
    family.check(vit, architecture)
    kind = kind_of(vit)
    if kind in done:
        return False
    network = family.wrap(randomise(small_network(architecture)))
    side = network.vit.patch_embed.img_size[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network.vit(images)
        dense = network(images, [(DENSE, 2)]).logits
        assert float(expected.std()) > 1e-3, f"{architecture}: an answer of nothing proves nothing"
        assert torch.equal(dense, expected), (
            f"{architecture}: differs by {float((dense - expected).abs().max())}"
        )
        _check_reduced(network, images, dense, architecture)
    done.add(kind)
    return True


def _check_reduced(network: ReducingViT, images: torch.Tensor, dense: torch.Tensor, name: str) -> None:
    """Half of the tokens removed: a finite answer, of the same shape, near the dense one, and not it."""
    geometry = network.geometry
    plan = plan_for_ratio(_RATIO, patches=geometry.patches, depth=geometry.depth, method="fuse")
    reduced, stages = network(images, [(plan, len(images))])
    assert stages, f"{name}: nothing was removed"
    assert reduced.shape == dense.shape, f"{name}: {reduced.shape}"
    assert bool(torch.isfinite(reduced).all()), f"{name}: reduced, its answer is not finite"
    far = float((reduced - dense).norm() / dense.norm())
    assert 0 < far < 1, f"{name}: reduced, its answer is {far:.3f} of its length from the dense one"


def verdict_of(architecture: str, weights: Iterable[str], module: str) -> Verdict:
    """Make an architecture in full on the meta device, check it, and run it dense and reduced."""
    listed = list(weights)
    configurations = [timm.get_pretrained_cfg(one) for one in listed]
    headless = sum(cfg is not None and not cfg.num_classes for cfg in configurations)
    refused, pool = None, ""
    try:
        with torch.device("meta"), torch.inference_mode():
            network = make_network(architecture)
            geometry = network.geometry
            plan = plan_for_ratio(_RATIO, patches=geometry.patches, depth=geometry.depth)
            images = torch.empty(2, 3, *network.vit.patch_embed.img_size)
            answer = network(images, [(DENSE, 1), (plan, 1)]).logits
        assert answer.shape[0] == len(images)
        pool = geometry.pool
    except ArchitectureUnsupported as error:
        refused = error.detail
    return Verdict(architecture, module, len(listed), refused, pool, headless)


def verdicts() -> list[Verdict]:
    """What is known of every architecture that timm lists weights of, in the modules that a family has."""
    found = []
    for module in timm_modules():
        tags: dict[str, list[str]] = defaultdict(list)
        for name in timm.list_models(module=module, pretrained=True):
            tags[name.partition(".")[0]].append(name)
        found += [verdict_of(name, listed, module) for name, listed in sorted(tags.items())]
    return found


def table(found: Iterable[Verdict]) -> str:
    """The verdicts in Markdown."""
    found = list(found)
    lines = ["| timm's module | sets of weights | served | pooled by |", "|---|---|---|---|"]
    for module in dict.fromkeys(one.module for one in found):
        own = [one for one in found if one.module == module]
        pools = Counter[str]()
        for one in own:
            if not one.refused:
                pools[one.pool] += one.weights
        by = ", ".join(f"`{pool}` {count}" for pool, count in pools.most_common())
        served = sum(one.weights for one in own if not one.refused)
        lines.append(f"| `{module}` | {sum(one.weights for one in own)} | {served} | {by} |")
    total = sum(one.weights for one in found)
    served = sum(one.weights for one in found if not one.refused)
    headless = sum(one.headless for one in found if not one.refused)
    lines.append("")
    lines.append(
        f"timm {timm.__version__} lists {total} sets of weights of {len(found)} architectures there. {served} are "
        f"served, {headless} of them without a head: their answer is an embedding."
    )
    refused = [one for one in found if one.refused]
    if refused:
        lines += ["", "| refused | sets of weights | why |", "|---|---|---|"]
        lines += [f"| `{one.architecture}` | {one.weights} | {one.refused} |" for one in refused]
    return "\n".join(lines)


def main(document: Path) -> None:
    """Compare every architecture with timm, and write the table into a document."""
    done: set[str] = set()
    compared = Counter[str]()
    for module in timm_modules():
        for name in timm.list_models(module=module):
            try:
                compared["computed" if same_as_timm(name, done) else "of a kind that was"] += 1
            except ArchitectureUnsupported:
                compared["refused"] += 1
    sys.stdout.write(", ".join(f"{count} {what}" for what, count in compared.items()) + "\n")
    written = table(verdicts())
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}")
    sys.stdout.write(written + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
