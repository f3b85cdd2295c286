"""The comparison as a plan of videos; each is made, measured and judged once, by one process or several.

The plan's four parts need different methods: first chunks of the whole method for many prompts, all methods
side by side, long videos with and without anchor, stage 3.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from streamingt2v.checkpoints.fingerprint import fingerprint
from streamingt2v.checkpoints.load import Components
from streamingt2v.config import Request
from streamingt2v.config.runtime import Engine, Savings
from streamingt2v.metrics.chart import MiddleRows
from streamingt2v.metrics.metric import Metric, measure
from streamingt2v.metrics.seams import Grid
from streamingt2v.metrics.suite import METRICS, Setting, make_metrics, make_tools, what_is_missing
from streamingt2v.pipeline import LongVideoPipeline
from streamingt2v.video.reader import Frame

from ..world import clip, vocabulary
from . import protocol, results
from .baselines import DISTILLED, METHODS, REFINING, Method, trained_rivals
from .judge import load_judge
from .sheet import Strip

OURS, WITHOUT_ANCHOR, TRUTH = "CAM and APM", "CAM alone", "true clips"
FAST, FAST_WITHOUT_ANCHOR = DISTILLED
FIRST, COMPARED, LONG, FULL = "first", "compared", "long", "full"


@dataclass(frozen=True)
class Part:
    """Videos of these methods, for the first `prompts` prompts and each seed, with `frames` frames."""

    name: str
    methods: tuple[str, ...]
    prompts: int
    seeds: tuple[int, ...]
    frames: int


@dataclass(frozen=True)
class Task:
    """One video."""

    part: str
    method: str
    prompt: int
    seed: int
    frames: int

    @property
    def key(self) -> results.Key:
        return self.part, self.method, self.prompt, self.seed


@dataclass(frozen=True)
class Source:
    """Inputs of a process. model: the compared methods' model. folder: for images. steps: of the model,
    None: its own.

    engine: see `Savings`. shipped: the model distilled from it; None: none.
    """

    model: str
    rivals: tuple[Path, ...]
    folder: Path
    steps: int | None = None
    engine: Engine = "torch"
    shipped: str | None = None


def tasks(parts: Sequence[Part]) -> list[Task]:
    """Return all videos of a plan."""
    return [
        Task(part.name, method, prompt, seed, part.frames)
        for part in parts
        for prompt in range(part.prompts)
        for seed in part.seeds
        for method in part.methods
    ]


class Maker:
    """Make and measure the videos of a plan, with one pipeline, judge and set of tools."""

    def __init__(self, source: Source):
        self.source = source
        savings = Savings(engine=source.engine)
        self.pipe = LongVideoPipeline.from_pretrained(source.model, savings=savings)
        self.fast = source.shipped is not None
        self.shipped = (
            LongVideoPipeline.from_pretrained(source.shipped, savings=savings)
            if source.shipped is not None
            else self.pipe
        )
        self.judge = load_judge()
        self.tools = make_tools(METRICS)
        self.rivals = trained_rivals(source.rivals, self.pipe.components)
        self.methods: dict[str, Method] = METHODS | DISTILLED | REFINING | self.rivals
        self.nouns = [noun.name for noun in vocabulary.NOUNS if not self.pipe.unknown_words(noun.name)]

    def spec(self, number: int) -> clip.ClipSpec:
        """Return the clip of a prompt by number."""
        return protocol.prompts(self.nouns, number + 1)[number]

    def make(self, task: Task) -> results.Item:
        """Make and measure a video; save its slice through time and some frames as images."""
        began, spec = time.monotonic(), self.spec(task.prompt)
        windows, rows, strip = protocol.Windows(), MiddleRows(), Strip(task.frames)

        def seen() -> Iterator[Frame]:
            for frame in self._video(task, spec):
                for watcher in (windows, rows, strip):
                    watcher.add(frame)
                yield frame

        result = measure(seen(), self._metrics(task.method, spec), self.tools)
        results.save_rows(rows.row_TWC, picture(self.source.folder, "rows", task.key))
        results.save_rows(strip.picture, picture(self.source.folder, "strips", task.key))
        first, last = (protocol.hits(self.judge, part, spec) for part in (windows.first, windows.last))
        values = {name: results.plain(value) for name, value in result.values.items()}
        curves = {
            name: results.binned(result.curves[name]) for name in results.SHOWN if name in result.curves
        }
        seconds = round(time.monotonic() - began, 1)
        return results.Item(*task.key, spec.caption, task.frames, values, first, last, curves, seconds)

    def grid(self, method: str) -> Grid | None:
        """Return the first frames of the method's chunks. True clips are measured at the same frames."""
        extend = self.pipe.config.extend
        return (
            Grid(extend.frames, extend.overlap) if method == TRUTH or self.methods[method].chunked else None
        )

    def _video(self, task: Task, spec: clip.ClipSpec) -> Iterator[Frame]:
        """Return a method's frames. "true": the world's own clips, i.e. a perfect model."""
        if task.method != TRUTH:
            as_shipped = task.method in DISTILLED | REFINING
            request = Request(
                spec.caption,
                task.frames,
                task.seed,
                num_inference_steps=None if as_shipped else self.source.steps,
            )
            components = self.shipped.components if as_shipped else bare(self.pipe.components)
            yield from self.methods[task.method].frames(components, request)
            return
        for start in range(0, task.frames, protocol.WINDOW):
            times = clip.frame_times(min(protocol.WINDOW, task.frames - start), start / clip.FPS)
            yield from clip.render(spec, times, self.pipe.config.height, self.pipe.config.width)[0]

    def expected(self, some: Sequence[Task]) -> list[float]:
        """Estimate seconds per video from two chunks made and measured now."""
        extend = self.pipe.config.extend
        if self.source.steps is not None:
            extend = replace(extend, steps=self.source.steps)
        for _ in range(1 if self.source.engine == "torch" else 2):  # engines compile on first use
            began = time.monotonic()
            frames = list(
                self._video(Task(FIRST, OURS, 0, 0, 2 * extend.frames - extend.overlap), self.spec(0))
            )
        call = (time.monotonic() - began) / self.methods[OURS].calls(extend, len(frames))
        began = time.monotonic()
        measure(frames, self._metrics(OURS, self.spec(0)), self.tools)
        look = (time.monotonic() - began) / len(frames)
        calls = [
            0 if task.method == TRUTH else self.methods[task.method].calls(extend, task.frames)
            for task in some
        ]
        return [call * count + look * task.frames for count, task in zip(calls, some, strict=True)]

    def _metrics(self, method: str, spec: clip.ClipSpec) -> list[Metric]:
        """Return every applicable metric of a method's video."""
        setting = Setting(self.tools, self.grid(method), spec.caption)
        return make_metrics([name for name in METRICS if what_is_missing(name, setting) is None], setting)


