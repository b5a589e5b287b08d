"""A white village church on a late afternoon."""

from __future__ import annotations

import numpy as np
import paint
from paint import Colour, Plane, Points

_SHAPE = (640, 600)
_GROUND = 520.0
_MIDDLE = 214.0


def church(rng: np.random.Generator) -> Plane:
    """The picture, [640, 600, 3]."""
    picture = paint.clouds(
        paint.vertical(_SHAPE, [(0, (0.22, 0.46, 0.78)), (0.7, (0.6, 0.77, 0.92)), (1, (0.85, 0.88, 0.86))]),
        rng,
        least=0.53,
    )
    picture = _trees(picture, rng, base=470, height=95, dark=0.55)
    picture = _lawn(picture, rng)
    picture = _nave(picture, rng)
    picture = _tower(picture, rng)
    return _bushes(picture, rng)


def _trees(picture: Plane, rng: np.random.Generator, base: float, height: float, dark: float) -> Plane:
    """A wood on the horizon."""
    _, y = paint.grid(_SHAPE)
    leaves = paint.fractal(_SHAPE, 26, 5, rng)
    hills = np.repeat(paint.fractal((40, _SHAPE[1]), 4, 3, rng)[20:21], _SHAPE[0], axis=0)
    crown = base - height * (0.3 + 0.7 * hills) + 16 * (paint.fractal(_SHAPE, 14, 3, rng) - 0.5)
    wood = paint.smoothstep(-2, 2, y - crown)
    green = (0.4 + 0.9 * leaves)[..., None] * np.array([0.27, 0.4, 0.15]) * dark * 1.4
    return paint.over(picture, green, wood)


def _lawn(picture: Plane, rng: np.random.Generator) -> Plane:
    """Mown grass, with a path to the door."""
    _, y = paint.grid(_SHAPE)
    blades = rng.random(_SHAPE)
    near = np.clip((y - 500) / 140, 0, 1)
    grain = 0.55 * paint.fractal(_SHAPE, 30, 4, rng) + 0.45 * paint.blur(blades, 0.8)
    green = (0.55 + 0.6 * grain * (0.6 + 0.6 * near))[..., None] * np.array([0.36, 0.56, 0.17])
    picture = paint.over(picture, green, paint.smoothstep(_GROUND - 14, _GROUND - 10, y))
    path: Points = [(_MIDDLE - 22, _GROUND), (_MIDDLE + 22, _GROUND), (352, 640), (120, 640)]
    stone = (0.75 + 0.3 * grain)[..., None] * np.array([0.8, 0.74, 0.63])
    return paint.over(picture, stone, paint.polygon(_SHAPE, path, soft=1.2))


def _boards(colour: Colour, pitch: float, rng: np.random.Generator) -> Plane:
    """Painted boards, each with the shadow of the one above."""
    _, y = paint.grid(_SHAPE)
    place = (y / pitch) % 1
    shade = 0.86 + 0.14 * paint.smoothstep(0.0, 0.3, place)
    worn = 0.95 + 0.08 * paint.fractal(_SHAPE, 12, 4, rng)
    return np.asarray(colour) * (shade * worn)[..., None]


