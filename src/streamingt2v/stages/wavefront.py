"""The state of a refinement in the making: windows on their way through the solver's steps, joined as they go.

In the joint form a step of a window needs its neighbours' predictions of that step, in the causal form its left neighbours' alone. So
work is free in any order that respects this: a window can be some steps ahead of the next one, and nothing is held but the
windows between the newest at the first step and the oldest at the last. Noise and cuts are functions of (seed, frame or overlap, step),
hence the order of work has no say in the result: it is that of the whole video in memory, bit for bit.
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
        """Return what it has of these frames."""
        both = range(max(frames.start, self.frames.start), min(frames.stop, self.frames.stop))
        return Part(
            both, self.latents_BCTHW[:, :, both.start - self.frames.start : both.stop - self.frames.start]
        )


class Work(NamedTuple):
    """Input of the network for a window at a step."""

    number: int
    step: int
    timestep: int
    latents_BCTHW: torch.Tensor


@dataclass
class Track:
    """A window on its way, (1, C, T, h, w) each.

    latents_BCTHW: VE latents at `step`; once the window has proposed, what is left of them to complete the step with (`sdedit.rest`), or
    None where nothing is. previous_BCTHW: clean prediction of the step before as long as it is needed.
    """

    step: int
    latents_BCTHW: torch.Tensor | None
    previous_BCTHW: torch.Tensor | None = None


class Wavefront:
    """All windows in flight. `admit` them in order, answer what is `ready` by `put`, take what is `finished` and `release` it.

    total: frames in all, None without end. Everything is on the CPU.
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
        self.released = 0  # windows that are done and gone
        self._tracks: dict[int, Track] = {}  # by number, ascending
        self._proposals: dict[
            tuple[int, int], Part
        ] = {}  # by (window, step): what it offers to those that share frames with it

    def window(self, number: int) -> range | None:
        """The frames of a window, None after the last."""
        return window_at(number, self.total, self.config.frames, self.config.overlap)

    def own(self, number: int) -> range:
        """The frames that a window gives out: up to where the next one begins."""
        window, following = self._window(number), self.window(number + 1)
        return range(window.start, following.start if following else window.stop)

    def admit(self, number: int, clean_BCTHW: torch.Tensor) -> None:
        """The next window, by the latents of what is to be refined."""
        noise = self._noise(number, clean_BCTHW, -1)
        noised_BCTHW = self.schedule.diffuse(clean_BCTHW, noise, self.nodes[0].timestep)
        self._tracks[number] = Track(0, begin(noised_BCTHW, self.nodes))

    def ready(self) -> list[Work]:
        """All that the network can be asked now, the steps nearest to the end first, so that little is in flight."""
        waiting = [
            (-track.step, number)
            for number, track in self._tracks.items()
            if (number, track.step) not in self._proposals
        ]
        return [self._work(number) for _, number in sorted(waiting)]

    def put(self, work: Work, velocity_BCTHW: torch.Tensor) -> None:
        """The network's v-prediction for a work. Windows that were waiting for it go on to their next step."""
        clean_BCTHW = self.schedule.clean_from_v(work.latents_BCTHW, velocity_BCTHW, work.timestep)
        self._proposals[work.number, work.step] = Part(
            self._window(work.number), self._proposed(work.number, clean_BCTHW)
        )
        for number, waiting in self._tracks.items():
            heard = self._heard(number, waiting.step)
            if waiting.step < self.last and all((other, waiting.step) in self._proposals for other in heard):
                self._pass(number)
        self._forget()

    def finished(self) -> torch.Tensor | None:
        """Final latents (1, C, T, h, w) of the oldest window's own frames; None while they are in the making."""
        if (self.released, self.last) not in self._proposals:
            return None
        return self._joined(self.released, self.last, self.own(self.released))

    def release(self) -> None:
        """Let go of the oldest window, whose frames have been taken."""
        del self._tracks[self.released]
        self.released += 1
        self._forget()

    def state_dict(self) -> State:
        """Flat, under names of its own: some latents for each window in flight, whatever the length of the video."""
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
        """Go on from a `state_dict`."""
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
        assert track.latents_BCTHW is not None, "it has not proposed yet"
        node = self.nodes[track.step]
        # contiguous: some kernels sum in another order where the layout is another
        return Work(number, track.step, node.timestep, model_input(track.latents_BCTHW, node).contiguous())

    def _proposed(self, number: int, clean_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return what a window offers at its step; it keeps no more than it needs to go on."""
        track = self._tracks[number]
        assert track.latents_BCTHW is not None, "it has not proposed yet"
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
        """To the next step, by what all that are heard have proposed."""
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
        """`frames` of a window, from the proposals of all that it hears at a step."""
        heard = self._heard(number, step)
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
        """Return where this window takes over from the one before, at a step."""
        left, right = self._window(number - 1), self._window(number)
        return seam(
            number - 1,
            left,
            right,
            self.config.law,
            lambda overlap, high: integer(self.seed, "blend", overlap, step, high),
        )

    def _heard(self, number: int, step: int) -> range:
        """Numbers of the windows whose proposals a window needs at a step. At the last step its own frames are all that is wanted."""
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
        """Drop or shorten proposals that fewer windows need than before."""
        for (number, step), part in list(self._proposals.items()):
            needing = next(self._needing(number, step), None)
            if needing is None:
                del self._proposals[number, step]
            elif needing > number and part.frames.start < self._window(needing).start:
                left = part.of(range(self._window(needing).start, part.frames.stop))
                self._proposals[number, step] = Part(left.frames, left.latents_BCTHW.clone())

    def _needing(self, number: int, step: int) -> Iterator[int]:
        """The windows, from the left, that have not gone beyond a step yet and hear this one's proposal there."""
        other = number
        while other > 0 and self._window(other - 1).stop > self._window(number).start:
            other -= 1
        while other == number or self._shares(other, number):
            if self._step(other) <= step and number in self._heard(other, step):
                yield other
            other += 1

    def _step(self, number: int) -> int:
        """The step that a window is at: beyond the last when it is gone, the first before it comes."""
        if number < self.released:
            return self.last + 1
        return self._tracks[number].step if number in self._tracks else 0

    def _window(self, number: int) -> range:
        window = self.window(number)
        assert window is not None, "asked only of windows that there are"
        return window
