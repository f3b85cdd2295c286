"""Are the prompt's noun and scene seen in the first chunk of a long video, and still in the last? Judged by a classifier of the world.

    python benchmarks/recognition.py [--prompts 40] [--frames 80] [--model tiny] [--sheet sheet.png]

Prints the judge's accuracy on true clips, then the model's, and one JSON line. A sheet shows each video's first and last frame.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from streamingt2v import LongVideoPipeline, Request
from streamingt2v.eval.judge import load_judge
from streamingt2v.world import clip, vocabulary

WINDOW = 16


def true_clips(judge, nouns: tuple[str, ...], count: int) -> dict[str, float]:
    """Share of true clips, from seeds never trained on, that the judge names rightly."""
    right = np.zeros(3)
    for seed in range(count):
        spec = clip.sample((77, seed), nouns)
        verdict = judge.judge(clip.render(spec, clip.frame_times(WINDOW), 64)[0])
        right += np.array([verdict.noun == spec.noun, verdict.scene == spec.scene, verdict.motion == spec.motion])
    return dict(zip(("noun", "scene", "motion"), (right / count).tolist(), strict=True))


def prompts(nouns: tuple[str, ...], count: int) -> list[clip.ClipSpec]:
    """Captions with nouns, scenes and motions taken in turn, from seeds never trained on."""
    scenes, motions = vocabulary.SCENES, vocabulary.MOTIONS
    return [
        clip.sample(
            (78, i), noun=nouns[i % len(nouns)], scene=scenes[(i + i // 8) % len(scenes)].name, motion=motions[i % len(motions)].name
        )
        for i in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    pipe, judge = LongVideoPipeline.from_pretrained(options.model), load_judge()
    nouns = tuple(n.name for n in vocabulary.NOUNS if not pipe.unknown_words(n.name))
    truth = true_clips(judge, nouns, 200)
    print(f"{len(nouns)} nouns; the judge on 200 true clips: " + ", ".join(f"{k} {v:.3f}" for k, v in truth.items()), flush=True)
    rows, pictures = [], []
    for spec in prompts(nouns, options.prompts):
        first, last = ends(pipe, Request(spec.caption, options.frames, options.seed))
        verdicts = [judge.judge(part) for part in (first, last)]
        rows.append([v == getattr(spec, kind) for verdict in verdicts for kind, v in verdict._asdict().items()])
        print(f"{spec.caption:64s} first {verdicts[0].noun}/{verdicts[0].scene}  last {verdicts[1].noun}/{verdicts[1].scene}", flush=True)
        pictures.append(np.concatenate([first[len(first) // 2], last[-1]], 1))
    names = [f"{kind}_{part}" for part in ("first", "last") for kind in ("noun", "scene", "motion")]
    shares = dict(zip(names, np.mean(rows, 0).tolist(), strict=True))
    print("  ".join(f"{k} {v:.3f}" for k, v in shares.items()))
    if options.sheet:
        save_sheet(pictures, options.sheet)
    print(
        json.dumps(
            {
                "benchmark": "recognition",
                "model": options.model,
                "prompts": options.prompts,
                "frames": options.frames,
                "truth": truth,
                **shares,
            }
        )
    )


def ends(pipe: LongVideoPipeline, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last frames of a stream, a window each, nothing between kept."""
    first = last = np.empty((0, 1, 1, 3), np.uint8)
    for chunk in pipe.stream(request):
        first = chunk.frames if chunk.index == 0 else first
        last = np.concatenate([last, chunk.frames])[-WINDOW:] if len(last) else chunk.frames[-WINDOW:]
    return first, last


def save_sheet(pictures: list[np.ndarray], path: Path, columns: int = 8) -> None:
    """Pairs of first and last frame, row by row."""
    blank = np.full_like(pictures[0], 255)
    padded = pictures + [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


if __name__ == "__main__":
    main()
