"""Stage 3 by a pipeline of diffusers with randomized blending at every step (paper, section 4.3).

Windows are redrawn one after the other by the pipeline's own loop, which is steered through its scheduler: neighbouring windows
begin from the same noise where they overlap, and after every step a window shows its neighbour's latents up to a cut that is drawn
at random. Video-to-video pipelines do so with their `strength`; text-to-video pipelines redraw from noised latents.

An autoencoder that packs r frames into a latent one has a first latent that shows a single frame. Windows therefore begin at
multiples of r, that latent stays a window's own, and the frame is given out by the window before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from PIL import Image

from ..config.refine import RefineByConfig
from ..external.calling import Open, called, covered, own_randomness, takes_of, video_of
from ..external.continuing import as_sibling, redrawing_class
from ..external.latents import arrange, encode, temporal_ratio, time_axis, tokens_per_frame
from ..external.steering import Hands, OnStep, Redraw, SplicedWindow, Watch, redrawing, steered
from ..samplers.noise import frame_noise, integer
from ..types import State
from ..video.piece import Piece, to_uint8

PromptAt = Callable[[int], str]


@dataclass(frozen=True)
class SplicedCarry:
    """What the next window needs: its number, the unrefined frames from its first on, and its neighbour's latents in their overlap."""

    number: int = 0
    frames_TCHW: torch.Tensor | None = None  # uint8, as pipelines take them
    left: dict[int, torch.Tensor] = field(default_factory=dict)

    def state_dict(self) -> State:
        """Flatten to names of its own."""
        frames = {} if self.frames_TCHW is None else {"refine.frames": self.frames_TCHW}
        left = {f"refine.left.{step}": latents for step, latents in self.left.items()}
        return {"refine.number": self.number, **frames, **left}

    @classmethod
    def from_state(cls, state: State) -> SplicedCarry:
        """Read what `state_dict` gives."""
        prefix = "refine.left."
        left = {
            int(name.removeprefix(prefix)): value for name, value in state.items() if name.startswith(prefix)
        }
        return cls(int(state["refine.number"]), state.get("refine.frames"), left)

    def fed(self, frames_TCHW: torch.Tensor) -> SplicedCarry:
        """Take further unrefined frames, float in [-1, 1], in."""
        new_TCHW = torch.from_numpy(to_uint8(frames_TCHW)).movedim(-1, 1)
        have_TCHW = new_TCHW if self.frames_TCHW is None else torch.cat([self.frames_TCHW, new_TCHW])
        return SplicedCarry(self.number, have_TCHW, self.left)


@dataclass(frozen=True)
class Grid:
    """Where windows are, in frames and in latents. ratio: frames to a latent."""

    frames: int
    overlap: int
    ratio: int

    @classmethod
    def fitting(cls, config: RefineByConfig, ratio: int) -> Grid:
        """Return the grid nearest to the configured one that an autoencoder can pack: r m + 1 frames, at strides of r."""
        if ratio == 1:
            return cls(config.frames, config.overlap, 1)
        frames = max(1, round((config.frames - 1) / ratio)) * ratio + 1
        overlap = min(max(0, round((config.overlap - 1) / ratio)) * ratio + 1, frames - ratio)
        return cls(frames, overlap, ratio)

    @property
    def stride(self) -> int:
        """Frames between the beginnings of two windows."""
        return self.frames - self.overlap

    @property
    def shared(self) -> int:
        """Latent frames that two windows share; of a packing autoencoder the first is each one's own."""
        return (self.overlap - 1) // self.ratio + 1 if self.overlap else 0

    @property
    def given_late(self) -> int:
        """Frames at the beginning of a window that the one before gives out: the one that a first latent shows alone."""
        return 0 if self.ratio == 1 else 1

    def windows(self, total: int | None) -> Iterator[range]:
        """Yield all windows; the last one may be shorter."""
        for number in count():
            start = number * self.stride
            if total is not None and number and start + max(self.overlap, self.given_late) >= total:
                return
            yield range(start, start + self.frames if total is None else min(start + self.frames, total))


