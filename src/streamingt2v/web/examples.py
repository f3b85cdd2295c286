"""Examples for the gallery; their pictures, in `static/examples`, are the embedded model's own, made with these settings."""

from __future__ import annotations

from dataclasses import dataclass

from .form import Form


@dataclass(frozen=True)
class Example:
    """name: of its picture. title: below it."""

    name: str
    title: str
    form: Form


EXAMPLES = (
    Example("cat", "Cat on the street", Form("A cat running on the street", seed="5")),
    Example("balloon", "Balloon at sunset", Form("A balloon at sunset in the city", seed="5")),
    Example("rocket", "Rocket at night", Form("A rocket floating under the night sky", seed="3")),
    Example("penguin", "Penguin in the snow", Form("A penguin in the snow", seed="7")),
    Example("turtle", "Turtle under water", Form("A turtle floating under water", seed="7")),
    Example(
        "horse",
        "Horse, day to night",
        Form("A horse running on the beach", "48", seed="2", schedule="24: A horse running under the night sky"),
    ),
)
