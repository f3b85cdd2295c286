"""Stage 3 by I2VGen-XL, StreamingSVD's enhancer: windows from one keyframe each, spliced at every step.

A first pass refines the first frames of several windows as one short video, from the first frame of the
whole. Each of them is the keyframe of its window. Windows share their noise, and after every step a window
takes its left neighbour's latents up to a random cut. The published program runs all windows of a video side
by side and makes all keyframes at once; here a window depends on the one before it alone, and keyframes are
made in groups, so that a video may have any length (method.md: StreamingSVD).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from ..backbones.modelscope import decode_frames, encode_frames
from ..external.calling import covered, own_randomness, with_scheduler
from ..external.steering import SplicedWindow, late, noised, watched
from ..samplers.blend import window_at, windows
from ..samplers.noise import frame_noise, integer
from ..video.piece import to_uint8, whole
from .refine_windows import Carry, WindowRefineStage, Work


@dataclass(frozen=True)
class KeyframeRefineStage(WindowRefineStage):
    """Refine windows from keyframes.

    `Carry.kept` holds "first", the video's first frame (3, H, W), unrefined; "keyframes", uint8 (T, H, W, 3),
    of the next window and those after it; and the latents that the next window is spliced with. device: where
    the pipeline works.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def _plan(self, pipe: Any) -> Iterator[range]:
        return windows(self.total, self.config.frames, self.config.overlap)

    def _group(self, number: int) -> list[range]:
        """Return the windows from this one on whose keyframes are made together."""
        numbers, config = range(number, number + self.config.keyframe_group), self.config
        found = (window_at(n, self.total, config.frames, config.overlap) for n in numbers)
        return [window for window in found if window is not None]

    def _needed(self, carry: Carry, window: range) -> int:
        if "keyframes" in carry.kept:
            return window.stop
        return max(window.stop, self._group(carry.number)[-1].start + 1)

    def _window(self, pipe: Any, carry: Carry, work: Work) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        frames_TCHW = carry.frames(work.window)
        first_CHW = carry.kept["first"] if "first" in carry.kept else frames_TCHW[0].clone()
        keyframes = carry.kept.get("keyframes")
        if keyframes is None:
            keyframes = self._keyframes(pipe, carry, first_CHW, work.text_at(work.window.start))
        hand = self._hand(carry.number, work.window, SplicedWindow.left_in(carry.kept), "refine")
        latents_BCTHW = self._redraw(pipe, frames_TCHW, carry.number, work.prompt, keyframes[0].numpy(), hand)
        own = work.own
        refined_TCHW = whole(decode_frames(pipe.vae, latents_BCTHW[:, :, :own], self.device))
        left = hand.shared(own, len(work.window) - own) if work.following else {}
        rest = {"keyframes": keyframes[1:].clone()} if len(keyframes) > 1 else {}
        return refined_TCHW, {"first": first_CHW, **rest, **left}

    def _keyframes(self, pipe: Any, carry: Carry, first_CHW: torch.Tensor, prompt: str) -> torch.Tensor:
        """Refine the first frames of a group of windows as one short video: uint8 (T, H, W, 3)."""
        starts = [window.start for window in self._group(carry.number)]
        frames_TCHW = torch.cat([carry.frames(range(start, start + 1)) for start in starts])
        image_HWC = to_uint8(covered(first_CHW[None], *self.size))[0]
        hand = self._hand(carry.number, starts, {}, "keyframes")
        latents_BCTHW = self._redraw(pipe, frames_TCHW, carry.number, prompt, image_HWC, hand, "keyframes")
        return torch.from_numpy(to_uint8(whole(decode_frames(pipe.vae, latents_BCTHW, self.device))))

    def _hand(
        self, number: int, places: Sequence[int], left: dict[int, torch.Tensor], stage: str
    ) -> SplicedWindow:
        """Return the hand for a window.

        As published, a cut leaves at least one shared frame to the later window.
        """
        shared = next(iter(left.values())).shape[0] if left else 0

        def cut(step: int) -> int:
            return integer(self.seed, "blend", number, step, max(1, shared))

        def noise_of(shape_TCHW: torch.Size) -> torch.Tensor:
            return frame_noise(self.seed, stage, places, -1, tuple(shape_TCHW[1:]))

        return SplicedWindow(0, noise_of, left, cut)

    def _redraw(
        self,
        pipe: Any,
        frames_TCHW: torch.Tensor,
        number: int,
        prompt: str,
        image_HWC: Any,
        hand: SplicedWindow,
        stage: str = "refine",
    ) -> torch.Tensor:
        """Enlarge, noise and denoise frames, given a keyframe: latents (1, C, T, h, w)."""
        large_TCHW, config = covered(frames_TCHW, *self.size), self.config
        height, width = self.size
        clean_TCHW = encode_frames(pipe.vae, large_TCHW, self.device)[0].transpose(0, 1)
        scheduler = late(pipe.scheduler, watched(hand, self.on_step), config.strength)
        scheduler.set_timesteps(config.steps, device=self.device)
        noise_TCHW = hand.noise_of(clean_TCHW.shape).to(self.device)
        noised_BCTHW = noised(scheduler, clean_TCHW, noise_TCHW, 0).transpose(0, 1)[None]
        positive_BLD, negative_BLD = embedded(pipe, [prompt, self.negative_prompt], self.device).chunk(2)
        guided = {} if config.guidance_scale is None else {"guidance_scale": config.guidance_scale}
        with own_randomness(self.seed, stage, number) as generator, with_scheduler(pipe, scheduler):
            return pipe(
                image=Image.fromarray(image_HWC),
                height=height,
                width=width,
                num_frames=len(frames_TCHW),
                generator=generator,
                prompt_embeds=positive_BLD,
                negative_prompt_embeds=negative_BLD,
                num_inference_steps=config.steps,
                target_fps=config.target_fps or 38,
                latents=noised_BCTHW.to(pipe.unet.dtype),
                output_type="latent",
                **guided,
            ).frames.float()


@torch.no_grad()
def embedded(pipe: Any, texts: list[str], device: torch.device) -> torch.Tensor:
    """Return texts (N, L, D) as I2VGen-XL reads them: the last layer but one, normalised.

    Its own code needs transformers 4.
    """
    length = pipe.tokenizer.model_max_length
    ids = pipe.tokenizer(
        texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    hidden_NLD = pipe.text_encoder(ids.to(device), output_hidden_states=True).hidden_states[-2]
    return getattr(pipe.text_encoder, "text_model", pipe.text_encoder).final_layer_norm(hidden_NLD)
