"""What the sample pictures are painted with: fields of noise, soft shapes, light on surfaces.

Colours are float [height, width, 3] from 0 to 1; masks are float [height, width].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Plane = NDArray[np.float64]
Points = list[tuple[float, float]]
Colour = tuple[float, float, float]


def noise(shape: tuple[int, int], cells: float, rng: np.random.Generator) -> Plane:
    """Smooth noise from 0 to 1, with about `cells` bumps along the height."""
    height, width = shape
    rows, columns = max(2, round(cells)), max(2, round(cells * width / height))
    grid = Image.fromarray(rng.random((rows + 1, columns + 1)).astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)


def fractal(shape: tuple[int, int], cells: float, octaves: int, rng: np.random.Generator) -> Plane:
    """Noise at several scales, each half as strong as the one before; 0 to 1."""
    layers = [noise(shape, cells * 2**i, rng) / 2**i for i in range(octaves)]
    total = np.sum(layers, axis=0)
    return (total - total.min()) / np.ptp(total)


def blur(image: Plane, radius: float) -> Plane:
    """Gaussian blur over height and width; the edges are mirrored."""
    height, width = image.shape[:2]
    down = (_gaussian(height, radius) @ image.reshape(height, -1)).reshape(image.shape)
    across = np.tensordot(_gaussian(width, radius), down, axes=(1, 1))
    return np.swapaxes(across, 0, 1)


def _gaussian(length: int, radius: float) -> Plane:
    """The matrix that blurs a row of pixels."""
    offsets = np.arange(-max(1, round(3 * radius)), max(1, round(3 * radius)) + 1)
    weights = np.exp(-0.5 * (offsets / radius) ** 2)
    rows = np.arange(length)[:, None]
    matrix = np.zeros((length, length))
    np.add.at(matrix, (rows, _mirrored(rows + offsets, length)), weights / weights.sum())
    return matrix


def smoothstep(low: float, high: float, x: Plane) -> Plane:
    """0 below `low`, 1 above `high`, smooth in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def polygon(shape: tuple[int, int], points: Points, soft: float = 0.0) -> Plane:
    """A mask of a polygon, its edge smooth."""
    return _drawn(shape, soft, lambda draw, s: draw.polygon([(x * s, y * s) for x, y in points], fill=255))


def box(
    shape: tuple[int, int], corners: tuple[float, float, float, float], radius: float = 0.0, soft: float = 0.0
) -> Plane:
    """A mask of a rectangle (left, top, right, bottom), its corners round."""
    return _drawn(
        shape,
        soft,
        lambda draw, s: draw.rounded_rectangle([c * s for c in corners], radius=radius * s, fill=255),
    )


def ellipse(shape: tuple[int, int], corners: tuple[float, float, float, float], soft: float = 0.0) -> Plane:
    """A mask of an ellipse within a box."""
    return _drawn(shape, soft, lambda draw, s: draw.ellipse([c * s for c in corners], fill=255))


def line(shape: tuple[int, int], points: Points, width: float, soft: float = 0.0) -> Plane:
    """A mask of a line through points."""
    return _drawn(
        shape,
        soft,
        lambda draw, s: draw.line(
            [(x * s, y * s) for x, y in points], fill=255, width=max(1, round(width * s)), joint="curve"
        ),
    )


def curve(points: Points, steps: int = 60) -> Points:
    """A Bézier curve with these control points."""
    control = np.array(points)
    t = np.linspace(0, 1, steps)[:, None, None]
    level = np.broadcast_to(control, (steps, *control.shape))
    while level.shape[1] > 1:
        level = level[:, :-1] * (1 - t) + level[:, 1:] * t
    return [(float(x), float(y)) for x, y in level[:, 0]]


def over(below: Plane, colour: Plane | Colour, mask: Plane) -> Plane:
    """Lay a colour over a picture where the mask is 1."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    made = below.copy()
    if rows.size:
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        alpha = np.clip(mask[part], 0, 1)[..., None]
        paint = np.asarray(colour)
        made[part] = below[part] * (1 - alpha) + (paint[part] if paint.ndim == 3 else paint) * alpha
    return made


def vertical(shape: tuple[int, int], stops: list[tuple[float, Colour]]) -> Plane:
    """A gradient from top to bottom through (place from 0 to 1, colour)."""
    y = np.linspace(0, 1, shape[0])
    places = [place for place, _ in stops]
    planes = [np.interp(y, places, [colour[i] for _, colour in stops]) for i in range(3)]
    return np.repeat(np.stack(planes, axis=-1)[:, None, :], shape[1], axis=1)


def grid(shape: tuple[int, int]) -> tuple[Plane, Plane]:
    """The x and y of every pixel's middle."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return x + 0.5, y + 0.5


def warped(image: Plane, shift_x: Plane, shift_y: Plane) -> Plane:
    """Each pixel taken from another place, so many pixels to the right and down."""
    height, width = image.shape[:2]
    x, y = grid((height, width))
    return image[_mirrored(y + shift_y, height), _mirrored(x + shift_x, width)]


def _mirrored(place: Plane, length: int) -> NDArray[np.int64]:
    """Indices; what lies beyond an edge is reflected."""
    folded = np.abs(np.floor(place).astype(np.int64)) % (2 * length - 2)
    return np.where(folded < length, folded, 2 * length - 2 - folded)


def halved(image: Plane) -> Plane:
    """Half as high and wide; each pixel the mean of four."""
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def clouds(picture: Plane, rng: np.random.Generator, least: float) -> Plane:
    """White clouds over a sky, lit from above; fewer of them the larger `least`."""
    shape = picture.shape[:2]
    size = shape[0]
    billow = fractal(shape, 3, 6, rng)
    for _ in range(2):
        push = [0.22 * size * (fractal(shape, 3, 5, rng) - 0.5) for _ in range(2)]
        billow = warped(billow, *push)
    billow = blur(billow, 1.2)
    below = warped(billow, np.zeros(shape), np.full(shape, -0.035 * size))
    light = np.clip(0.93 + 1.1 * (billow - below), 0.66, 1.0)
    cover = smoothstep(least, least + 0.22, billow)
    return over(picture, light[..., None] * np.array([1.0, 0.99, 0.97]), 0.92 * cover)


def _drawn(shape: tuple[int, int], soft: float, draw: object, scale: int = 3) -> Plane:
    image = Image.new("L", (shape[1] * scale, shape[0] * scale))
    draw(ImageDraw.Draw(image), scale)  # type: ignore[operator]
    mask = np.asarray(image.reduce(scale), dtype=np.float64) / 255
    return blur(mask, soft) if soft else mask