def bare(components: Components) -> Components:
    """Return a model without crossfade, which would hide what a memory leaves visible at borders."""
    return replace(
        components, config=replace(components.config, extend=replace(components.config.extend, crossfade=0))
    )


def picture(folder: Path, kind: str, key: results.Key) -> Path:
    """Return the path of a video's image; kind: "rows" (middle row over time) or "strips" (some frames)."""
    return folder / kind / ("-".join(map(str, key)).replace(" ", "-") + ".png")


def rival_marks(maker: Maker) -> dict[str, object]:
    """Return fingerprints of the weights behind each trained rival's numbers."""
    pairs = zip(maker.rivals, maker.source.rivals, strict=True)
    return {f"weights, {name}": fingerprint(folder / "rival")[:12] for name, folder in pairs}


def work(maker: Maker, some: Sequence[Task], jobs: int) -> Iterator[results.Item]:
    """Yield all videos as they finish, from this process or from `jobs` others that share the cores."""
    if jobs == 1:
        yield from map(maker.make, some)
        return
    # forks of a process that imported PyTorch and started no threads of it; forks of this one may hang
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lab.compare.comparison"])
    with context.Pool(min(jobs, len(some)), _begin, (maker.source, threads_of(jobs))) as pool:
        yield from pool.imap_unordered(_make, some)


def threads_of(jobs: int) -> int:
    """Return the threads per process for this many processes."""
    return max(1, torch.get_num_threads() // jobs)


_maker: Maker | None = None  # a process of `work`


def _begin(source: Source, threads: int) -> None:
    global _maker
    torch.set_num_threads(threads)
    _maker = Maker(source)


def _make(task: Task) -> results.Item:
    assert _maker is not None, "begun before"
    return _maker.make(task)
