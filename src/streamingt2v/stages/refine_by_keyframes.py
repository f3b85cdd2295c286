"""Stage 3 by I2VGen-XL, StreamingSVD's enhancer: windows redrawn from a picture each, spliced at every step (method.md: StreamingSVD).

A first pass redraws the first frames of some windows, as one short video, after the first frame of the whole. Each then is the picture
that its window is redrawn after. Windows share their noise, and after every step the latents of an overlap come from the window before
up to a random cut. The published program passes over all windows of the video at each step, and makes all keyframes at once; here
a window listens to the one before it alone, and keyframes are made in groups, so that a video may have any length.

The pipeline's own loop does the work: its scheduler is put into a frame that begins late and splices (`_Spliced`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from ..backbones.modelscope import decode_frames, encode_frames
from ..config.refine import RefineByConfig
from ..external.calling import Open, covered, own_randomness
from ..samplers.blend import window_at
from ..samplers.noise import frame_noise, integer
from ..types import State
from ..video.piece import Piece, to_uint8, whole
from .refine_by_pipeline import PromptAt


@dataclass(frozen=True)
class Carry:
    """State for the next window.

    number: its own. start: of frames_TCHW, the unrefined frames that are there. first_CHW: the video's first, unrefined. keyframes_THWC:
    redrawn, uint8, of this window and those after it. left_SCTHW: latents after each step, of the frames shared with the window before.
    """

    number: int = 0
    start: int = 0
    frames_TCHW: torch.Tensor | None = None
    first_CHW: torch.Tensor | None = None
    keyframes_THWC: torch.Tensor | None = None
    left_SCTHW: torch.Tensor | None = None

    def state_dict(self) -> State:
        """Flat, under names of its own."""
        values = {
            "number": self.number,
            "start": self.start,
            "frames": self.frames_TCHW,
            "first": self.first_CHW,
        }
        values |= {"keyframes": self.keyframes_THWC, "left": self.left_SCTHW}
        return {f"refine.{name}": value for name, value in values.items() if value is not None}

    @classmethod
    def from_state(cls, state: State) -> Carry:
        """The carry of `state_dict`."""
        tensors = (state.get(f"refine.{name}") for name in ("frames", "first", "keyframes", "left"))
        return cls(int(state["refine.number"]), int(state["refine.start"]), *tensors)

    def fed(self, frames_TCHW: torch.Tensor) -> Carry:
        """With these further unrefined frames."""
        have_TCHW = frames_TCHW if self.frames_TCHW is None else torch.cat([self.frames_TCHW, frames_TCHW])
        return replace(
            self,
            frames_TCHW=have_TCHW,
            first_CHW=have_TCHW[0].clone() if self.first_CHW is None else self.first_CHW,
        )

    def frames(self, window: range) -> torch.Tensor:
        """The unrefined frames of a window that is there."""
        assert self.frames_TCHW is not None, "it was fed"
        return self.frames_TCHW[window.start - self.start : window.stop - self.start]

    @property
    def stop(self) -> int:
        """The frame after the last unrefined one."""
        return self.start + (0 if self.frames_TCHW is None else len(self.frames_TCHW))


@dataclass(frozen=True)
class KeyframeRefineStage:
    """Refines a stream of pieces with one pipeline and seed. total: frames in all, None without end. size: (height, width) of
    what comes out. device: where the pipeline works."""

    open: Open
    config: RefineByConfig
    seed: int
    total: int | None
    size: tuple[int, int]
    negative_prompt: str
    device: torch.device

    def stream(
        self, pieces: Iterable[Piece], text_at: PromptAt, state: State | None = None
    ) -> Iterator[Piece]:
        """Refined pieces of the same frames, in order and exactly once.

        A piece's state is that of the last piece taken in together with the carry; see `refine.RefineStage.stream`. text_at: the prompt
        of a frame; a window follows that of the middle of the frames it gives out.
        """
        carry = Carry.from_state(state) if state else Carry()
        upstream: State = state or {}
        source = iter(pieces)
        with ExitStack() as stack:
            pipe: Any = None
            while (window := self._window(carry.number)) is not None:
                while carry.stop < self._needed(carry, window):
                    piece = next(source)
                    carry, upstream = carry.fed(piece.frames_TCHW), piece.state
                if pipe is None:  # once there is something to do, and with the global generator left alone
                    with own_randomness(self.seed, "refine"):
                        pipe = stack.enter_context(self.open())
                if carry.keyframes_THWC is None:
                    carry = replace(carry, keyframes_THWC=self._keyframes(pipe, carry, text_at))
                frames_TCHW, carry = self._refine(pipe, carry, window, text_at)
                yield Piece(
                    frames_TCHW, {**upstream, **carry.state_dict()}, self._window(carry.number) is None
                )

    def _window(self, number: int) -> range | None:
        return window_at(number, self.total, self.config.frames, self.config.overlap)

    def _group(self, number: int) -> list[range]:
        """The windows from this one on whose keyframes are made together."""
        found = (self._window(number + k) for k in range(self.config.keyframe_group))
        return [window for window in found if window is not None]

    def _needed(self, carry: Carry, window: range) -> int:
        """Up to where frames must be there."""
        return (
            window.stop
            if carry.keyframes_THWC is not None
            else max(window.stop, self._group(carry.number)[-1].start + 1)
        )

    def _keyframes(self, pipe: Any, carry: Carry, text_at: PromptAt) -> torch.Tensor:
        """The first frames of a group of windows, redrawn as one short video: uint8 (T, H, W, 3)."""
        starts = [window.start for window in self._group(carry.number)]
        assert carry.first_CHW is not None, "it was fed"
        frames_TCHW = torch.cat([carry.frames(range(start, start + 1)) for start in starts])
        picture_HWC = to_uint8(self._enlarged(carry.first_CHW[None]))[0]
        spliced = _Spliced(pipe.scheduler, self.config.strength)
        latents_BCTHW = self._redraw(
            pipe, frames_TCHW, starts, "keyframes", carry.number, text_at(starts[0]), picture_HWC, spliced
        )
        return torch.from_numpy(to_uint8(whole(decode_frames(pipe.vae, latents_BCTHW, self.device))))

    def _refine(
        self, pipe: Any, carry: Carry, window: range, text_at: PromptAt
    ) -> tuple[torch.Tensor, Carry]:
        """Refined frames up to where the next window begins, and the carry for it."""
        assert carry.keyframes_THWC is not None, "made before"
        following = self._window(carry.number + 1)
        ahead = following.start if following else window.stop
        prompt, picture_HWC = text_at((window.start + ahead - 1) // 2), carry.keyframes_THWC[0].numpy()
        spliced = _Spliced(pipe.scheduler, self.config.strength, carry.left_SCTHW, self._cuts(carry))
        latents_BCTHW = self._redraw(
            pipe, carry.frames(window), window, "refine", carry.number, prompt, picture_HWC, spliced
        )
        own = ahead - window.start
        frames_TCHW = whole(decode_frames(pipe.vae, latents_BCTHW[:, :, :own], self.device))
        left = torch.stack([step_CTHW[:, own:] for step_CTHW in spliced.made]).clone() if following else None
        rest_TCHW = carry.frames(range(ahead, carry.stop)).clone()
        keyframes = carry.keyframes_THWC[1:].clone()
        return frames_TCHW, Carry(
            carry.number + 1, ahead, rest_TCHW, carry.first_CHW, keyframes if len(keyframes) else None, left
        )

    def _cuts(self, carry: Carry) -> list[int]:
        """For every step how many frames of the overlap come from the window before: 0 to all but one, as published."""
        if carry.left_SCTHW is None:
            return []
        shared = carry.left_SCTHW.shape[2]
        return [
            integer(self.seed, "blend", carry.number, step, max(1, shared))
            for step in range(len(carry.left_SCTHW))
        ]

    def _redraw(
        self, pipe: Any, frames_TCHW: torch.Tensor, places: Sequence[int], stage: str, number: int, prompt: str, picture_HWC: Any,
        spliced: _Spliced,
    ) -> torch.Tensor:  # fmt: skip
        """Frames, enlarged and noised, denoised again after a picture: latents (1, C, T, h, w). places: of the frames in the video."""
        large_TCHW = self._enlarged(frames_TCHW)
        height, width = large_TCHW.shape[-2:]
        clean_BCTHW = encode_frames(pipe.vae, large_TCHW, self.device)
        noise_BCTHW = (
            frame_noise(self.seed, stage, places, -1, tuple(clean_BCTHW[0, :, 0].shape))
            .transpose(0, 1)[None]
            .to(self.device)
        )
        spliced.set_timesteps(self.config.steps, device=self.device)
        noised_BCTHW = spliced.inner.add_noise(clean_BCTHW, noise_BCTHW, spliced.timesteps[:1])
        own, pipe.scheduler = pipe.scheduler, spliced
        guided = {} if self.config.guidance_scale is None else {"guidance_scale": self.config.guidance_scale}
        positive_BLD, negative_BLD = embedded(pipe, [prompt, self.negative_prompt], self.device).chunk(2)
        try:
            with own_randomness(self.seed, stage, number) as generator:
                return pipe(
                    image=Image.fromarray(picture_HWC), height=height, width=width, num_frames=len(frames_TCHW), generator=generator,
                    prompt_embeds=positive_BLD, negative_prompt_embeds=negative_BLD, num_inference_steps=self.config.steps,
                    target_fps=self.config.target_fps or 38, latents=noised_BCTHW.to(pipe.unet.dtype), output_type="latent", **guided,
                ).frames.float()  # fmt: skip
        finally:
            pipe.scheduler = own

    def _enlarged(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        return covered(frames_TCHW, *self.size)


@torch.no_grad()
def embedded(pipe: Any, texts: list[str], device: torch.device) -> torch.Tensor:
    """Texts (N, L, D) as I2VGen-XL reads them: the last but one layer, normalised. The pipeline's own way needs transformers 4."""
    length = pipe.tokenizer.model_max_length
    ids = pipe.tokenizer(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    hidden_NLD = pipe.text_encoder(ids.to(device), output_hidden_states=True).hidden_states[-2]
    return getattr(pipe.text_encoder, "text_model", pipe.text_encoder).final_layer_norm(hidden_NLD)


class _Spliced:
    """A scheduler for a pipeline's own loop that begins at a strength, and after every step takes the first frames from another window.

    left_SCTHW: that window's latents of those frames after each step; cuts: how many of them are taken. made: the latents after each
    step (C, T, h, w), on the CPU, in float32. What is not told here is the inner scheduler's.
    """

    def __init__(
        self, inner: Any, strength: float, left_SCTHW: torch.Tensor | None = None, cuts: Sequence[int] = ()
    ):
        self.inner = type(inner).from_config(inner.config)
        self.strength, self.left_SCTHW, self.cuts = strength, left_SCTHW, cuts
        self.made: list[torch.Tensor] = []
        self.init_noise_sigma = 1.0  # the latents that are given have their noise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        """The last steps of so many, from the strength on."""
        self.inner.set_timesteps(steps, device=device)
        self.timesteps = self.inner.timesteps[len(self.inner.timesteps) - int(steps * self.strength) :]

    def step(self, model_output: torch.Tensor, timestep: Any, sample_TCHW: torch.Tensor) -> Any:
        """Step like the inner scheduler, for the frames (T, C, h, w) of one window."""
        output = self.inner.step(model_output, timestep, sample_TCHW)
        after_TCHW = output.prev_sample
        if self.left_SCTHW is not None:
            index = len(self.made)
            taken_TCHW = self.left_SCTHW[index, :, : self.cuts[index]].transpose(0, 1).to(after_TCHW)
            after_TCHW = torch.cat([taken_TCHW, after_TCHW[len(taken_TCHW) :]])
        self.made.append(after_TCHW.transpose(0, 1).float().cpu())
        output.prev_sample = after_TCHW
        return output