@dataclass(frozen=True)
class SplicedRefineStage:
    """Refine a stream of pieces with one pipeline and seed.

    total: frames in all, None without end. size: (height, width) of what comes out. on_step: called with (step, steps) after every
    step of a window; raising in it cancels.
    """

    open: Open
    config: RefineByConfig
    seed: int
    total: int | None
    size: tuple[int, int]
    negative_prompt: str = ""
    on_step: OnStep | None = None

    def stream(
        self, pieces: Iterable[Piece], text_at: PromptAt, state: State | None = None
    ) -> Iterator[Piece]:
        """Yield refined pieces of the same frames, in order and exactly once.

        A piece's state is that of the last piece taken in together with the carry. text_at: gives the prompt of a frame; a window
        follows that of the middle of the frames it gives out.
        """
        carry = SplicedCarry.from_state(state) if state else SplicedCarry()
        upstream: State = state or {}
        source, started = iter(pieces), carry.number
        with ExitStack() as stack:
            with own_randomness(self.seed, "refine"):
                whole = stack.enter_context(self.open())
            pipe = as_sibling(whole, redrawing_class(type(whole)))
            grid = Grid.fitting(self.config, temporal_ratio(pipe))
            last = None if self.total is None else sum(1 for _ in grid.windows(self.total)) - 1
            for number, window in enumerate(grid.windows(self.total)):
                if number < started:
                    continue
                carry, upstream = self._fed(carry, upstream, source, window)
                final = number == last
                frames_TCHW, carry = self._window(pipe, grid, carry, window, final, text_at)
                if len(frames_TCHW):
                    yield Piece(frames_TCHW, {**_kept(upstream), **carry.state_dict()}, final)

    def _fed(
        self, carry: SplicedCarry, upstream: State, source: Iterator[Piece], window: range
    ) -> tuple[SplicedCarry, State]:
        """Take pieces in until the window has its frames."""
        while carry.frames_TCHW is None or len(carry.frames_TCHW) < len(window):
            piece = next(source)
            carry, upstream = carry.fed(piece.frames_TCHW), piece.state
        return carry, upstream

    def _window(
        self, pipe: Any, grid: Grid, carry: SplicedCarry, window: range, final: bool, text_at: PromptAt
    ) -> tuple[torch.Tensor, SplicedCarry]:
        """Return the frames that the window gives out, and the carry for the next one."""
        assert carry.frames_TCHW is not None, "the window was fed"
        first = grid.given_late if carry.number else 0
        stop = len(window) if final else grid.stride + grid.given_late
        prompt = text_at((window.start + first + window.start + stop - 1) // 2)
        refined_TCHW, left = self._redrawn(pipe, grid, carry, carry.frames_TCHW[: len(window)], prompt)
        rest_TCHW = carry.frames_TCHW[grid.stride :].clone()
        return refined_TCHW[first:stop], SplicedCarry(carry.number + 1, rest_TCHW, {} if final else left)

    def _redrawn(
        self, pipe: Any, grid: Grid, carry: SplicedCarry, frames_TCHW: torch.Tensor, prompt: str
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """Return a window's refined frames, and its latents after every step where the next window overlaps it."""
        height, width = self.size
        missing_TCHW = frames_TCHW[-1:].expand(grid.frames - len(frames_TCHW), -1, -1, -1)
        whole_TCHW = torch.cat([frames_TCHW, missing_TCHW]).float() / 127.5 - 1
        images = to_uint8(covered(whole_TCHW, height, width))
        large_TCHW = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
        latents = encode(pipe, large_TCHW)
        places = tokens_per_frame(pipe, latents)
        hand = self._hand(pipe, grid, carry, places)
        with own_randomness(self.seed, "refine", carry.number) as generator:
            wanted = {
                "prompt": prompt,
                "negative_prompt": self.negative_prompt,
                "height": height,
                "width": width,
                "num_inference_steps": self.config.steps,
                "guidance_scale": self.config.guidance_scale,
                "generator": generator,
            }
            if "strength" in takes_of(pipe):
                wanted |= {
                    "video": [Image.fromarray(frame) for frame in images],
                    "strength": self.config.strength,
                }
                scheduler = steered(pipe.scheduler, self._watched(hand))
            else:
                wanted |= dict.fromkeys(("num_frames", "video_length", "frames"), grid.frames)
                redraw = Redraw(self._watched(hand), arrange(pipe, latents), hand.noise_of)
                scheduler = redrawing(pipe.scheduler, redraw, self.config.strength)
            with with_scheduler(pipe, scheduler):
                refined_TCHW = covered(
                    video_of(called(pipe, wanted, self.seed))[: len(frames_TCHW)], height, width
                )
        begin, length = grid.stride // grid.ratio * places, grid.shared * places
        left = {step: made.narrow(hand.axis, begin, length).cpu().clone() for step, made in hand.made.items()}
        return refined_TCHW, left if grid.shared else {}

    def _hand(self, pipe: Any, grid: Grid, carry: SplicedCarry, places: int) -> SplicedWindow:
        first = carry.number * (grid.stride // grid.ratio)
        count = (grid.frames - 1) // grid.ratio + 1
        skip = grid.given_late

        def cut(step: int) -> int:
            drawn = integer(self.seed, "blend", carry.number, step, grid.shared - skip + 1)
            return (skip + drawn) * places

        def noise_of(shape: torch.Size) -> torch.Tensor:
            return _frame_noise(self.seed, first, count, shape, time_axis(pipe), places)

        return SplicedWindow(time_axis(pipe), noise_of, carry.left or None, cut, skip * places)

    def _watched(self, hand: SplicedWindow) -> Any:
        return hand if self.on_step is None else Hands((hand, Watch(self.on_step)))


@contextmanager
def with_scheduler(pipe: Any, scheduler: Any) -> Iterator[None]:
    """Let a pipeline work with another scheduler for a while."""
    own = pipe.scheduler
    pipe.scheduler = scheduler
    try:
        yield
    finally:
        pipe.scheduler = own


def _frame_noise(
    seed: int, first: int, count: int, shape: torch.Size, axis: int, places: int
) -> torch.Tensor:
    """Return noise of a shape that belongs to latent frames, counted through the video.

    Pipelines add their noise in one layout and step in another, so the axis of time is looked up where `axis` does not fit.
    """
    if shape[axis] != count * places:
        axis = next(i for i in (2, 1, 0) if i < len(shape) and shape[i] == count)
    rest = (*shape[:axis], *shape[axis + 1 :])
    noise = frame_noise(seed, "refine", range(first, first + count), -1, (places, *rest))
    return noise.flatten(0, 1).movedim(0, axis)


def _kept(upstream: State) -> State:
    """Drop an older window's latents from a state."""
    return {name: value for name, value in upstream.items() if not name.startswith("refine.")}
