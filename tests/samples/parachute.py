"""A parachute under a summer sky."""

from __future__ import annotations

import numpy as np
import paint
from paint import Colour, Plane

_SHAPE = (480, 640)
_COLOURS: tuple[Colour, ...] = ((0.86, 0.16, 0.13), (0.97, 0.95, 0.9), (0.95, 0.62, 0.1), (0.97, 0.95, 0.9))
_GORES = 20
_LIGHT = np.array([-0.5, -0.75, 0.45]) / np.linalg.norm([-0.5, -0.75, 0.45])
_CENTRE, _RADIUS, _RIM = (318.0, 195.0), 142.0, 0.12
#: How far the canopy is tipped towards the one who looks up at it, in radians.
_TIP = 0.33
_KNOT = (322.0, 392.0)


def parachute(rng: np.random.Generator) -> Plane:
    """The picture, [480, 640, 3]."""
    picture = _canopy(_sky(rng), outside=False)
    picture = _canopy(_lines(picture), outside=True)
    return _jumper(picture)


def _sky(rng: np.random.Generator) -> Plane:
    picture = paint.vertical(
        _SHAPE, [(0, (0.2, 0.43, 0.76)), (0.6, (0.45, 0.66, 0.89)), (1, (0.76, 0.87, 0.95))]
    )
    return paint.clouds(picture, rng, least=0.5)


def _canopy(picture: Plane, *, outside: bool) -> Plane:
    """Half of a round canopy, the upper cap of a sphere: what is towards us, or the far inside."""
    x, y = (place / 2 for place in paint.grid((_SHAPE[0] * 2, _SHAPE[1] * 2)))
    u, v = (x - _CENTRE[0]) / _RADIUS, (y - _CENTRE[1]) / _RADIUS
    flat = u**2 + v**2
    depth = np.sqrt(np.clip(1 - flat, 0, 1)) * (1 if outside else -1)
    point = np.stack([u, v, depth], axis=-1)
    up, forth = _tipped(point)
    gore = (np.arctan2(forth, u) / (2 * np.pi) + 0.5) * _GORES
    bulge = np.abs(gore % 1 - 0.5) * 2
    above_rim = up - _RIM + 0.05 * (1 - bulge**2)
    here = paint.smoothstep(1.01, 0.99, np.sqrt(flat)) * paint.smoothstep(-0.012, 0.012, above_rim)
    here *= paint.smoothstep(0.998, 0.99, up)  # the vent at the top
    lit = np.clip(point @ _LIGHT, 0, 1) if outside else 0.1 + 0.2 * np.clip(-point @ _LIGHT, 0, 1)
    shade = (0.38 + 0.72 * lit) * (0.8 + 0.2 * (1 - bulge**6))
    colour = np.array(_COLOURS)[gore.astype(int) % len(_COLOURS)]
    cloth = np.clip(colour * shade[..., None], 0, 1)
    alpha = paint.halved(here)
    mean = paint.halved(cloth * here[..., None]) / np.maximum(alpha, 1e-9)[..., None]
    return paint.over(picture, mean, alpha)


def _tipped(point: Plane) -> tuple[Plane, Plane]:
    """Height along the canopy's axis, and depth across it."""
    up = -point[..., 1] * np.cos(_TIP) + point[..., 2] * np.sin(_TIP)
    forth = point[..., 1] * np.sin(_TIP) + point[..., 2] * np.cos(_TIP)
    return up, forth


def _lines(picture: Plane) -> Plane:
    """From the rim down to the harness."""
    across = np.sqrt(1 - _RIM**2)
    for turn in np.linspace(0, 2 * np.pi, _GORES, endpoint=False):
        side, back = np.cos(turn), np.sin(turn)
        x = _CENTRE[0] + _RADIUS * across * side
        y = _CENTRE[1] - _RADIUS * (_RIM * np.cos(_TIP) - across * back * np.sin(_TIP))
        line = paint.line(_SHAPE, [(x, y), (_KNOT[0] + 9 * side, _KNOT[1])], 1.1)
        picture = paint.over(picture, (0.2, 0.2, 0.24), 0.75 * line)
    return picture


def _jumper(picture: Plane) -> Plane:
    """A person in a harness, with hands on the risers."""
    suit, dark = (0.16, 0.2, 0.32), (0.1, 0.1, 0.13)
    x, y = _KNOT
    parts: list[tuple[Plane, Colour]] = [
        (paint.line(_SHAPE, [(x - 4, y + 36), (x - 8, y + 54), (x - 6, y + 70)], 6), dark),
        (paint.line(_SHAPE, [(x + 4, y + 36), (x + 9, y + 52), (x + 8, y + 69)], 6), dark),
        (paint.box(_SHAPE, (x - 9, y + 10, x + 9, y + 40), 6), suit),
        (paint.line(_SHAPE, [(x - 8, y + 14), (x - 14, y + 2), (x - 9, y - 10)], 5), suit),
        (paint.line(_SHAPE, [(x + 8, y + 14), (x + 14, y + 2), (x + 9, y - 10)], 5), suit),
        (paint.ellipse(_SHAPE, (x - 6, y - 3, x + 6, y + 10)), (0.75, 0.12, 0.1)),
    ]
    for mask, colour in parts:
        picture = paint.over(picture, colour, mask)
    return picture
