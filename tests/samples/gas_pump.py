"""An old petrol pump on a forecourt."""

from __future__ import annotations

import numpy as np
import paint
from paint import Colour, Plane, Points

_SHAPE = (640, 600)
_LEFT, _RIGHT = 158.0, 318.0
_RED: Colour = (0.78, 0.13, 0.1)
_CREAM: Colour = (0.95, 0.92, 0.84)


def gas_pump(rng: np.random.Generator) -> Plane:
    """The picture, [640, 600, 3]."""
    picture = _forecourt(rng)
    picture = _body(picture, rng)
    picture = _face(picture)
    return _hose(picture)


def _forecourt(rng: np.random.Generator) -> Plane:
    """Trees far behind, concrete in front, both in the sun."""
    _, y = paint.grid(_SHAPE)
    sky = paint.vertical(_SHAPE, [(0, (0.4, 0.62, 0.86)), (0.4, (0.72, 0.83, 0.92)), (1, (0.8, 0.85, 0.88))])
    picture = paint.clouds(sky, rng, least=0.55)
    wood = paint.smoothstep(-4, 4, y - 265 + 60 * (paint.fractal(_SHAPE, 8, 5, rng) - 0.5))
    leaves = 0.4 + 0.8 * paint.fractal(_SHAPE, 22, 5, rng)
    picture = paint.over(picture, leaves[..., None] * np.array([0.24, 0.36, 0.16]), wood)
    picture = paint.blur(picture, 3.5)
    stain = paint.fractal(_SHAPE, 7, 6, rng)
    concrete = (0.72 + 0.22 * stain)[..., None] * np.array([0.78, 0.76, 0.72])
    picture = paint.over(picture, concrete, paint.smoothstep(446, 450, y))
    shadow: Points = [(_LEFT - 10, 590), (_RIGHT + 30, 590), (520, 508), (400, 504)]
    return paint.over(picture, (0.18, 0.18, 0.2), 0.55 * paint.polygon(_SHAPE, shadow, soft=5))


def _enamel(colour: Colour, left: float, right: float) -> Plane:
    """A glossy upright surface, rounded at both sides: bright streaks, dark edges."""
    x, _ = paint.grid(_SHAPE)
    across = np.clip((x - left) / (right - left), 0, 1)
    round_off = 0.55 + 0.45 * np.sin(np.pi * np.clip(across * 0.96 + 0.02, 0, 1)) ** 0.5
    streak = 0.35 * np.exp(-(((across - 0.2) / 0.05) ** 2)) + 0.12 * np.exp(-(((across - 0.82) / 0.04) ** 2))
    return np.clip(np.asarray(colour) * round_off[..., None] + streak[..., None], 0, 1)


def _body(picture: Plane, rng: np.random.Generator) -> Plane:
    """The plinth, the red cabinet, the cream head and the globe on top."""
    picture = paint.over(
        picture,
        _enamel((0.6, 0.59, 0.57), 130, 346),
        paint.box(_SHAPE, (130, 574, 346, 612), 5),
    )
    cabinet = paint.box(_SHAPE, (_LEFT, 136, _RIGHT, 580), 22)
    dirt = 0.93 + 0.1 * paint.fractal(_SHAPE, 10, 5, rng)
    picture = paint.over(picture, _enamel(_RED, _LEFT, _RIGHT) * dirt[..., None], cabinet)
    head = paint.box(_SHAPE, (_LEFT + 6, 142, _RIGHT - 6, 318), 18)
    picture = paint.over(picture, _enamel(_CREAM, _LEFT, _RIGHT), head)
    for y in (322, 470, 560):
        band = paint.box(_SHAPE, (_LEFT - 3, y, _RIGHT + 3, y + 7), 3)
        picture = paint.over(picture, _enamel((0.82, 0.83, 0.85), _LEFT, _RIGHT), band)
    neck = paint.box(_SHAPE, (212, 116, 264, 142), 4)
    picture = paint.over(picture, _enamel((0.7, 0.71, 0.73), 212, 264), neck)
    x, y = paint.grid(_SHAPE)
    globe = paint.ellipse(_SHAPE, (204, 54, 272, 122))
    light = np.clip(1.06 - 0.4 * np.hypot(x - 226, y - 74) / 68, 0, 1)
    picture = paint.over(picture, light[..., None] * np.array([0.98, 0.96, 0.9]), globe)
    ring = globe - paint.ellipse(_SHAPE, (210, 60, 266, 116))
    picture = paint.over(picture, _RED, ring)
    drop: Points = paint.curve([(238, 66), (216, 96), (229, 109), (238, 109)], 20)
    drop += paint.curve([(238, 109), (247, 109), (260, 96), (238, 66)], 20)
    return paint.over(picture, _RED, paint.polygon(_SHAPE, drop))


