"""Stage 3: windows of upscaled frames, noised and denoised again by a high-resolution network, joined by randomized blending.

The causal form (paper, section 4.3): a window is refined as soon as its left neighbour is done, and at every solver step
the first frames of their overlap are the neighbour's clean predictions of that step. Where the cut falls is drawn anew at
each step. Noise belongs to frames, not windows, so neighbours share it in their overlap (spec 6.4, 6.5). A window follows the prompt
of the frame in the middle of those that it gives out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.config import RefineConfig
from streamingt2v.samplers.blend import assemble, plan_seams, windows
from streamingt2v.samplers.noise import frame_noise, integer
from streamingt2v.samplers.sdedit import logsnr_cosine_interp, solve, trailing_nodes
from streamingt2v.types import State, TextCond

from .piece import Piece

TextAt = Callable[[int], TextCond]


@dataclass(frozen=True)
class Carry:
    """What the next window needs: its number, its first frame, the frames of it that have come, and the left neighbour's predictions.

    frames_TCHW: unrefined, from frame `start` on. clean_SCTHW: (steps, C, T, h, w) clean latents of the overlap at each solver
    step, or None before the first window.
    """

    number: int
    start: int
    frames_TCHW: torch.Tensor
    clean_SCTHW: torch.Tensor | None

    def state_dict(self) -> State:
        """Flat, under names of its own."""
        clean = {} if self.clean_SCTHW is None else {"refine.clean": self.clean_SCTHW}
        return {"refine.number": self.number, "refine.start": self.start, "refine.frames": self.frames_TCHW, **clean}

    @classmethod
    def from_state(cls, state: State) -> Carry:
        """The carry of `state_dict`."""
        return cls(int(state["refine.number"]), int(state["refine.start"]), state["refine.frames"], state.get("refine.clean"))


class RefineStage:
    """Refines a stream of pieces with one network and seed; `total`: frames in all, None without end."""

    def __init__(self, backbone: RefinerBackbone, config: RefineConfig, seed: int, total: int | None):
        self.backbone, self.config, self.seed, self.total = backbone, config, seed, total
        schedule = logsnr_cosine_interp()
        self.schedule = schedule
        self.nodes = trailing_nodes(schedule, config.steps, levels=round(config.strength * len(schedule.sigmas)))

    def stream(self, pieces: Iterable[Piece], text_at: TextAt, state: State | None = None) -> Iterator[Piece]:
        """Refined pieces of the same frames, `config.scale` times as high and wide, in order and exactly once.

        A refined piece's state is that of the last piece taken in together with the carry. `state`: of the last one kept;
        `pieces` then go on after the last piece that was taken in.
        """
        carry = Carry.from_state(state) if state else None
        upstream: State = state or {}
        source = iter(pieces)
        plan = windows(self.total, self.config.frames, self.config.overlap, start=carry.start if carry else 0)
        window = next(plan, None)
        while window is not None:
            while carry is None or carry.start + len(carry.frames_TCHW) < window.stop:
                piece = next(source)
                upstream = piece.state
                carry = _fed(carry, piece.frames_TCHW)
            following = next(plan, None)
            ahead = following.start if following else window.stop
            frames_TCHW, carry = self._window(carry, window, ahead, text_at((window.start + ahead - 1) // 2))
            yield Piece(frames_TCHW, {**upstream, **carry.state_dict()}, following is None)
            window = following

    def _window(self, carry: Carry, window: range, ahead: int, text: TextCond) -> tuple[torch.Tensor, Carry]:
        """Refined frames up to `ahead`, where the next window begins, and the carry for it."""
        taken = carry.frames_TCHW[: len(window)]
        latents_BCTHW, clean_SCTHW = self._denoise(carry, taken, window, text)
        emitted = ahead - window.start
        refined_TCHW = self.backbone.decode(latents_BCTHW[:, :, :emitted])
        kept_SCTHW = clean_SCTHW[:, :, emitted:].clone() if ahead < window.stop else None
        return refined_TCHW, Carry(carry.number + 1, ahead, carry.frames_TCHW[emitted:].clone(), kept_SCTHW)

    def _denoise(self, carry: Carry, frames_TCHW: torch.Tensor, window: range, text: TextCond) -> tuple[torch.Tensor, torch.Tensor]:
        """Final latents (1, C, T, h, w) of a window and its clean predictions at every solver step (S, C, T, h, w)."""
        rows, columns = (self.config.scale * side for side in frames_TCHW.shape[-2:])
        upscaled_TCHW = F.interpolate(frames_TCHW, (rows, columns), mode="bicubic", antialias=True).clamp(-1, 1)
        clean_BCTHW = self.backbone.encode(upscaled_TCHW)
        shape = (clean_BCTHW.shape[1], *clean_BCTHW.shape[3:])

        def noise(step: int) -> torch.Tensor:
            return frame_noise(self.seed, "refine", window, step, shape).transpose(0, 1)[None].to(clean_BCTHW)

        predict = self.backbone.predictor(text, self.config.guidance_scale, self.config.guidance_rescale)
        record: list[torch.Tensor] = []

        def predict_clean(x_BCTHW: torch.Tensor, timestep: int) -> torch.Tensor:
            clean = self.schedule.clean_from_v(x_BCTHW, predict(x_BCTHW, torch.tensor(timestep)), timestep)
            clean = self._spliced(clean, carry, window, len(record))
            record.append(clean[0].cpu())
            return clean

        noised_BCTHW = self.schedule.diffuse(clean_BCTHW, noise(-1), self.nodes[0].timestep)
        latents_BCTHW = clean_BCTHW
        for step in solve(predict_clean, noised_BCTHW, self.nodes, noise):
            latents_BCTHW = step.latents_BCTHW
        return latents_BCTHW, torch.stack(record)

    def _spliced(self, clean_BCTHW: torch.Tensor, carry: Carry, window: range, step: int) -> torch.Tensor:
        """The prediction with its first frames from the left neighbour, up to a cut drawn for this overlap and step."""
        if carry.clean_SCTHW is None:
            return clean_BCTHW
        left_CTHW = carry.clean_SCTHW[step]
        pair = (range(window.start, window.start + left_CTHW.shape[1]), window)
        seams = plan_seams(pair, "paper", lambda _, high: integer(self.seed, "blend", carry.number, step, high))
        return assemble((left_CTHW[None].to(clean_BCTHW), clean_BCTHW), pair, seams)


def _fed(carry: Carry | None, frames_TCHW: torch.Tensor) -> Carry:
    if carry is None:
        return Carry(0, 0, frames_TCHW, None)
    return Carry(carry.number, carry.start, torch.cat([carry.frames_TCHW, frames_TCHW]), carry.clean_SCTHW)
