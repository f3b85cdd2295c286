"""Stage 3 by a video-to-video pipeline of diffusers: windows refined apart and joined in pixels.

Seam "cut" changes from one window to the next at a frame drawn at random, "fade" is a linear cross-fade.
Neither hides a difference between windows as well as blending at every step does (`refine_by_steps`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ..external.calling import (
    call_arguments,
    called,
    covered,
    frames_of_codec,
    own_randomness,
    video_of,
    with_scheduler,
)
from ..external.steering import Watch, steered
from ..samplers.blend import windows
from ..samplers.noise import integer
from ..video.piece import to_uint8
from .refine_windows import Carry, WindowRefineStage, Work


@dataclass(frozen=True)
class PipelineRefineStage(WindowRefineStage):
    """Refine windows apart, and join them in pixels."""

    def _plan(self, pipe: Any) -> Iterator[range]:
        return windows(self.total, self.config.frames, self.config.overlap)

    def _window(self, pipe: Any, carry: Carry, work: Work) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        refined_TCHW = self._refine(pipe, carry.frames(work.window), carry.number, work.prompt)
        if "refined" in carry.kept:
            refined_TCHW = self._joined(carry.kept["refined"], refined_TCHW, carry.number)
        kept_TCHW = refined_TCHW[work.own :].clone()
        return refined_TCHW, {"refined": kept_TCHW} if len(kept_TCHW) else {}

    def _refine(self, pipe: Any, frames_TCHW: torch.Tensor, number: int, prompt: str) -> torch.Tensor:
        """Refine one window, padded with its last frame to a length that the autoencoder can pack."""
        count, config = len(frames_TCHW), self.config
        last_TCHW = frames_TCHW[-1:].expand(frames_of_codec(pipe, count) - count, -1, -1, -1)
        large_TCHW = covered(torch.cat([frames_TCHW, last_TCHW]), *self.size)
        reported: AbstractContextManager[None] = nullcontext()
        if self.on_step is not None:
            reported = with_scheduler(pipe, steered(pipe.scheduler, Watch(self.on_step)))
        with own_randomness(self.seed, "refine", number) as generator, reported:
            wanted = call_arguments(
                prompt, self.negative_prompt, self.size, generator=generator, strength=config.strength,
                video=[Image.fromarray(frame) for frame in to_uint8(large_TCHW)],
                num_inference_steps=config.steps, guidance_scale=config.guidance_scale,
            )  # fmt: skip
            return covered(video_of(called(pipe, wanted, self.seed))[:count], *self.size)

    def _joined(self, left_TCHW: torch.Tensor, right_TCHW: torch.Tensor, number: int) -> torch.Tensor:
        """Return a window with its first frames taken from, or mixed with, those of the window before."""
        shared = len(left_TCHW)
        if self.config.seam != "fade":
            cut = integer(self.seed, "blend", number, 0, shared + 1)
            return torch.cat([left_TCHW[:cut], right_TCHW[cut:]])
        weight_T111 = (torch.arange(1, shared + 1) / (shared + 1))[:, None, None, None]
        return torch.cat([torch.lerp(left_TCHW, right_TCHW[:shared], weight_T111), right_TCHW[shared:]])
