"""State of a refinement in progress: windows at different steps of the solver, joined after every step.

A step of a window needs the predictions of its neighbours at that step: of both sides in the joint form, of
the left in the causal form. Any order of work that respects this gives the same bytes as refining the whole
video in memory, because noise and cuts are functions of (seed, frame or overlap, step). Only windows between
the oldest unfinished one and the newest are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from ..config import RefineConfig
from ..samplers.blend import assemble, cross_fade, seam, window_at
from ..samplers.noise import frame_noise, integer
from ..samplers.sdedit import Node, VPSchedule, begin, completed, model_input, rest
from ..types import State


class Part(NamedTuple):
    """Latents of consecutive frames of the video."""

    frames: range
    latents_BCTHW: torch.Tensor

    def of(self, frames: range) -> Part:
        """Return the part that lies in these frames."""
        both = range(max(frames.start, self.frames.start), min(frames.stop, self.frames.stop))
        return Part(
            both, self.latents_BCTHW[:, :, both.start - self.frames.start : both.stop - self.frames.start]
        )


class Work(NamedTuple):
    """Input of the network, for a window at a step."""

    number: int
    step: int
    timestep: int
    latents_BCTHW: torch.Tensor


@dataclass
class Track:
    """A window in progress; latents are (1, C, T, h, w).

    latents_BCTHW: VE latents at `step`; after the window's prediction, what completes the step
    (`sdedit.rest`), or None. previous_BCTHW: clean prediction of the step before, while it is needed.
    """

    step: int
    latents_BCTHW: torch.Tensor | None
    previous_BCTHW: torch.Tensor | None = None


class Wavefront:
    """All windows in progress.

    `admit` them in order, answer what is `ready` by `put`, take what is `finished` and `release` it.

    total: number of frames, None without end. All tensors are on the CPU.
    """

    def __init__(
        self,
        config: RefineConfig,
        schedule: VPSchedule,
        nodes: tuple[Node, ...],
        seed: int,
        total: int | None,
    ):
        self.config, self.schedule, self.nodes, self.seed, self.total = config, schedule, nodes, seed, total
        self.last = len(nodes) - 1
        self.released = 0  # windows that are finished and dropped
        self._tracks: dict[int, Track] = {}  # by number, ascending
        # predictions, or latents after the step, for windows that share frames; by (window, step)
        self._proposals: dict[tuple[int, int], Part] = {}

    def window(self, number: int) -> range | None:
        """Return the frames of a window, None after the last."""
        return window_at(number, self.total, self.config.frames, self.config.overlap)

    def own(self, number: int) -> range:
        """Return the frames that a window gives out: those before the next one starts."""
        window, following = self._window(number), self.window(number + 1)
        return range(window.start, following.start if following else window.stop)

    def admit(self, number: int, clean_BCTHW: torch.Tensor) -> None:
        """Add the next window, from its clean latents."""
        noise = self._noise(number, clean_BCTHW, -1)
        noised_BCTHW = self.schedule.diffuse(clean_BCTHW, noise, self.nodes[0].timestep)
        self._tracks[number] = Track(0, begin(noised_BCTHW, self.nodes))

    def ready(self) -> list[Work]:
        """Return all predictions that can be made now, the latest steps first: few windows at a time."""
        waiting = [
            (-track.step, number)
            for number, track in self._tracks.items()
            if (number, track.step) not in self._proposals
        ]
        return [self._work(number) for _, number in sorted(waiting)]

    def put(self, work: Work, velocity_BCTHW: torch.Tensor) -> None:
        """Take the network's v-prediction; advance the windows that waited for it."""
        clean_BCTHW = self.schedule.clean_from_v(work.latents_BCTHW, velocity_BCTHW, work.timestep)
        self._proposals[work.number, work.step] = Part(
            self._window(work.number), self._proposed(work.number, clean_BCTHW)
        )
        for number, waiting in self._tracks.items():
            heard = self._inputs(number, waiting.step)
            if waiting.step < self.last and all((other, waiting.step) in self._proposals for other in heard):
                self._pass(number)
        self._forget()

    def finished(self) -> torch.Tensor | None:
        """Return the final latents (1, C, T, h, w) of the oldest window's own frames, or None."""
        if (self.released, self.last) not in self._proposals:
            return None
        return self._joined(self.released, self.last, self.own(self.released))

    def release(self) -> None:
        """Drop the oldest window, whose frames have been taken."""
        del self._tracks[self.released]
        self.released += 1
        self._forget()

    def state_dict(self) -> State:
        """Return it as a flat mapping, as large for any length: some latents per window in progress."""
        tracks, proposals = self._tracks.items(), self._proposals.items()
        return {
            "refine.released": self.released,
            "refine.tracks": [[number, track.step] for number, track in tracks],
            "refine.proposals": [[*key, part.frames.start, part.frames.stop] for key, part in proposals],
            **{
                f"refine.latents.{n}": track.latents_BCTHW
                for n, track in tracks
                if track.latents_BCTHW is not None
            },
            **{
                f"refine.previous.{n}": track.previous_BCTHW
                for n, track in tracks
                if track.previous_BCTHW is not None
            },
            **{f"refine.proposal.{n}.{step}": part.latents_BCTHW for (n, step), part in proposals},
        }

    def load_state_dict(self, state: State) -> None:
        """Read what `state_dict` returned."""
        self.released = int(state["refine.released"])
        for number, step in state["refine.tracks"]:
            self._tracks[number] = Track(
                step, state.get(f"refine.latents.{number}"), state.get(f"refine.previous.{number}")
            )
        for number, step, start, stop in state["refine.proposals"]:
            self._proposals[number, step] = Part(
                range(start, stop), state[f"refine.proposal.{number}.{step}"]
            )

    def _work(self, number: int) -> Work:
        track = self._tracks[number]
        assert track.latents_BCTHW is not None, "no prediction yet"
        node = self.nodes[track.step]
        # contiguous: some kernels sum in another order for another layout
        return Work(number, track.step, node.timestep, model_input(track.latents_BCTHW, node).contiguous())

    def _proposed(self, number: int, clean_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return what a window offers to others at its step; keep only what completes the step."""
        track = self._tracks[number]
        assert track.latents_BCTHW is not None, "no prediction yet"
        if track.step == self.last:
            track.latents_BCTHW = track.previous_BCTHW = None
            return clean_BCTHW
        noise = partial(self._noise, number, clean_BCTHW)
        rest_BCTHW = rest(self.nodes, track.step, track.latents_BCTHW, track.previous_BCTHW, noise)
        if self.config.splice == "latents":
            track.latents_BCTHW, track.previous_BCTHW = None, clean_BCTHW
            return completed(self.nodes, track.step, rest_BCTHW, clean_BCTHW)
        track.latents_BCTHW, track.previous_BCTHW = rest_BCTHW, None
        return clean_BCTHW

    def _pass(self, number: int) -> None:
        """Advance a window by one step, from the proposals of all windows that it depends on."""
        track = self._tracks[number]
        joined_BCTHW = self._joined(number, track.step, self._window(number))
        if self.config.splice == "latents":
            track.latents_BCTHW = joined_BCTHW
        else:
            assert track.latents_BCTHW is not None, "kept for this"
            track.latents_BCTHW = completed(self.nodes, track.step, track.latents_BCTHW, joined_BCTHW)
            track.previous_BCTHW = joined_BCTHW
        track.step += 1

    def _noise(self, number: int, like_BCTHW: torch.Tensor, step: int) -> torch.Tensor:
        stage = "refine" if self.config.shared_noise else f"refine {number}"
        shape = (like_BCTHW.shape[1], *like_BCTHW.shape[3:])
        return frame_noise(self.seed, stage, self._window(number), step, shape).transpose(0, 1)[None]

    def _joined(self, number: int, step: int, frames: range) -> torch.Tensor:
        """Return `frames` of a window, joined from the proposals of all windows that it depends on."""
        heard = self._inputs(number, step)
        parts = [self._proposals[other, step].of(frames) for other in heard]
        if self.config.blend == "linear":
            return cross_fade(
                [part.latents_BCTHW for part in parts], [self._window(other) for other in heard], frames
            )
        cuts = [max(frames.start, self._seam(other, step)) for other in heard[1:]]
        return assemble(
            [part.latents_BCTHW for part in parts], [part.frames for part in parts], [frames.start, *cuts]
        )

    def _seam(self, number: int, step: int) -> int:
        """Return the first frame that is taken from this window instead of the one before, at a step."""
        left, right = self._window(number - 1), self._window(number)
        return seam(
            number - 1,
            left,
            right,
            self.config.law,
            lambda overlap, high: integer(self.seed, "blend", overlap, step, high),
        )

    def _inputs(self, number: int, step: int) -> range:
        """Return the windows whose proposals a window needs at a step; at the last, for its own frames."""
        if self.config.blend == "none" or (self.config.blend == "linear" and step < self.last):
            return range(number, number + 1)
        first = last = number
        while first > 0 and self._window(first - 1).stop > self._window(number).start:
            first -= 1
        while self.config.form == "joint" and step < self.last and self._shares(last + 1, number):
            last += 1
        return range(first, last + 1)

    def _shares(self, later: int, number: int) -> bool:
        window = self.window(later)
        return window is not None and window.start < self._window(number).stop

    def _forget(self) -> None:
        """Drop or shorten proposals that no window, or only later ones, still need."""
        for (number, step), part in list(self._proposals.items()):
            needing = next(self._needing(number, step), None)
            if needing is None:
                del self._proposals[number, step]
            elif needing > number and part.frames.start < self._window(needing).start:
                left = part.of(range(self._window(needing).start, part.frames.stop))
                self._proposals[number, step] = Part(left.frames, left.latents_BCTHW.clone())

    def _needing(self, number: int, step: int) -> Iterator[int]:
        """Yield the windows, from the left, that still need this one's proposal at a step."""
        other = number
        while other > 0 and self._window(other - 1).stop > self._window(number).start:
            other -= 1
        while other == number or self._shares(other, number):
            if self._step(other) <= step and number in self._inputs(other, step):
                yield other
            other += 1

    def _step(self, number: int) -> int:
        """Return a window's step: after the last if it was released, 0 if it was not admitted."""
        if number < self.released:
            return self.last + 1
        return self._tracks[number].step if number in self._tracks else 0

    def _window(self, number: int) -> range:
        window = self.window(number)
        assert window is not None, "the window exists"
        return window
