"""Stage 3 by a pipeline of diffusers with randomized blending at every step (paper, section 4.3).

The pipeline's own loop refines one window after the other, steered through its scheduler: neighbouring
windows start from the same noise where they overlap, and after every step a window takes its left neighbour's
latents up to a random cut. Video-to-video pipelines start from their `strength`; text-to-video pipelines are
given noised latents.

With an autoencoder that packs r frames into a latent, the first latent of a window holds a single frame.
Windows therefore start at multiples of r, that latent stays the window's own, and the window before gives out
that frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Self

import torch
from PIL import Image

from ..config.refine import RefineByConfig
from ..external.calling import (
    call_arguments,
    called,
    covered,
    own_randomness,
    takes_of,
    video_of,
    with_scheduler,
)
from ..external.continuing import as_sibling, redrawing_class
from ..external.latents import arrange, encode, temporal_ratio, time_axis, tokens_per_frame
from ..external.steering import Redraw, SplicedWindow, late, steered, watched
from ..samplers.noise import frame_noise, integer
from ..video.piece import to_float, to_uint8
from .refine_windows import Carry, WindowRefineStage, Work


@dataclass(frozen=True)
class Grid:
    """Positions of windows, in frames and in latents. ratio: frames to a latent."""

    frames: int
    overlap: int
    ratio: int

    @classmethod
    def fitting(cls, config: RefineByConfig, ratio: int) -> Self:
        """Return the grid nearest to the configured one that an autoencoder of ratio r can pack."""
        if ratio == 1:
            return cls(config.frames, config.overlap, 1)
        frames = max(1, round((config.frames - 1) / ratio)) * ratio + 1
        overlap = min(max(0, round((config.overlap - 1) / ratio)) * ratio + 1, frames - ratio)
        return cls(frames, overlap, ratio)

    @property
    def stride(self) -> int:
        """Frames from the start of a window to the start of the next."""
        return self.frames - self.overlap

    @property
    def shared(self) -> int:
        """Latent frames that two windows share. The first of a packing autoencoder is each window's own."""
        return (self.overlap - 1) // self.ratio + 1 if self.overlap else 0

    @property
    def given_late(self) -> int:
        """First frames of a window that the window before gives out."""
        return 0 if self.ratio == 1 else 1

    def windows(self, total: int | None) -> Iterator[range]:
        """Yield all windows; the last one may be shorter."""
        for number in count():
            start = number * self.stride
            if total is not None and number and start + max(self.overlap, self.given_late) >= total:
                return
            yield range(start, start + self.frames if total is None else min(start + self.frames, total))


@dataclass(frozen=True)
class SplicedRefineStage(WindowRefineStage):
    """Refine windows that are spliced at every denoising step."""

    def _prepared(self, pipe: Any) -> Any:
        return as_sibling(pipe, redrawing_class(type(pipe)))

    def _grid(self, pipe: Any) -> Grid:
        return Grid.fitting(self.config, temporal_ratio(pipe))

    def _plan(self, pipe: Any) -> Iterator[range]:
        return self._grid(pipe).windows(self.total)

    def _late(self, pipe: Any) -> int:
        return self._grid(pipe).given_late

    def _taken(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(to_uint8(frames_TCHW)).movedim(-1, 1)  # pipelines read 8 bits

    def _window(self, pipe: Any, carry: Carry, work: Work) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        grid, config = self._grid(pipe), self.config
        images = to_uint8(self._enlarged(carry.frames(work.window), grid.frames))
        latents = encode(pipe, to_float(images))
        places = tokens_per_frame(pipe, latents)
        hand = self._hand(pipe, grid, carry, places)
        steps = watched(hand, self.on_step)
        with own_randomness(self.seed, "refine", carry.number) as generator:
            wanted = call_arguments(
                work.prompt, self.negative_prompt, self.size, grid.frames, generator=generator,
                num_inference_steps=config.steps, guidance_scale=config.guidance_scale,
            )  # fmt: skip
            if "strength" in takes_of(pipe):
                wanted |= {"video": [Image.fromarray(image) for image in images], "strength": config.strength}
                scheduler = steered(pipe.scheduler, steps)
            else:
                redraw = Redraw(steps, arrange(pipe, latents), hand.noise_of)
                scheduler = late(pipe.scheduler, redraw, config.strength, before=1)
            with with_scheduler(pipe, scheduler):
                made_TCHW = video_of(called(pipe, wanted, self.seed))[: len(work.window)]
        kept = hand.shared(grid.stride // grid.ratio * places, grid.shared * places) if work.following else {}
        return covered(made_TCHW, *self.size), kept

    def _enlarged(self, frames_TCHW: torch.Tensor, count: int) -> torch.Tensor:
        """Return the frames at the output's size, padded with the last one to `count`."""
        last_TCHW = frames_TCHW[-1:].expand(count - len(frames_TCHW), -1, -1, -1)
        return covered(torch.cat([frames_TCHW, last_TCHW]).float() / 127.5 - 1, *self.size)

    def _hand(self, pipe: Any, grid: Grid, carry: Carry, places: int) -> SplicedWindow:
        first = carry.number * (grid.stride // grid.ratio)
        latent_frames = (grid.frames - 1) // grid.ratio + 1
        skip = grid.given_late

        def cut(step: int) -> int:
            drawn = integer(self.seed, "blend", carry.number, step, grid.shared - skip + 1)
            return (skip + drawn) * places

        def noise_of(shape: torch.Size) -> torch.Tensor:
            return _frame_noise(self.seed, first, latent_frames, shape, time_axis(pipe), places)

        return SplicedWindow(time_axis(pipe), noise_of, SplicedWindow.left_in(carry.kept), cut, skip * places)


def _frame_noise(
    seed: int, first: int, count: int, shape: torch.Size, axis: int, places: int
) -> torch.Tensor:
    """Return noise of a shape that belongs to latent frames, counted through the video.

    Pipelines add their noise in one layout and step in another, so the time axis is searched where `axis`
    does not fit.
    """
    if shape[axis] != count * places:
        axis = next(i for i in (2, 1, 0) if i < len(shape) and shape[i] == count)
    rest = (*shape[:axis], *shape[axis + 1 :])
    noise = frame_noise(seed, "refine", range(first, first + count), -1, (places, *rest))
    return noise.flatten(0, 1).movedim(0, axis)