def _nave(picture: Plane, rng: np.random.Generator) -> Plane:
    """The long side, going back to the right, under a shingle roof."""
    wall: Points = [(_MIDDLE, 350), (440, 372), (440, 506), (_MIDDLE, _GROUND)]
    picture = paint.over(picture, _boards((0.78, 0.79, 0.83), 7, rng), paint.polygon(_SHAPE, wall))
    _, y = paint.grid(_SHAPE)
    shingle = 0.8 + 0.2 * paint.smoothstep(0.1, 0.5, (y / 6) % 1) * (0.8 + 0.4 * rng.random(_SHAPE))
    roof: Points = [(_MIDDLE, 262), (392, 292), (452, 378), (_MIDDLE + 60, 352)]
    picture = paint.over(
        picture, shingle[..., None] * np.array([0.31, 0.3, 0.32]), paint.polygon(_SHAPE, roof)
    )
    for k in range(3):
        left = 306 + 44 * k
        picture = _window(picture, left, 408 + 2.2 * k, 17 - 1.2 * k, 68 - 3 * k)
    front: Points = [(_MIDDLE - 76, _GROUND), (_MIDDLE - 76, 352), (_MIDDLE, 262), (_MIDDLE + 76, 352)]
    front.append((_MIDDLE + 76, _GROUND))
    picture = paint.over(picture, _boards((0.98, 0.96, 0.9), 7, rng), paint.polygon(_SHAPE, front))
    for side in (-1, 1):
        eave = paint.line(_SHAPE, [(_MIDDLE, 258), (_MIDDLE + side * 84, 358)], 7)
        picture = paint.over(picture, (0.88, 0.87, 0.84), eave)
        picture = _window(picture, _MIDDLE + side * 48 - 9, 400, 18, 66)
    return picture


def _window(picture: Plane, left: float, top: float, width: float, height: float) -> Plane:
    """A pointed window in a white frame, the sky in its panes."""
    for grow, colour in ((3.0, (0.93, 0.92, 0.88)), (0.0, (0.17, 0.24, 0.33))):
        x0, x1, y0, y1 = left - grow, left + width + grow, top - grow, top + height + grow
        middle, spring = (x0 + x1) / 2, y0 + width * 0.9
        arch = paint.curve([(x0, spring), (x0, y0 + width * 0.3), (middle, y0)], 10)
        arch += paint.curve([(middle, y0), (x1, y0 + width * 0.3), (x1, spring)], 10)
        picture = paint.over(picture, colour, paint.polygon(_SHAPE, [*arch, (x1, y1), (x0, y1)]))
    for part in (0.3, 0.55, 0.8):
        y = top + part * height
        bar = paint.line(_SHAPE, [(left, y), (left + width, y)], 1.4)
        picture = paint.over(picture, (0.85, 0.85, 0.83), bar)
    upright = paint.line(_SHAPE, [(left + width / 2, top + 2), (left + width / 2, top + height)], 1.4)
    return paint.over(picture, (0.85, 0.85, 0.83), upright)


def _tower(picture: Plane, rng: np.random.Generator) -> Plane:
    """The tower over the door, with a belfry, a spire and a cross."""
    half = 36.0
    boards = _boards((0.99, 0.97, 0.91), 7, rng)
    side = _boards((0.7, 0.71, 0.76), 7, rng)

    def block(picture: Plane, half: float, top: float, bottom: float) -> Plane:
        flank: Points = [(_MIDDLE + half, top), (_MIDDLE + half * 1.45, top + 4)]
        flank += [(_MIDDLE + half * 1.45, bottom - 2), (_MIDDLE + half, bottom)]
        picture = paint.over(picture, side, paint.polygon(_SHAPE, flank))
        face = (_MIDDLE - half, top, _MIDDLE + half, bottom)
        picture = paint.over(picture, boards, paint.box(_SHAPE, face))
        cornice = (_MIDDLE - half - 5, top - 7, _MIDDLE + half * 1.45 + 4, top + 2)
        return paint.over(picture, (0.93, 0.92, 0.88), paint.box(_SHAPE, cornice))

    picture = block(picture, half, 246, _GROUND)
    picture = block(picture, half - 7, 180, 242)
    tip = (_MIDDLE + 5, 92.0)
    spire: Points = [(_MIDDLE - half + 4, 174), (_MIDDLE + half - 6, 174), tip]
    picture = paint.over(picture, (0.42, 0.45, 0.5), paint.polygon(_SHAPE, spire))
    shaded: Points = [(_MIDDLE + half - 6, 174), (_MIDDLE + half + 10, 171), tip]
    picture = paint.over(picture, (0.25, 0.27, 0.32), paint.polygon(_SHAPE, shaded))
    for bar in ([(tip[0], 66.0), (tip[0], 96.0)], [(tip[0] - 8, 75.0), (tip[0] + 8, 75.0)]):
        picture = paint.over(picture, (0.86, 0.7, 0.3), paint.line(_SHAPE, bar, 3.4))
    belfry = paint.polygon(
        _SHAPE,
        [
            (_MIDDLE - 12, 236),
            *paint.curve([(_MIDDLE - 12, 208), (_MIDDLE, 184), (_MIDDLE + 12, 208)], 14),
            (_MIDDLE + 12, 236),
        ],
    )
    picture = paint.over(picture, (0.2, 0.2, 0.22), belfry)
    for y in range(204, 236, 6):
        slat = paint.line(_SHAPE, [(_MIDDLE - 12, y + 2), (_MIDDLE + 12, y + 2)], 2) * belfry
        picture = paint.over(picture, (0.7, 0.7, 0.68), slat)
    picture = _window(picture, _MIDDLE - 11, 306, 22, 74)
    return _door(picture)


