"""Examples of the gallery; `static/examples` holds their images, made by the included model."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One example. name: of its image. settings: fields of the API; missing ones are the model's defaults."""

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)


EXAMPLES = (
    Example("cat", "Cat on the street", {"prompt": "A cat running on the street", "seed": 5}),
    Example("balloon", "Balloon at sunset", {"prompt": "A balloon at sunset in the city", "seed": 5}),
    Example("rocket", "Rocket at night", {"prompt": "A rocket floating under the night sky", "seed": 3}),
    Example("penguin", "Penguin in the snow", {"prompt": "A penguin in the snow", "seed": 7}),
    Example("turtle", "Turtle under water", {"prompt": "A turtle floating under water", "seed": 7}),
    Example(
        "horse",
        "Horse, day to night",
        {
            "prompt": "A horse running on the beach",
            "num_frames": 48,
            "seed": 2,
            "schedule": [[24, "A horse running under the night sky"]],
        },
    ),
)
