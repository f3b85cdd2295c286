"""Make README's moving image and the thumbnails of the web page's gallery with the included model.

python -m lab.proof.pictures [--model tiny]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import streamingt2v
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.web.examples import EXAMPLES

THREE = (
    "A cat running on the street",
    "A turtle floating in the deep sea",
    "A helicopter flying in the city",
)
FRAMES, SIDE, GAP = 64, 192, 8
THUMBNAIL_AT = 8  # a frame of the first chunk in which things are in full sight


def film(pipe: LongVideoPipeline, request: Request) -> np.ndarray:
    """Return a video's frames, uint8 (T, H, W, 3)."""
    return np.concatenate([chunk.frames for chunk in pipe.stream(request)])


def side_by_side(films: list[np.ndarray]) -> list[Image.Image]:
    """Return images of all videos beside each other, one per frame."""
    shown = []
    for frames in zip(*films, strict=True):
        sheet = Image.new("RGB", (len(films) * (SIDE + GAP) - GAP, SIDE), "white")
        for place, frame in enumerate(frames):
            large = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(large, (place * (SIDE + GAP), 0))
        shown.append(sheet)
    return shown


def main(words: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="tiny")
    p.add_argument("--readme", type=Path, default=Path("docs/images/three.webp"))
    p.add_argument("--gallery", type=Path, default=Path(streamingt2v.__file__).parent / "web/static/examples")
    a = p.parse_args(words)
    pipe = LongVideoPipeline.from_pretrained(a.model)
    for example in EXAMPLES:
        frames = film(pipe, Request(example.settings["prompt"], 16, example.settings["seed"]))
        Image.fromarray(frames[THUMBNAIL_AT]).save(a.gallery / f"{example.name}.webp", quality=80)
    films = [film(pipe, Request(prompt, FRAMES, preset="full")) for prompt in THREE]
    first, *rest = side_by_side(films)
    duration = round(1000 / pipe.components.config.fps)
    first.save(a.readme, save_all=True, append_images=rest, duration=duration, loop=0, quality=80)


if __name__ == "__main__":
    main()
