"""A golf ball in the grass, in the evening sun."""

from __future__ import annotations

import numpy as np
import paint
from paint import Plane

_SHAPE = (480, 640)
_CENTRE, _RADIUS = (345.0, 255.0), 112.0
_LIGHT = np.array([-0.55, -0.65, 0.55]) / np.linalg.norm([-0.55, -0.65, 0.55])


def golf_ball(rng: np.random.Generator) -> Plane:
    """The picture, [480, 640, 3]."""
    picture = _far(rng)
    picture = _blades(picture, rng, 2600, (230.0, 330.0), (12, 30), 0.9)
    shadow = paint.ellipse(_SHAPE, (300, 325, 520, 385), soft=14)
    picture = paint.over(picture, (0.05, 0.11, 0.03), 0.75 * shadow)
    picture = _ball(picture, rng)
    return _blades(picture, rng, 3400, (352.0, 560.0), (26, 75), 1.0)


def _far(rng: np.random.Generator) -> Plane:
    """The fairway and the trees behind it, out of focus."""
    picture = paint.vertical(
        _SHAPE,
        [(0, (0.75, 0.84, 0.9)), (0.22, (0.9, 0.9, 0.8)), (0.3, (0.5, 0.62, 0.25)), (1, (0.2, 0.36, 0.09))],
    )
    trees = paint.fractal(_SHAPE, 5, 4, rng)
    _, y = paint.grid(_SHAPE)
    crown = 40 + 55 * paint.noise((1, _SHAPE[1]), 1, rng) + 26 * trees
    wood = paint.smoothstep(-6, 6, y - crown) * paint.smoothstep(8, -8, y - 138)
    picture = paint.over(picture, (0.12, 0.24, 0.1), wood * (0.7 + 0.3 * trees))
    picture *= (0.8 + 0.4 * paint.fractal(_SHAPE, 9, 4, rng))[..., None]
    return paint.blur(picture, 7)


def _blades(
    picture: Plane,
    rng: np.random.Generator,
    count: int,
    rows: tuple[float, float],
    length: tuple[int, int],
    strength: float,
) -> Plane:
    """Blades of grass, the far ones first."""
    from PIL import Image, ImageDraw

    scale = 2
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    image = image.resize((_SHAPE[1] * scale, _SHAPE[0] * scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image, "RGBA")
    for y in np.sort(rng.uniform(*rows, count)):
        x, tall = rng.uniform(-20, _SHAPE[1] + 20), rng.uniform(*length)
        lean, light = rng.normal(0, 0.35) * tall, rng.uniform(0.35, 1.0)
        colour = tuple(int(255 * c * light) for c in (0.36 + 0.2 * light, 0.62, 0.16))
        spine = paint.curve([(x, y), (x + lean * 0.2, y - tall * 0.6), (x + lean, y - tall)], 8)
        half = tall / 28
        left = [(px - half * (1 - i / 7), py) for i, (px, py) in enumerate(spine)]
        right = [(px + half * (1 - i / 7), py) for i, (px, py) in enumerate(spine)]
        outline = [(px * scale, py * scale) for px, py in left + right[::-1]]
        draw.polygon(outline, fill=(*colour, int(255 * strength)))
    small = image.resize((_SHAPE[1], _SHAPE[0]), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.float64) / 255


def _ball(picture: Plane, rng: np.random.Generator) -> Plane:
    """A white sphere with dimples, lit from the left."""
    part = np.s_[130:380, 220:470]
    x, y = (place[part] for place in paint.grid(_SHAPE))
    nx, ny = (x - _CENTRE[0]) / _RADIUS, (y - _CENTRE[1]) / _RADIUS
    flat = nx**2 + ny**2
    inside = paint.smoothstep(1.012, 0.988, np.sqrt(flat))
    nz = np.sqrt(np.clip(1 - flat, 0.0, 1))
    normal = np.stack([nx, ny, nz], axis=-1)
    normal = _dimpled(normal / np.linalg.norm(normal, axis=-1, keepdims=True))
    lit = np.clip(normal @ _LIGHT, 0, 1)
    half = _LIGHT + np.array([0, 0, 1])
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 60
    below = np.clip(normal[..., 1], 0, 1)
    sky = np.clip(-normal[..., 1] * 0.5 + 0.5, 0, 1)
    colour = (
        lit[..., None] * np.array([0.86, 0.82, 0.72])
        + sky[..., None] * np.array([0.2, 0.23, 0.28])
        + below[..., None] * np.array([0.1, 0.17, 0.05])
        + 0.04
        + 0.35 * shine[..., None]
    )
    edge = 0.75 + 0.25 * paint.smoothstep(0.0, 0.35, nz)
    made = picture.copy()
    made[part] = paint.over(picture[part], np.clip(colour * edge[..., None], 0, 1), inside)
    return made


def _dimpled(normal: Plane) -> Plane:
    """Tilt the normals of a sphere towards the middles of evenly spread dimples."""
    count, reach = 380, 0.098
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    middles = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=-1)
    middles = middles[middles[:, 2] > -0.15]
    near = np.full(normal.shape[:2], 9.0)
    towards = np.zeros_like(normal)
    for middle in middles:
        away = normal - middle
        distance = np.linalg.norm(away, axis=-1)
        closer = distance < near
        near = np.where(closer, distance, near)
        towards = np.where(closer[..., None], away, towards)
    depth = paint.smoothstep(reach, reach * 0.72, near) * np.clip(near / reach, 0, 1)
    unit = towards / np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-9)
    tilted = normal - 0.62 * depth[..., None] * unit
    return tilted / np.linalg.norm(tilted, axis=-1, keepdims=True)