def _face(picture: Plane) -> Plane:
    """Counters behind glass, a panel below."""
    dark: Colour = (0.1, 0.1, 0.11)
    picture = paint.over(picture, (0.75, 0.76, 0.78), paint.box(_SHAPE, (178, 156, 298, 306), 8))
    picture = paint.over(picture, dark, paint.box(_SHAPE, (184, 162, 292, 300), 5))
    for row, figures in ((176, "0247"), (220, "0138"), (264, "129")):
        wide = 22.0
        start = 238 - wide * len(figures) / 2
        for k, figure in enumerate(figures):
            left = start + wide * k
            cell = paint.box(_SHAPE, (left + 1, row, left + wide - 1, row + 28), 2)
            picture = paint.over(picture, (0.94, 0.93, 0.88), cell)
            picture = _digit(picture, figure, left + 6, row + 5)
    glare: Points = [(184, 162), (236, 162), (196, 300), (184, 300)]
    picture = paint.over(picture, (1, 1, 1), 0.13 * paint.polygon(_SHAPE, glare))
    picture = paint.over(picture, _CREAM, paint.box(_SHAPE, (180, 352, 296, 440), 8))
    for k, width in enumerate((92, 64, 80)):
        stripe = paint.box(_SHAPE, (238 - width / 2, 368 + 22 * k, 238 + width / 2, 378 + 22 * k), 3)
        picture = paint.over(picture, (0.13, 0.2, 0.42) if k != 1 else _RED, stripe)
    for k in range(6):
        slot = paint.box(_SHAPE, (196, 492 + 10 * k, 280, 496 + 10 * k), 2)
        picture = paint.over(picture, (0.3, 0.04, 0.03), slot)
    return picture


#: The seven strokes of a figure: top, upper left, upper right, middle, lower left, lower right, bottom.
_STROKES = {
    "0": (1, 1, 1, 0, 1, 1, 1),
    "1": (0, 0, 1, 0, 0, 1, 0),
    "2": (1, 0, 1, 1, 1, 0, 1),
    "3": (1, 0, 1, 1, 0, 1, 1),
    "4": (0, 1, 1, 1, 0, 1, 0),
    "7": (1, 0, 1, 0, 0, 1, 0),
    "8": (1, 1, 1, 1, 1, 1, 1),
    "9": (1, 1, 1, 1, 0, 1, 1),
}


def _digit(picture: Plane, figure: str, x: float, y: float) -> Plane:
    """One figure of a counter, 10 pixels wide and 18 high."""
    corners = [(0, 0, 10, 0), (0, 0, 0, 9), (10, 0, 10, 9), (0, 9, 10, 9)]
    corners += [(0, 9, 0, 18), (10, 9, 10, 18), (0, 18, 10, 18)]
    for (x0, y0, x1, y1), drawn in zip(corners, _STROKES[figure], strict=True):
        if drawn:
            stroke = paint.line(_SHAPE, [(x + x0, y + y0), (x + x1, y + y1)], 2.6)
            picture = paint.over(picture, (0.08, 0.08, 0.09), stroke)
    return picture


def _hose(picture: Plane) -> Plane:
    """A black hose from the side to the nozzle in its holder."""
    way = paint.curve([(_RIGHT - 4, 250), (430, 190), (470, 640), (350, 590), (352, 400)], 80)
    lit = [(x - 3.0, y - 1.5) for x, y in way]
    picture = paint.over(picture, (0.05, 0.05, 0.06), paint.line(_SHAPE, way, 15))
    picture = paint.over(picture, (0.42, 0.43, 0.46), 0.7 * paint.line(_SHAPE, lit, 3, soft=1.2))
    holder = paint.box(_SHAPE, (_RIGHT - 4, 356, _RIGHT + 30, 420), 6)
    picture = paint.over(picture, (0.2, 0.2, 0.22), holder)
    handle: Points = [(340, 410), (362, 408), (366, 352), (352, 326), (338, 340)]
    picture = paint.over(picture, (0.14, 0.14, 0.16), paint.polygon(_SHAPE, handle))
    spout = paint.line(_SHAPE, [(352, 338), (344, 310), (322, 300)], 9)
    picture = paint.over(picture, (0.78, 0.79, 0.82), spout)
    trigger = paint.line(_SHAPE, [(338, 352), (326, 378), (338, 402)], 4)
    return paint.over(picture, (0.65, 0.66, 0.7), trigger)
