"""Subjects drawn by code: bold flat figures with moving legs, wheels and wings.

A figure stands with its feet at y = 0, its top near y = -1, x from about -0.55 to 0.55, facing right. Main
colour and pattern are free; eyes, wheels and beaks keep their colours. `turn`: phase in turns; one turn is a
step of a leg and half a turn of a wheel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .figure import BROWN, COLOURS, CREAM, DARK, GLASS, ORANGE, PATTERNS, STEEL, STRIPE_PERIOD, WHITE, Figure
from .shapes import Colour, ellipse, mixed, rounded

__all__ = ["COLOURS", "DRAWN", "PATTERNS", "STRIPE_PERIOD", "figure"]


def _cat(f: Figure, turn: float) -> None:
    wag = 0.05 * np.sin(2 * np.pi * turn)
    f.line([(-0.34, -0.46), (-0.5, -0.6), (-0.5 + wag, -0.82), (-0.4 + 2 * wag, -0.95)], 0.1, f.shade)
    f.legs((-0.3, 0.1), -0.34, 0.12, turn + 0.25, f.shade)
    f.legs((-0.18, 0.2), -0.34, 0.12, turn, f.main)
    f.painted(rounded(-0.42, -0.6, 0.72, 0.36, 0.17))
    for x, tip in ((0.1, 0.08), (0.46, 0.5)):
        f.polygon([(x, -0.8), (tip, -1.06), (x + (0.14 if x < 0.2 else -0.14), -0.9)], f.main)
    f.ellipse(0.28, -0.72, 0.27, 0.23, f.main)
    f.ellipse(0.3, -0.63, 0.15, 0.1, WHITE)
    f.eye(0.19, -0.77, 0.066)
    f.eye(0.39, -0.77, 0.066)
    f.polygon([(0.26, -0.69), (0.34, -0.69), (0.3, -0.63)], (240, 120, 140))
    for y in (-0.66, -0.6):
        f.line([(0.38, -0.63), (0.6, y)], 0.018, DARK)
        f.line([(0.2, -0.63), (0.0, y)], 0.018, DARK)


def _dog(f: Figure, turn: float) -> None:
    f.line([(-0.38, -0.56), (-0.52, -0.78 + 0.04 * np.sin(4 * np.pi * turn))], 0.1, f.shade)
    f.legs((-0.3, 0.12), -0.36, 0.12, turn + 0.25, f.shade)
    f.legs((-0.18, 0.22), -0.36, 0.12, turn, f.main)
    f.painted(rounded(-0.44, -0.64, 0.76, 0.36, 0.16))
    f.line([(0.22, -0.55), (0.26, -0.75)], 0.24, f.main)
    f.ellipse(0.26, -0.8, 0.19, 0.18, f.main)
    f.rounded(0.26, -0.82, 0.34, 0.2, 0.09, f.main)  # snout
    f.ellipse(0.58, -0.8, 0.055, 0.05, DARK)
    f.rounded(0.42, -0.64, 0.08, 0.14, 0.04, (240, 110, 130))  # tongue
    f.eye(0.32, -0.86, 0.058)
    f.ellipse(0.13, -0.76, 0.085, 0.19, BROWN, 12)  # hanging ear
    f.line(
        [(0.16, -0.58), (0.34, -0.56)], 0.06, (214, 60, 60) if f.main != COLOURS["red"] else (60, 110, 214)
    )


def _elephant(f: Figure, turn: float) -> None:
    f.line([(-0.44, -0.6), (-0.52, -0.36)], 0.05, f.shade)
    f.legs((-0.26, 0.1), -0.36, 0.17, turn + 0.25, f.shade, 0.35)
    f.legs((-0.12, 0.2), -0.36, 0.17, turn, f.main, 0.35)
    f.painted(ellipse(-0.1, -0.58, 0.38, 0.31))
    f.ellipse(0.3, -0.72, 0.22, 0.22, f.main)
    sway = 0.04 * np.sin(2 * np.pi * turn)
    f.line([(0.44, -0.68), (0.53, -0.48), (0.52 + sway, -0.26), (0.6 + 2 * sway, -0.18)], 0.12, f.main)
    f.line([(0.36, -0.54), (0.45, -0.44)], 0.05, WHITE)
    f.ellipse(0.13, -0.7, 0.17, 0.22, f.shade)
    f.eye(0.38, -0.78, 0.052)


def _giraffe(f: Figure, turn: float) -> None:
    f.line([(-0.3, -0.5), (-0.4, -0.34)], 0.04, f.shade)
    f.legs((-0.24, 0.06), -0.42, 0.085, turn + 0.25, f.shade, 0.4)
    f.legs((-0.16, 0.14), -0.42, 0.085, turn, f.main, 0.4)
    f.painted(
        np.array(
            [
                (-0.3, -0.4),
                (-0.3, -0.52),
                (-0.1, -0.6),
                (0.1, -0.66),
                (0.2, -0.98),
                (0.34, -0.98),
                (0.24, -0.42),
                (0.1, -0.36),
                (-0.22, -0.34),
            ]
        )
    )
    f.line([(0.22, -1.0), (0.2, -1.12)], 0.035, BROWN)
    f.line([(0.3, -1.0), (0.3, -1.12)], 0.035, BROWN)
    f.line([(0.26, -0.98), (0.44, -0.92)], 0.15, f.main)
    f.ellipse(0.46, -0.9, 0.06, 0.07, CREAM)
    f.eye(0.29, -1.0, 0.045)


def _rabbit(f: Figure, turn: float) -> None:
    hop = 0.07 * abs(np.sin(np.pi * turn))
    f.ellipse(-0.36, -0.26 - hop, 0.1, 0.1, WHITE)
    f.painted(ellipse(-0.08, -0.32 - hop, 0.31, 0.27))
    kick = 0.16 * np.sin(2 * np.pi * turn)
    f.ellipse(-0.1 - kick, -0.07, 0.19, 0.07, f.shade)
    f.ellipse(0.16 + kick, -0.07, 0.13, 0.065, f.shade)
    for x, lean in ((0.12, 10), (0.27, -6)):
        f.ellipse(x, -0.92 - hop, 0.075, 0.22, f.main, lean)
        f.ellipse(x, -0.9 - hop, 0.035, 0.15, (250, 170, 180), lean)
    f.ellipse(0.22, -0.6 - hop, 0.21, 0.19, f.main)
    f.ellipse(0.3, -0.53 - hop, 0.12, 0.09, WHITE)
    f.eye(0.16, -0.65 - hop, 0.058)
    f.eye(0.33, -0.65 - hop, 0.058)
    f.ellipse(0.3, -0.56 - hop, 0.045, 0.035, (240, 110, 130))


def _penguin(f: Figure, turn: float) -> None:
    lean = 5 * np.sin(2 * np.pi * turn)
    lift = 0.06 * np.sin(2 * np.pi * turn)
    f.ellipse(-0.12, -0.04 - max(0.0, lift), 0.14, 0.055, ORANGE)
    f.ellipse(0.14, -0.04 - max(0.0, -lift), 0.14, 0.055, ORANGE)
    f.ellipse(-0.32, -0.46, 0.09, 0.25, f.shade, 14 + 2 * lean)
    f.ellipse(0.34, -0.46, 0.09, 0.25, f.shade, -14 + 2 * lean)
    f.painted(ellipse(0, -0.5, 0.33, 0.46))
    f.ellipse(0.03, -0.36, 0.2, 0.3, WHITE)
    f.ellipse(0.03, -0.76, 0.22, 0.15, WHITE)
    f.ellipse(-0.06, -0.79, 0.045, 0.05, DARK)
    f.ellipse(0.14, -0.79, 0.045, 0.05, DARK)
    f.polygon([(-0.03, -0.74), (0.13, -0.74), (0.06, -0.62)], ORANGE)


def _turtle(f: Figure, turn: float) -> None:
    skin: Colour = (150, 200, 110)
    f.legs((-0.26, 0.18), -0.18, 0.13, turn + 0.25, mixed(skin, DARK, 0.3), 0.9)
    f.legs((-0.14, 0.26), -0.18, 0.13, turn, skin, 0.9)
    f.polygon([(-0.4, -0.22), (-0.56, -0.14), (-0.38, -0.14)], skin)
    nod = 0.02 * np.sin(2 * np.pi * turn)
    f.line([(0.3, -0.24), (0.46, -0.42 + nod)], 0.15, skin)
    f.ellipse(0.48, -0.47 + nod, 0.14, 0.12, skin)
    f.eye(0.52, -0.51 + nod, 0.05)
    dome = np.concatenate([ellipse(-0.04, -0.2, 0.4, 0.5)[14:], [(0.36, -0.2)]])
    f.painted(dome)
    f.rounded(-0.46, -0.25, 0.84, 0.11, 0.05, f.shade)


def _duck(f: Figure, turn: float) -> None:
    f.legs((-0.08, 0.08), -0.2, 0.07, turn, ORANGE, 0.9)
    f.painted(
        np.array(
            [
                (-0.54, -0.56),
                (-0.34, -0.5),
                (0.0, -0.54),
                (0.26, -0.5),
                (0.3, -0.32),
                (0.16, -0.17),
                (-0.1, -0.13),
                (-0.34, -0.22),
                (-0.48, -0.4),
            ]
        )
    )
    f.line([(0.16, -0.42), (0.22, -0.7)], 0.2, f.main)
    f.ellipse(0.22, -0.76, 0.19, 0.18, f.main)
    f.rounded(0.34, -0.78, 0.24, 0.11, 0.05, ORANGE)
    f.eye(0.26, -0.81, 0.056)
    f.ellipse(-0.12, -0.38, 0.19, 0.1 + 0.02 * np.sin(2 * np.pi * turn), f.shade, 8)


def _fish(f: Figure, turn: float) -> None:
    wag = 0.1 * np.sin(2 * np.pi * turn)
    f.polygon([(-0.24, -0.5), (-0.54, -0.74 + wag), (-0.46, -0.5 + wag), (-0.54, -0.26 + wag)], f.shade)
    f.polygon([(-0.14, -0.7), (0.06, -0.96), (0.2, -0.7)], f.shade)
    f.polygon([(-0.08, -0.3), (-0.02, -0.1), (0.12, -0.3)], f.shade)
    f.painted(ellipse(0.06, -0.5, 0.42, 0.28))
    f.eye(0.3, -0.57, 0.075)
    f.line([(0.38, -0.42), (0.46, -0.45)], 0.03, DARK)
    f.ellipse(0.06, -0.44, 0.11, 0.07 + 0.3 * abs(wag), f.shade, 20)


def _butterfly(f: Figure, turn: float) -> None:
    spread = 0.72 + 0.28 * np.cos(2 * np.pi * turn)
    for side in (-1, 1):
        f.painted(ellipse(side * 0.3 * spread, -0.68, 0.26 * spread, 0.28, 24 * side))
        f.painted(ellipse(side * 0.24 * spread, -0.28, 0.19 * spread, 0.2, -20 * side), f.shade)
    f.line([(-0.02, -0.86), (-0.1, -1.02)], 0.025, DARK)
    f.line([(0.02, -0.86), (0.1, -1.02)], 0.025, DARK)
    f.ellipse(0, -0.5, 0.06, 0.36, DARK)
    f.ellipse(0, -0.84, 0.085, 0.085, DARK)
    f.ellipse(-0.03, -0.86, 0.024, 0.024, WHITE)
    f.ellipse(0.03, -0.86, 0.024, 0.024, WHITE)


def _snail(f: Figure, turn: float) -> None:
    skin: Colour = (228, 186, 132)
    stretch = 0.04 * np.sin(2 * np.pi * turn)
    f.polygon(
        [
            (-0.56 - stretch, 0),
            (-0.4, -0.12),
            (0.2, -0.14),
            (0.34, -0.4),
            (0.5, -0.44),
            (0.54 + stretch, -0.3),
            (0.46 + stretch, 0),
        ],
        skin,
    )
    f.line([(0.4, -0.4), (0.36, -0.64)], 0.045, skin)
    f.line([(0.5, -0.4), (0.54, -0.62)], 0.045, skin)
    f.eye(0.36, -0.66, 0.06)
    f.eye(0.54, -0.64, 0.06)
    f.painted(ellipse(-0.1, -0.44, 0.36, 0.35))
    spiral = [
        (-0.1 + (0.27 - 0.027 * k) * np.cos(0.7 * k), -0.44 + (0.26 - 0.026 * k) * np.sin(0.7 * k))
        for k in range(10)
    ]
    f.line(spiral, 0.045, f.shade)


def _car(f: Figure, turn: float) -> None:
    f.polygon([(-0.34, -0.4), (-0.22, -0.68), (0.16, -0.68), (0.32, -0.4)], f.shade)
    f.polygon([(-0.27, -0.42), (-0.18, -0.62), (-0.04, -0.62), (-0.04, -0.42)], GLASS)
    f.polygon([(0.02, -0.42), (0.02, -0.62), (0.13, -0.62), (0.24, -0.42)], GLASS)
    f.painted(rounded(-0.58, -0.44, 1.16, 0.3, 0.1))
    f.ellipse(0.52, -0.34, 0.05, 0.05, (255, 244, 170))
    f.box(-0.58, -0.36, 0.05, 0.08, (200, 40, 40))
    f.wheel(-0.32, 0.15, turn)
    f.wheel(0.32, 0.15, turn)


def _bus(f: Figure, turn: float) -> None:
    f.painted(rounded(-0.6, -0.82, 1.2, 0.7, 0.09))
    f.box(-0.6, -0.3, 1.2, 0.05, f.shade)
    for x in (-0.52, -0.23, 0.06):
        f.rounded(x, -0.72, 0.23, 0.26, 0.03, GLASS)
    f.rounded(0.36, -0.72, 0.24, 0.32, 0.03, GLASS)
    f.ellipse(0.55, -0.23, 0.045, 0.045, (255, 244, 170))
    f.wheel(-0.33, 0.14, turn)
    f.wheel(0.33, 0.14, turn)


def _train(f: Figure, turn: float) -> None:
    puff = turn % 1.0
    f.ellipse(0.3 - 0.3 * puff, -1.02 - 0.06 * puff, 0.08 + 0.08 * puff, 0.06 + 0.06 * puff, (236, 236, 240))
    f.polygon([(0.25, -0.6), (0.22, -0.9), (0.42, -0.9), (0.39, -0.6)], DARK)
    f.painted(rounded(-0.2, -0.64, 0.74, 0.42, 0.12))
    f.ellipse(0.54, -0.43, 0.06, 0.19, f.shade)
    f.box(-0.58, -0.9, 0.42, 0.7, f.main)
    f.box(-0.62, -0.96, 0.5, 0.09, f.shade)
    f.rounded(-0.5, -0.78, 0.26, 0.24, 0.03, GLASS)
    f.box(-0.58, -0.26, 1.14, 0.09, DARK)
    f.polygon([(0.5, -0.2), (0.64, -0.02), (0.44, -0.02)], (190, 50, 50))
    f.wheel(-0.38, 0.15, turn)
    f.wheel(-0.02, 0.12, turn)
    f.wheel(0.28, 0.12, turn)


def _rocket(f: Figure, turn: float) -> None:
    flame = 0.1 * np.sin(2 * np.pi * turn)
    f.polygon([(-0.13, -0.22), (0.13, -0.22), (0.0, 0.06 + flame)], ORANGE)
    f.polygon([(-0.07, -0.22), (0.07, -0.22), (0.0, -0.06 + flame)], (255, 236, 120))
    f.polygon([(-0.16, -0.5), (-0.36, -0.24), (-0.36, -0.14), (-0.12, -0.24)], f.shade)
    f.polygon([(0.16, -0.5), (0.36, -0.24), (0.36, -0.14), (0.12, -0.24)], f.shade)
    f.painted(
        np.array(
            [
                (-0.14, -0.2),
                (-0.21, -0.45),
                (-0.19, -0.7),
                (-0.11, -0.9),
                (0, -1.04),
                (0.11, -0.9),
                (0.19, -0.7),
                (0.21, -0.45),
                (0.14, -0.2),
            ]
        )
    )
    f.polygon([(-0.12, -0.88), (0, -1.06), (0.12, -0.88)], f.shade)
    f.ellipse(0, -0.64, 0.12, 0.12, STEEL)
    f.ellipse(0, -0.64, 0.08, 0.08, (90, 170, 230))


def _balloon(f: Figure, turn: float) -> None:
    sway = 0.03 * np.sin(2 * np.pi * turn)
    for x in (-0.1, 0.1):
        f.line([(2.4 * x, -0.42), (x + sway, -0.16)], 0.025, BROWN)
    f.rounded(-0.13 + sway, -0.19, 0.26, 0.18, 0.03, (170, 116, 66))
    f.box(-0.13 + sway, -0.19, 0.26, 0.05, BROWN)
    f.painted(
        np.array(
            [
                *ellipse(0, -0.7, 0.36, 0.34)[14:],
                *ellipse(0, -0.7, 0.36, 0.34)[:4],
                (0.14, -0.32),
                (-0.14, -0.32),
                *ellipse(0, -0.7, 0.36, 0.34)[11:14],
            ]
        )
    )


DRAWN: dict[str, Callable[[Figure, float], None]] = {
    "cat": _cat,
    "dog": _dog,
    "elephant": _elephant,
    "giraffe": _giraffe,
    "rabbit": _rabbit,
    "penguin": _penguin,
    "turtle": _turtle,
    "duck": _duck,
    "fish": _fish,
    "butterfly": _butterfly,
    "snail": _snail,
    "car": _car,
    "bus": _bus,
    "train": _train,
    "rocket": _rocket,
    "balloon": _balloon,
}


def figure(noun: str, colour: str, pattern: str, turn: float) -> Figure:
    """Draw the subject at that phase of its step."""
    f = Figure(colour, pattern)
    DRAWN[noun](f, turn)
    return f
