"""Compare ways to make long videos on the same base, prompts and seeds.

    python lab/benchmarks/quality.py runs/quality --jobs 2          # the plan below; then lab/docs/results.md
    python lab/benchmarks/quality.py runs/quality --rivals runs/rival-last-frame runs/rival-additive
    python lab/benchmarks/quality.py runs/smoke --first 2 --compared 1 --long 1 --page runs/smoke/results.md

Four parts, each with its own number of prompts (0: none): the method's first chunks, all methods side by
side, long videos with and without anchor, stage 3. The model's own network makes them; a distilled one also
makes first chunks and compared videos, and alone makes long and refined ones, as it does for users.

It prints an estimate first. Finished videos are lines of OUT/items.jsonl: stop it at any time, the same
command resumes. Prints a line per video; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

import torch

from lab.compare import page, protocol, results
from lab.compare.baselines import METHODS, REFINING
from lab.compare.comparison import (
    COMPARED,
    FAST,
    FAST_WITHOUT_ANCHOR,
    FIRST,
    FULL,
    LONG,
    OURS,
    TRUTH,
    WITHOUT_ANCHOR,
    Maker,
    Part,
    Source,
    Task,
    rival_marks,
    tasks,
    threads_of,
    work,
)
from lab.compare.rivals import NAMES
from lab.tiny.assemble import write_teacher
from streamingt2v.checkpoints.fingerprint import fingerprint
from streamingt2v.config import find_model
from streamingt2v.config.runtime import Engine
from streamingt2v.errors import StreamingT2VError
from streamingt2v.metrics.suite import measured_with


def main() -> None:
    options = parsed()
    model = options.model or str(write_teacher(options.out / "teacher"))
    source = Source(model, tuple(options.rivals), options.out, options.steps, options.engine, options.shipped)
    maker = Maker(source)
    plan = plan_of(options, maker)
    settings: dict[str, object] = {
        "model": options.model or "the teacher of tiny",
        "weights": fingerprint(find_model(model))[:12],
    }
    if options.shipped is not None:
        settings |= {
            "shipped": options.shipped,
            "shipped weights": fingerprint(find_model(options.shipped))[:12],
        }
    settings |= {"steps": options.steps, "engine": options.engine}
    settings |= {f"frames, {part.name}": part.frames for part in plan}
    file = results.ItemFile(options.out, settings | measured_with(maker.tools), rival_marks(maker))
    make(file, maker, [task for task in tasks(plan) if task.key not in file], options.jobs)
    nouns = {maker.spec(number).noun for number in range(options.first)}
    truth = protocol.accuracy(maker.judge, maker.nouns, options.truth)
    telling = page.Telling(
        truth, len(nouns), missing(maker), maker.grid(OURS), command_of(options), options.title, options.about
    )
    page.write_page(options.page, file, telling)
    print(
        json.dumps({"benchmark": "quality", "videos": len(file.items), "page": str(options.page), **settings})
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the finished items")
    parser.add_argument(
        "--first", type=int, default=60, help="prompts of the method's first chunks, with every seed"
    )
    parser.add_argument("--compared", type=int, default=16, help="prompts of all methods side by side")
    parser.add_argument(
        "--long", type=int, default=6, help="prompts of long videos, with the anchor and without"
    )
    parser.add_argument("--full", type=int, default=6, help="prompts of refined videos")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="of the first part; the others take the first of them",
    )
    parser.add_argument("--frames", type=int, default=112, help="of the compared and the refined videos")
    parser.add_argument(
        "--long-frames", type=int, default=1200 + protocol.WINDOW, help="the last 16 are judged as the end"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=[TRUTH, *METHODS],
        default=[TRUTH, *METHODS],
        help="of those side by side",
    )
    parser.add_argument(
        "--rivals",
        type=Path,
        nargs="*",
        default=[],
        help="folders of the rival recipe, to be compared as well",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="processes; 2 of one thread each use two cores better than one of two",
    )
    parser.add_argument("--steps", type=int, help="of denoising; default: the model's")
    parser.add_argument("--model", help="whose methods are compared; default: the teacher of tiny")
    parser.add_argument(
        "--shipped", help="the model that was distilled from it; default: tiny, without --model"
    )
    parser.add_argument(
        "--engine",
        choices=get_args(Engine),
        default="torch",
        help="what computes the networks; rivals are torch's",
    )
    parser.add_argument("--truth", type=int, default=400, help="true clips that the judge is tested on")
    parser.add_argument("--page", type=Path, default=Path("lab/docs/results.md"))
    parser.add_argument("--title", default="Results", help="of the page")
    parser.add_argument("--about", default="", help="a paragraph under the title")
    options = parser.parse_args()
    if OURS not in options.methods:
        parser.error(f"--methods needs {OURS!r}, which the others are compared with")
    if options.model is None:
        options.shipped = options.shipped or "tiny"
    if options.jobs < 1:
        parser.error("--jobs must be 1 or more")
    return options


def plan_of(options: argparse.Namespace, maker: Maker) -> tuple[Part, ...]:
    """Return the four parts."""
    one, chunk = tuple(options.seeds[:1]), maker.pipe.config.extend.frames
    ours = (OURS, FAST) if maker.fast else (OURS,)
    lasting = (FAST, FAST_WITHOUT_ANCHOR) if maker.fast else (OURS, WITHOUT_ANCHOR)
    side_by_side = (*options.methods, *ours[1:], *maker.rivals)
    refining = tuple(REFINING) if maker.pipe.components.refiner else ()
    return (
        Part(FIRST, ours, options.first, tuple(options.seeds), chunk),
        Part(COMPARED, side_by_side, options.compared, one, options.frames),
        Part(LONG, (TRUTH, *lasting), options.long, one, options.long_frames),
        Part(FULL, refining, options.full, one, options.frames),
    )


def make(file: results.ItemFile, maker: Maker, some: list[Task], jobs: int) -> None:
    """Make all missing videos, longest first, so that no process ends late."""
    if not some:
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(threads_of(jobs))  # the estimate must come from the same threads
    seconds = maker.expected(some)
    torch.set_num_threads(threads)
    minutes = f"about {sum(seconds) / jobs / 60:.0f} minutes"
    print(f"{len(some)} videos, {minutes} by {jobs} process{'es' * (jobs > 1)} on quiet cores", flush=True)
    ordered = [task for _, task in sorted(zip(seconds, some, strict=True), key=lambda pair: -pair[0])]
    for number, item in enumerate(work(maker, ordered, jobs), 1):
        file.add(item)
        print(
            f"{number:4d}/{len(some)} {item.seconds:7.1f} s  {item.part:9s} seed {item.seed}  "
            f"{item.method:20s} {item.caption:60s} seam {item.values.get('seam')}  "
            f"colour drift {item.values['colour_drift']}",
            flush=True,
        )


def missing(maker: Maker) -> dict[str, str]:
    """Return what the comparison lacks, and how to get it."""
    kinds = {name: kind for kind, name in NAMES.items() if name not in maker.rivals}
    recipe = "python -m lab.tiny rival --set kind={}"
    fix = "needs as much training as CAM: `{}` and `--rivals`; [compared at a small budget](memories.md)"
    found = {name: fix.format(recipe.format(kind)) for name, kind in kinds.items()}
    return found | ({} if maker.pipe.components.refiner else {"stage 3": "the model has no refiner"})


def command_of(options: argparse.Namespace) -> str:
    """Return the command that makes the same items again."""
    parts = " ".join(
        f"--{name} {getattr(options, name)}" for name in ("first", "compared", "long", "full", "frames")
    )
    rivals = f" --rivals {' '.join(map(str, options.rivals))}" if options.rivals else ""
    steps = f" --steps {options.steps}" if options.steps else ""
    seeds = " ".join(map(str, options.seeds))
    models = "".join(
        f"--{name} {value} " for name in ("model", "shipped") if (value := getattr(options, name))
    )
    return (
        f"python lab/benchmarks/quality.py {options.out} {parts} --long-frames {options.long_frames} "
        f"--seeds {seeds}{rivals}{steps} {models}--engine {options.engine} --jobs {options.jobs}"
    )


if __name__ == "__main__":
    try:
        main()
    except StreamingT2VError as error:
        sys.exit(f"error: {error}")
