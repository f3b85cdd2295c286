"""Sprites of the nouns: flat images with alpha from Microsoft's Fluent Emoji (MIT licence).

`render_atlas` renders them once from the npm package `@iconify-json/fluent-emoji-flat` (an `icons.json` of
SVG bodies). The raster is shipped: all machines see the same pixels and need neither Node.js nor an SVG
renderer. `sprites.LICENSE` holds the notice.
"""

import io
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from . import vocabulary

SIDE = 128  # pixels per sprite in the atlas; a refiner's clip shows it at about 83
COLUMNS = 6
ATLAS = Path(__file__).with_name("sprites.png")


def render_atlas(icons_json: Path, target: Path = ATLAS) -> None:
    """Render every noun's icon from `icons.json` into the atlas. Needs the `resvg_py` package."""
    import resvg_py

    icons = json.loads(icons_json.read_text())["icons"]
    rows = -(-len(vocabulary.NOUNS) // COLUMNS)
    atlas = Image.new("RGBA", (COLUMNS * SIDE, rows * SIDE))
    for i, noun in enumerate(vocabulary.NOUNS):
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="{SIDE}" height="{SIDE}">'
        svg = f"{head}{icons[noun.icon]['body']}</svg>"
        icon = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
        atlas.paste(icon, ((i % COLUMNS) * SIDE, (i // COLUMNS) * SIDE))
    atlas.save(target, optimize=True)


@lru_cache(maxsize=1)
def _atlas() -> Image.Image:
    return Image.open(ATLAS).convert("RGBA")


@lru_cache(maxsize=512)
def sprite(name: str, side: int) -> Image.Image:
    """Return the noun's image, cropped and scaled to fit `side` x `side` pixels; premultiplied RGBA (mode
    "RGBa").
    """
    i = [n.name for n in vocabulary.NOUNS].index(name)
    x, y = (i % COLUMNS) * SIDE, (i // COLUMNS) * SIDE
    icon = _atlas().crop((x, y, x + SIDE, y + SIDE))
    box = Image.fromarray(np.asarray(icon)[..., 3]).getbbox()
    assert box is not None, f"empty sprite {name}"
    icon = icon.crop(box).convert("RGBa")
    scale = side / max(icon.size)
    small = icon.resize(
        (max(1, round(icon.width * scale)), max(1, round(icon.height * scale))), Image.Resampling.BILINEAR
    )
    square = Image.new("RGBa", (side, side))
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square
