"""The comparison: ways to make long videos with the same weights, on the same prompts and seeds, judged and measured.

    python benchmarks/quality.py runs/quality                    # all methods, 60 prompts, 3 seeds, 1216 frames; then docs/results.md
    python benchmarks/quality.py runs/smoke --prompts 2 --seeds 0 --frames 32 --page runs/smoke/results.md

Finished videos are kept as lines of OUT/items.jsonl and not made again: stop it at any time, start the same command to go on.
Prints a line a video; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamingt2v import LongVideoPipeline, Request
from streamingt2v.checkpoints.fingerprint import fingerprint
from streamingt2v.config import find_model
from streamingt2v.eval import protocol, results
from streamingt2v.eval.baselines import METHODS
from streamingt2v.eval.chart import MiddleRows, Track
from streamingt2v.eval.judge import Judge, load_judge
from streamingt2v.eval.metric import Tools, measure
from streamingt2v.eval.seams import Grid
from streamingt2v.eval.suite import METRICS, Setting, make_metrics, make_tools, measured_with
from streamingt2v.world import clip, vocabulary

OURS = "CAM and APM"
TRUTH = "true clips"
NAMES = (TRUTH, *METHODS)
MEASURED = tuple(name for name in METRICS if name != "text")


def main() -> None:
    options = parsed()
    pipe, judge, tools = LongVideoPipeline.from_pretrained(options.model), load_judge(), make_tools(MEASURED)
    nouns = [noun.name for noun in vocabulary.NOUNS if not pipe.unknown_words(noun.name)]
    settings = {
        "model": options.model,
        "weights": fingerprint(find_model(options.model))[:12],
        "frames": options.frames,
        "steps": options.steps,
    }
    file = results.ItemFile(options.out, settings | measured_with(tools))
    specs = protocol.prompts(nouns, options.prompts)
    for seed in options.seeds:
        for number, spec in enumerate(specs):
            for method in options.methods:
                if (method, number, seed) not in file:
                    make_item(file, pipe, judge, tools, method, number, spec, seed, options)
    truth = protocol.accuracy(judge, nouns, options.truth)
    slices = [slice_of(pipe, options, method) for method in options.methods]
    results.write_page(options.page, file, results.Telling(OURS, TRUTH, truth, slices, command_of(options)))
    print(json.dumps({"benchmark": "quality", "videos": len(file.items), "page": str(options.page), **settings}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the finished items")
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=1200 + protocol.WINDOW, help="the last 16 are judged as the end")
    parser.add_argument("--steps", type=int, help="of denoising; default: the model's")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--truth", type=int, default=400, help="true clips that the judge is tested on")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    options = parser.parse_args()
    if OURS not in options.methods:
        parser.error(f"--methods needs {OURS!r}, which the others are compared with")
    return options


def make_item(
    file: results.ItemFile, pipe: LongVideoPipeline, judge: Judge, tools: Tools, method: str, number: int, spec: clip.ClipSpec, seed: int,
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Make one video, measure it as it streams by, and keep its numbers; of the first prompt and seed, its slice through time."""
    began = time.monotonic()
    grid = grid_of(pipe, method)
    names = [name for name in MEASURED if grid is not None or name != "seam"]
    metrics = make_metrics(names, Setting(tools, grid))
    windows, rows = protocol.Windows(), MiddleRows()

    def seen() -> Iterator[np.ndarray]:
        for frame in video(pipe, method, spec, seed, options):
            windows.add(frame)
            rows.add(frame)
            yield frame

    result = measure(seen(), metrics, tools)
    if number == 0 and seed == options.seeds[0]:
        results.save_rows(rows.row_TWC, rows_of(file.path.parent, method))
    first, last = (protocol.hits(judge, part, spec) for part in (windows.first, windows.last))
    values = {name: results.plain(value) for name, value in result.values.items()}
    curves = {name: results.binned(result.curves[name]) for name in results.SHOWN}
    file.add(results.Item(method, number, seed, spec.caption, options.frames, values, first, last, curves))
    seam, drift = values.get("seam"), values["colour_drift"]
    print(f"{time.monotonic() - began:7.1f} s  seed {seed}  {method:16s} {spec.caption:60s} seam {seam}  colour drift {drift}", flush=True)


def video(pipe: LongVideoPipeline, method: str, spec: clip.ClipSpec, seed: int, options: argparse.Namespace) -> Iterator[np.ndarray]:
    """The frames of a method. True clips are the world's own: what the numbers of a perfect model would be."""
    if method != TRUTH:
        request = Request(spec.caption, options.frames, seed, steps=options.steps)
        yield from METHODS[method].frames(pipe.components, request)
        return
    for start in range(0, options.frames, protocol.WINDOW):
        count = min(protocol.WINDOW, options.frames - start)
        yield from clip.render(spec, clip.frame_times(count, start / clip.FPS), pipe.config.height, pipe.config.width)[0]


def grid_of(pipe: LongVideoPipeline, method: str) -> Grid | None:
    """Where the method's chunks begin. True clips have none, and are measured at the same frames for comparison."""
    extend = pipe.config.extend
    return Grid(extend.frames, extend.overlap) if method == TRUTH or METHODS[method].chunked else None


def slice_of(pipe: LongVideoPipeline, options: argparse.Namespace, method: str) -> Track:
    """The method's video of the first prompt and seed, through time."""
    grid = None if method == TRUTH else grid_of(pipe, method)
    row_TWC = results.load_rows(rows_of(options.out, method))
    return Track(method, row_TWC=row_TWC, borders=grid.borders(len(row_TWC)) if grid else ())


def rows_of(folder: Path, method: str) -> Path:
    return folder / "rows" / f"{method.replace(' ', '-')}.png"


def command_of(options: argparse.Namespace) -> str:
    """The command that makes the same items again."""
    asked = f"--prompts {options.prompts} --seeds {' '.join(map(str, options.seeds))} --frames {options.frames}"
    steps = f" --steps {options.steps}" if options.steps else ""
    return f"python benchmarks/quality.py {options.out} {asked}{steps} --model {options.model}"


if __name__ == "__main__":
    main()
