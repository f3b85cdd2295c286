"""Scenes of the world: sky, layers and objects of each, drawn by code.

Lengths are in image heights, x to the right, y down. Each slot of a layer draws from its own generator.
Nothing repeats within four frames of the fastest scrolling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .shapes import Colour, Sketch, mixed

GROUND = 0.74  # top of the ground layer; subjects stand slightly lower

_Rng = np.random.Generator
_LIT: Colour = (255, 224, 130)

_HOUSES: tuple[Colour, ...] = (
    (214, 128, 108),
    (232, 196, 130),
    (150, 176, 206),
    (170, 196, 150),
    (206, 160, 190),
    (226, 214, 196),
)
_ROOFS: tuple[Colour, ...] = ((150, 74, 66), (96, 100, 124), (128, 92, 70))


@dataclass(frozen=True)
class Layer:
    """`speed`: 1 moves with the ground, 0 is at infinity. `band`: drawn over the full width.

    `slot`: slot width; `draw` puts one object at x into the sketch.
    """

    speed: float
    band: Callable[[Sketch, float, float, str], None] | None = None
    slot: float = 1.0
    draw: Callable[[Sketch, float, _Rng, str], None] | None = None


def _flat(top: float, colour: Colour, bottom: float = 1.0) -> Callable[[Sketch, float, float, str], None]:
    def band(s: Sketch, left: float, right: float, time: str) -> None:
        s.box(left, top, right - left, bottom - top, colour)

    return band


def _ridge(
    base: float, height: float, colour: Colour, period: float
) -> Callable[[Sketch, float, _Rng, str], None]:
    """Draw a wide hill per slot, overlapping its neighbours."""

    def draw(s: Sketch, x: float, rng: _Rng, time: str) -> None:
        top, half = base - height * rng.uniform(0.4, 1.0), period * rng.uniform(0.7, 0.9)
        turn = np.linspace(np.pi, 0, 18)
        s.polygon([(x + half * np.cos(a), base - (base - top) * np.sin(a)) for a in turn], colour)

    return draw


def _house(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    wall, roof = _HOUSES[rng.integers(len(_HOUSES))], _ROOFS[rng.integers(len(_ROOFS))]
    w, h = rng.uniform(0.46, 0.6), rng.uniform(0.26, 0.42)
    glass = _LIT if time == "night" else (120, 150, 180)
    left, top = x - w / 2, GROUND - h
    s.box(left, top, w, h + 0.01, wall)
    if rng.random() < 0.6:
        s.polygon([(left - 0.05, top), (x, top - rng.uniform(0.12, 0.2)), (left + w + 0.05, top)], roof)
    else:
        s.box(left - 0.03, top - 0.05, w + 0.06, 0.06, roof)
    door = x + rng.choice((-0.14, 0.0, 0.14))
    s.box(door - 0.06, GROUND - 0.17, 0.12, 0.17, mixed(roof, (40, 30, 30), 0.3))
    for u in (-0.13, 0.13):
        s.box(x + u - 0.055, top + 0.05, 0.11, 0.1, glass)


def _round_tree(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    h = rng.uniform(0.32, 0.5)
    leaf: Colour = ((74, 148, 80), (104, 164, 70), (206, 146, 70))[rng.integers(3)]
    s.box(x - 0.03, GROUND - h * 0.6, 0.06, h * 0.6 + 0.02, (124, 88, 62))
    s.ellipse(x, GROUND - h, rng.uniform(0.14, 0.2), rng.uniform(0.15, 0.2), leaf)


def _fir(s: Sketch, x: float, rng: _Rng, time: str, snow: bool = False) -> None:
    h, w = rng.uniform(0.4, 0.62), rng.uniform(0.15, 0.21)
    s.box(x - 0.03, GROUND - 0.12, 0.06, 0.14, (110, 78, 58))
    for k in range(2):
        base, top = GROUND - 0.08 - 0.38 * h * k, GROUND - 0.08 - 0.38 * h * k - 0.62 * h
        half = w * (1 - 0.25 * k)
        s.polygon([(x - half, base), (x, top), (x + half, base)], (56, 112, 84) if snow else (48, 116, 66))
        if snow:
            s.polygon(
                [(x - 0.4 * half, base - 0.37 * h), (x, top), (x + 0.4 * half, base - 0.37 * h)],
                (246, 250, 255),
            )


def _lamp(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    s.box(x - 0.016, GROUND - 0.46, 0.032, 0.47, (84, 88, 100))
    s.ellipse(x, GROUND - 0.49, 0.06, 0.06, _LIT if time != "day" else (236, 238, 240))


def _street(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    kind = rng.random()
    (_house if kind < 0.66 else _round_tree if kind < 0.88 else _lamp)(s, x, rng, time)


def _tower(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    w, h = rng.uniform(0.22, 0.34), rng.uniform(0.2, 0.42)
    s.box(x - w / 2, GROUND - h, w, h, (186, 200, 216))


def _palm(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    h, lean = rng.uniform(0.42, 0.58), rng.uniform(-0.1, 0.1)
    s.polygon(
        [
            (x - 0.04, GROUND + 0.03),
            (x + lean - 0.025, GROUND - h),
            (x + lean + 0.025, GROUND - h),
            (x + 0.04, GROUND + 0.03),
        ],
        (150, 108, 70),
    )
    for a in (-2.9, -2.3, -0.85, -0.25):
        s.ellipse(
            x + lean + 0.13 * np.cos(a),
            GROUND - h + 0.13 * np.sin(a) + 0.05,
            0.15,
            0.045,
            (62, 150, 82),
            -np.rad2deg(a),
        )
    s.ellipse(x + lean, GROUND - h + 0.03, 0.04, 0.04, (120, 80, 52))


def _beach(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    kind = rng.random()
    strong: Colour = ((222, 84, 76), (72, 134, 214), (240, 190, 70), (120, 190, 130))[rng.integers(4)]
    if kind < 0.4:
        _palm(s, x, rng, time)
    elif kind < 0.75:  # a parasol
        top = GROUND - rng.uniform(0.28, 0.4)
        s.box(x - 0.013, top, 0.026, GROUND - top + 0.04, (240, 240, 236))
        dome = [(x + 0.2 * np.cos(a), top + 0.02 - 0.15 * np.sin(a)) for a in np.linspace(np.pi, 0, 14)]
        s.polygon(dome, strong)
        s.polygon(
            [p for p in dome if abs(p[0] - x) < 0.1] + [(x + 0.09, top + 0.02), (x - 0.09, top + 0.02)],
            (250, 246, 238),
        )
    elif kind < 0.88:  # a hut
        s.box(x - 0.16, GROUND - 0.26, 0.32, 0.28, strong)
        s.polygon([(x - 0.22, GROUND - 0.26), (x, GROUND - 0.42), (x + 0.22, GROUND - 0.26)], (196, 160, 104))
        s.box(x - 0.05, GROUND - 0.16, 0.1, 0.18, (96, 74, 62))
    else:
        s.ellipse(x, GROUND + 0.02, rng.uniform(0.12, 0.2), rng.uniform(0.08, 0.14), (150, 146, 150))


def _sail(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    if rng.random() < 0.5:
        s.polygon([(x, 0.36), (x, 0.54), (x + 0.12, 0.54)], (250, 250, 250))
        s.polygon([(x - 0.08, 0.55), (x + 0.14, 0.55), (x + 0.09, 0.59), (x - 0.04, 0.59)], (190, 84, 70))


def _forest(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    kind = rng.random()
    if kind < 0.45:
        _fir(s, x, rng, time)
    elif kind < 0.8:
        h = rng.uniform(0.5, 0.7)
        s.box(x - 0.045, GROUND - h, 0.09, h + 0.02, (122, 84, 56))
        s.ellipse(
            x,
            GROUND - h,
            rng.uniform(0.2, 0.27),
            rng.uniform(0.17, 0.22),
            ((70, 136, 66), (110, 158, 64), (196, 132, 58))[rng.integers(3)],
        )
    elif kind < 0.9:  # a mushroom
        s.box(x - 0.04, GROUND - 0.14, 0.08, 0.17, (244, 234, 214))
        s.polygon(
            [(x + 0.15 * np.cos(a), GROUND - 0.13 - 0.14 * np.sin(a)) for a in np.linspace(np.pi, 0, 14)],
            (208, 62, 54),
        )
    else:
        s.ellipse(x, GROUND, 0.2, rng.uniform(0.1, 0.16), (64, 128, 72))


def _far_trunk(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    s.ellipse(x, GROUND - rng.uniform(0.2, 0.34), rng.uniform(0.2, 0.28), 0.22, (150, 190, 136))


def _peak(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    h, w = rng.uniform(0.26, 0.46), rng.uniform(0.3, 0.42)
    s.polygon([(x - w, GROUND), (x, GROUND - h), (x + w, GROUND)], (142, 160, 190))
    s.polygon(
        [(x - 0.36 * w, GROUND - 0.64 * h), (x, GROUND - h), (x + 0.36 * w, GROUND - 0.64 * h)],
        (238, 244, 250),
    )


def _snow(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    kind = rng.random()
    if kind < 0.58:
        _fir(s, x, rng, time, snow=True)
    elif kind < 0.78:  # a cabin
        s.box(
            x - 0.2, GROUND - 0.24, 0.4, 0.26, ((146, 98, 68), (176, 84, 74), (98, 116, 140))[rng.integers(3)]
        )
        s.polygon([(x - 0.27, GROUND - 0.23), (x, GROUND - 0.43), (x + 0.27, GROUND - 0.23)], (246, 250, 254))
        s.box(x - 0.06, GROUND - 0.17, 0.12, 0.11, _LIT)
    else:  # a snowman
        s.ellipse(x, GROUND - 0.06, 0.13, 0.12, (248, 250, 252))
        s.ellipse(x, GROUND - 0.23, 0.09, 0.09, (248, 250, 252))
        s.box(x - 0.065, GROUND - 0.38, 0.13, 0.09, (70, 74, 90))


def _desert(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    kind = rng.random()
    if kind < 0.58:
        h, green = rng.uniform(0.32, 0.52), (82, 146, 84)
        s.line([(x, GROUND + 0.02), (x, GROUND - h)], 0.09, green)
        for side in (-1, 1):
            at = GROUND - h * rng.uniform(0.4, 0.7)
            s.line([(x, at), (x + side * 0.14, at), (x + side * 0.14, at - 0.14)], 0.06, green)
    elif kind < 0.82:
        w, h = rng.uniform(0.14, 0.24), rng.uniform(0.14, 0.3)
        s.polygon(
            [
                (x - w, GROUND + 0.02),
                (x - 0.6 * w, GROUND - h),
                (x + 0.5 * w, GROUND - 0.9 * h),
                (x + w, GROUND + 0.02),
            ],
            (186, 112, 78),
        )
    else:  # a tent
        s.polygon(
            [(x - 0.26, GROUND + 0.02), (x, GROUND - 0.3), (x + 0.26, GROUND + 0.02)],
            ((190, 80, 74), (70, 110, 170))[rng.integers(2)],
        )
        s.polygon([(x - 0.08, GROUND + 0.02), (x, GROUND - 0.2), (x + 0.08, GROUND + 0.02)], (70, 50, 50))


def _pyramid(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    if rng.random() < 0.5:
        w, h = rng.uniform(0.24, 0.36), rng.uniform(0.18, 0.3)
        s.polygon([(x - w, GROUND), (x, GROUND - h), (x + w, GROUND)], (222, 178, 112))
        s.polygon([(x + 0.25 * w, GROUND), (x, GROUND - h), (x + w, GROUND)], (196, 150, 94))
    else:
        _ridge(GROUND, 0.2, (232, 192, 124), 0.6)(s, x, rng, time)


def _reef(s: Sketch, x: float, rng: _Rng, time: str) -> None:
    kind = rng.random()
    strong: Colour = ((232, 110, 120), (246, 160, 90), (190, 120, 210), (240, 210, 110))[rng.integers(4)]
    if kind < 0.4:  # coral
        h = rng.uniform(0.2, 0.36)
        for u in (-0.14, 0.0, 0.14):
            s.line([(x, GROUND + 0.02), (x + u, GROUND - h * (0.65 if u else 1.0))], 0.075, strong)
    elif kind < 0.75:  # weed
        h = rng.uniform(0.34, 0.6)
        for u in (-0.1, 0.1):
            s.polygon(
                [
                    (x + u - 0.05, GROUND + 0.03),
                    (x + 1.6 * u, GROUND - h * (1 - abs(u))),
                    (x + u + 0.05, GROUND + 0.03),
                ],
                (60, 150, 110),
            )
    elif kind < 0.88:
        s.ellipse(x, GROUND + 0.02, rng.uniform(0.16, 0.26), rng.uniform(0.14, 0.24), (96, 112, 140))
    else:  # a chest
        s.rounded(x - 0.17, GROUND - 0.22, 0.34, 0.24, 0.05, (150, 98, 58))
        s.box(x - 0.17, GROUND - 0.13, 0.34, 0.04, (244, 206, 90))


def _road(s: Sketch, left: float, right: float, time: str) -> None:
    s.box(left, GROUND, right - left, 0.07, (206, 204, 200))
    s.box(left, GROUND + 0.07, right - left, 0.3, (112, 114, 124))
    for i in range(int(np.floor(left / 0.8)) - 1, int(right / 0.8) + 1):
        s.box(0.8 * i, 0.94, 0.4, 0.025, (240, 240, 232))


_SLOT = 0.62

SCENES: dict[str, tuple[tuple[Colour, Colour], tuple[Layer, ...]]] = {
    "street": (
        ((126, 190, 236), (206, 230, 246)),
        (Layer(0.3, None, 0.42, _tower), Layer(1.0, _road, _SLOT, _street)),
    ),
    "beach": (
        ((116, 200, 240), (208, 238, 248)),
        (
            Layer(0.2, _flat(0.5, (64, 150, 206)), 0.8, _sail),
            Layer(1.0, _flat(GROUND, (240, 214, 156)), _SLOT, _beach),
        ),
    ),
    "forest": (
        ((176, 214, 206), (214, 234, 214)),
        (
            Layer(0.4, _flat(GROUND - 0.14, (150, 190, 136)), 0.4, _far_trunk),
            Layer(1.0, _flat(GROUND, (128, 172, 92)), 0.56, _forest),
        ),
    ),
    "snow": (
        ((158, 194, 230), (220, 234, 246)),
        (Layer(0.3, None, 0.5, _peak), Layer(1.0, _flat(GROUND, (216, 228, 242)), _SLOT, _snow)),
    ),
    "desert": (
        ((130, 196, 230), (250, 232, 196)),
        (Layer(0.3, None, 0.6, _pyramid), Layer(1.0, _flat(GROUND, (234, 198, 134)), _SLOT, _desert)),
    ),
    "underwater": (
        ((40, 130, 190), (96, 190, 216)),
        (
            Layer(0.4, None, 0.5, _ridge(GROUND, 0.3, (74, 150, 190), 0.4)),
            Layer(1.0, _flat(GROUND, (214, 200, 156)), _SLOT, _reef),
        ),
    ),
}
