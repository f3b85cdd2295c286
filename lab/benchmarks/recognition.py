"""Judge whether the prompt's noun, scene and motion are seen in the first and last chunk of a long video.

    python lab/benchmarks/recognition.py [--prompts 40] [--frames 80] [--model tiny] [--sheet sheet.png]

Prints the judge's accuracy on true clips, then the model's, and one JSON line. The sheet shows each video's
first and last frame.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from lab.compare.statistics import share
from lab.proof.judge import FRAMES, JUDGE, check, load_judge
from lab.world import clip
from streamingt2v import LongVideoPipeline, Request

KINDS = ("noun", "scene", "motion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument(
        "--held-out", action="store_true", help="captions in words and word orders that training never had"
    )
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    pipe, judge = LongVideoPipeline.from_pretrained(options.model), load_judge(options.judge)
    truth = check(judge, 200)
    print("the judge on 200 true clips: " + ", ".join(f"{k} {v:.3f}" for k, v in truth.items()), flush=True)
    rows, pictures = [], []
    for number in range(options.prompts):
        spec = clip.sample((78, number), options.held_out)
        first, last = windows(pipe, Request(spec.caption, options.frames, options.seed))
        seen = {"first": judge.judge(first).names, "last": judge.judge(last).names}
        rows.append(
            {f"{k}_{part}": names[k] == getattr(spec, k) for part, names in seen.items() for k in KINDS}
        )
        told = (f"{part} {'/'.join(names[k] for k in KINDS)}" for part, names in seen.items())
        print(f"{spec.caption:64s} " + "  ".join(told), flush=True)
        pictures.append(np.concatenate([first[len(first) // 2], last[-1]], 1))
    shares = {name: share(sum(row[name] for row in rows), len(rows)).value for name in rows[0]}
    print("  ".join(f"{k} {v:.3f}" for k, v in shares.items()))
    if options.sheet:
        save_sheet(pictures, options.sheet)
    asked = {
        "model": options.model,
        "prompts": options.prompts,
        "frames": options.frames,
        "held_out": options.held_out,
    }
    print(json.dumps({"benchmark": "recognition", **asked, "truth": truth, **shares}))


def windows(pipe: LongVideoPipeline, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last frames of a stream, keeping nothing between."""
    first: np.ndarray | None = None
    last = np.zeros(0)
    for chunk in pipe.stream(request):
        first = chunk.frames[:FRAMES] if first is None else first
        last = np.concatenate([last, chunk.frames])[-FRAMES:] if len(last) else chunk.frames[-FRAMES:]
    assert first is not None, "a stream has a chunk"
    return first, last


def save_sheet(pictures: list[np.ndarray], path: Path, columns: int = 8) -> None:
    """Save pairs of first and last frames, row by row."""
    blank = np.full_like(pictures[0], 255)
    padded = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


if __name__ == "__main__":
    main()
