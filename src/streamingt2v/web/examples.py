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
    Example(
        "balloon", "Balloon at sunset", {"prompt": "A red balloon floating by the sea at sunset", "seed": 5}
    ),
    Example("rocket", "Rocket at night", {"prompt": "A rocket floating in the desert at night", "seed": 3}),
    Example("penguin", "Penguin in the snow", {"prompt": "A penguin dancing in the snow", "seed": 7}),
    Example("turtle", "Turtle under water", {"prompt": "A turtle floating under water", "seed": 7}),
    Example(
        "bus",
        "Bus, day to night",
        {
            "prompt": "A red bus running on the beach",
            "num_frames": 48,
            "seed": 2,
            "schedule": [[24, "A red bus running on the beach at night"]],
        },
    ),
)
