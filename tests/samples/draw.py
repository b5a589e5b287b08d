"""Paint the sample pictures of the page: `python tests/samples/draw.py FOLDER`.

They are computed from nothing but this code and a seed, so they can be shipped with the product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from church import church
from gas_pump import gas_pump
from golf_ball import golf_ball
from paint import Plane, blur
from parachute import parachute
from PIL import Image

PICTURES: dict[str, Callable[[np.random.Generator], Plane]] = {
    "golf_ball": golf_ball,
    "parachute": parachute,
    "church": church,
    "gas_pump": gas_pump,
}
_SEED = 7


def finish(picture: Plane, rng: np.random.Generator) -> Image.Image:
    """As a camera would have taken it: a little soft, a little grain, darker corners."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    corners = 1 - 0.16 * (x**2 + y**2) ** 1.5 / 2
    grain = rng.normal(0, 0.012, picture.shape[:2])[..., None]
    seen = blur(picture, 0.6) * corners[..., None] + grain
    return Image.fromarray((np.clip(seen, 0, 1) * 255 + 0.5).astype(np.uint8))


def main(folder: Path) -> None:
    """Write every picture as a JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, painted in PICTURES.items():
        rng = np.random.default_rng(_SEED)
        finish(painted(rng), rng).save(folder / f"{name}.jpg", quality=84, optimize=True, progressive=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
