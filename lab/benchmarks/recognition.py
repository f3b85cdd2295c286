"""Judge whether the prompt's noun and scene are visible in the first and last chunk of a long video.

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

from lab.compare import protocol
from lab.compare.judge import load_judge
from lab.world import vocabulary
from streamingt2v import LongVideoPipeline, Request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument(
        "--held-out", action="store_true", help="captions in words and word orders that training never had"
    )
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    pipe, judge = LongVideoPipeline.from_pretrained(options.model), load_judge()
    nouns = [n.name for n in vocabulary.NOUNS if not pipe.unknown_words(n.name)]
    truth = {kind: share.value for kind, share in protocol.accuracy(judge, nouns, 200).items()}
    print(
        f"{len(nouns)} nouns; the judge on 200 true clips: "
        + ", ".join(f"{k} {v:.3f}" for k, v in truth.items()),
        flush=True,
    )
    rows, pictures = [], []
    for spec in protocol.prompts(nouns, options.prompts, options.held_out):
        seen = windows(pipe, Request(spec.caption, options.frames, options.seed))
        parts = {"first": seen.first, "last": seen.last}
        rows.append(
            {
                f"{k}_{part}": hit
                for part, frames in parts.items()
                for k, hit in protocol.hits(judge, frames, spec).items()
            }
        )
        print(
            f"{spec.caption:64s} "
            + "  ".join(f"{part} {'/'.join(judge.judge(frames))}" for part, frames in parts.items()),
            flush=True,
        )
        pictures.append(np.concatenate([seen.first[len(seen.first) // 2], seen.last[-1]], 1))
    shares = {name: share.value for name, share in protocol.shares(rows).items()}
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


def windows(pipe: LongVideoPipeline, request: Request) -> protocol.Windows:
    """Return the first and last frames of a stream, keeping nothing between."""
    seen = protocol.Windows()
    for chunk in pipe.stream(request):
        for frame in chunk.frames:
            seen.add(frame)
    return seen


def save_sheet(pictures: list[np.ndarray], path: Path, columns: int = 8) -> None:
    """Save pairs of first and last frames, row by row."""
    blank = np.full_like(pictures[0], 255)
    padded = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


if __name__ == "__main__":
    main()