def _door(picture: Plane) -> Plane:
    """Two red leaves under a pointed arch, and steps."""
    for grow, colour in ((5.0, (0.94, 0.93, 0.89)), (0.0, (0.48, 0.12, 0.1))):
        x0, x1 = _MIDDLE - 19 - grow, _MIDDLE + 19 + grow
        arch = paint.curve([(x0, 450), (x0, 428 - grow), (_MIDDLE, 416 - grow)], 12)
        arch += paint.curve([(_MIDDLE, 416 - grow), (x1, 428 - grow), (x1, 450)], 12)
        mask = paint.polygon(_SHAPE, [*arch, (x1, _GROUND - 6), (x0, _GROUND - 6)])
        picture = paint.over(picture, colour, mask)
    picture = paint.over(picture, (0.28, 0.06, 0.05), paint.line(_SHAPE, [(_MIDDLE, 418), (_MIDDLE, 514)], 2))
    for k in range(3):
        step = (_MIDDLE - 30 - 5 * k, 508 + 6 * k, _MIDDLE + 30 + 5 * k, 514 + 6 * k)
        picture = paint.over(picture, (0.8 - 0.07 * k,) * 3, paint.box(_SHAPE, step))
    return picture


def _bushes(picture: Plane, rng: np.random.Generator) -> Plane:
    """Round bushes along the walls, a tree at the left edge."""
    leaves = paint.fractal(_SHAPE, 60, 4, rng)
    places = [
        (118, 508, 26),
        (152, 514, 18),
        (300, 514, 20),
        (338, 510, 22),
        (376, 508, 17),
        (412, 506, 22),
        (446, 506, 25),
    ]
    for x, y, size in places:
        shape = paint.ellipse(_SHAPE, (x - size, y - size * 0.85, x + size, y + size * 0.6), soft=1.5)
        _, down = paint.grid(_SHAPE)
        light = 0.5 + 0.7 * leaves - 0.35 * np.clip((down - y) / size, -1, 1)
        colour = np.clip(light, 0, 1)[..., None] * np.array([0.28, 0.45, 0.16])
        picture = paint.over(picture, colour, paint.smoothstep(0.4, 0.6, shape + 0.5 * (leaves - 0.5)))
    trunk = paint.line(_SHAPE, [(44, 530), (48, 400), (40, 260)], 17)
    picture = paint.over(picture, (0.23, 0.17, 0.12), trunk)
    crown = np.zeros(_SHAPE)
    for x, y, size in [(20, 250, 84), (72, 196, 62), (10, 150, 76), (64, 300, 56)]:
        crown = np.maximum(crown, paint.ellipse(_SHAPE, (x - size, y - size, x + size, y + size), soft=16))
    coarse = paint.fractal(_SHAPE, 18, 5, rng)
    leafy = paint.smoothstep(0.46, 0.58, crown * 0.9 + 0.75 * (coarse - 0.5))
    green = (0.3 + 0.9 * leaves * coarse + 0.2 * coarse)[..., None] * np.array([0.33, 0.5, 0.17])
    return paint.over(picture, green, leafy)
