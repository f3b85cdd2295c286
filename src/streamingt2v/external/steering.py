"""Steer a diffusers pipeline's own denoising loop through its scheduler.

A pipeline calls its scheduler after every prediction, whatever else it does, so the scheduler is the one place from which all
loops can be steered: also those without a callback, and without a word about how their latents are laid out. `steered` makes
a scheduler of a subclass of the pipeline's own (`isinstance`, configuration and signatures hold) that shows every step to a
`Hand`, which may replace its result. Extending (section 4 of the paper, without its trained memories) and randomized blending
(section 4.3) are two hands.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

OnStep = Callable[[int, int], None]


class Hand:
    """Look at every step of a denoising loop, and replace what you want. This one changes nothing."""

    def before(self, scheduler: Any, index: int, sample: torch.Tensor) -> None:
        """See the latents that step `index` starts from."""

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents to go on with after step `index`, in the loop's own layout."""
        return latents

    def noise(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the noise that the pipeline itself adds to clean latents before its first step (video to video)."""
        return noise


@dataclass
class Watch(Hand):
    """Report progress: call `on_step` with (step, steps) after every step. Raising in it cancels the loop."""

    on_step: OnStep

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """See `Hand.after`."""
        self.on_step(index + 1, len(scheduler.timesteps))
        return latents


@dataclass
class Hands(Hand):
    """Several hands, one after the other."""

    hands: tuple[Hand, ...]

    def before(self, scheduler: Any, index: int, sample: torch.Tensor) -> None:
        """See `Hand.before`."""
        for hand in self.hands:
            hand.before(scheduler, index, sample)

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """See `Hand.after`."""
        for hand in self.hands:
            latents = hand.after(scheduler, index, latents)
        return latents

    def noise(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """See `Hand.noise`."""
        for hand in self.hands:
            noise = hand.noise(clean, noise)
        return noise


@dataclass
class HeldOverlap(Hand):
    """Hold the first frames of a chunk on the solver's own path to known latents.

    After every step the known frames are put back at the noise level of that step, always with the noise that the loop began with:
    for deterministic solvers that is where a network that knew the answer would be, so the free frames see a clean past.

    known: clean latents of the first frames, in the loop's layout. axis: of time. total: latent frames of the whole chunk; some
    loops keep the first ones out of their steps, which is seen from the shape.
    """

    known: torch.Tensor
    axis: int
    total: int
    start_noise: torch.Tensor | None = field(default=None, init=False)

    def before(self, scheduler: Any, index: int, sample: torch.Tensor) -> None:
        """Remember the noise that the loop starts from."""
        if self.start_noise is None:
            self.start_noise = sample.detach().clone() / float(getattr(scheduler, "init_noise_sigma", 1.0))

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Put the known frames back."""
        if self.start_noise is None or latents.ndim != self.known.ndim:
            return latents  # another modality that shares the scheduler, e.g. sound
        outside = self.total - latents.shape[self.axis]
        count = self.known.shape[self.axis] - outside
        if count <= 0:
            return latents
        clean = self.known.narrow(self.axis, outside, count).to(latents)
        put = noised(scheduler, clean, self.start_noise.narrow(self.axis, 0, count).to(latents), index + 1)
        latents = latents.clone()
        latents.narrow(self.axis, 0, count).copy_(put)
        return latents


@dataclass
class SplicedWindow(Hand):
    """Randomized blending at every step (paper, section 4.3): before a random cut, show the latents of the window before.

    axis: of time. noise_of: noise of a shape that belongs to frames, not to windows. left: the window before's latents of the shared
    frames after every step; None for the first window. cut: how many of the shared latent frames are taken from it at a step.
    skip: leading latent frames that stay the window's own (the first latent of a causal autoencoder shows a single frame).
    made: filled with this window's latents after every step, for the next window.
    """

    axis: int
    noise_of: Callable[[torch.Size], torch.Tensor]
    left: dict[int, torch.Tensor] | None
    cut: Callable[[int], int]
    skip: int = 0
    made: dict[int, torch.Tensor] = field(default_factory=dict, init=False)

    def noise(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return noise that neighbouring windows share where they overlap."""
        return self.noise_of(clean.shape).to(clean)

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Splice the window before in, up to the step's cut."""
        cut = 0 if self.left is None else self.cut(index)
        if self.left is not None and index in self.left and cut > self.skip:
            latents = latents.clone()
            shared = self.left[index].narrow(self.axis, self.skip, cut - self.skip)
            latents.narrow(self.axis, self.skip, cut - self.skip).copy_(shared)
        self.made[index] = latents.detach().clone()
        return latents


@dataclass
class Redraw(Hand):
    """Make a text-to-video loop redraw a given video (SDEdit): what its first step gives is replaced by noised latents.

    So nothing is asked of a pipeline's own `latents` argument, and one prediction in a window is wasted. Use with `redrawing`.

    hand: steers the steps after it. clean: latents of the video, in the loop's layout. noise: to put on them.
    """

    hand: Hand
    clean: torch.Tensor
    noise_of: Callable[[torch.Size], torch.Tensor]

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """See `Hand.after`."""
        if index == 0:
            scheduler.forget()
            return noised(scheduler, self.clean.to(latents), self.noise_of(latents.shape).to(latents), 1)
        return self.hand.after(scheduler, index, latents)


def steered(scheduler: Any, hand: Hand) -> Any:
    """Make a scheduler like the given one whose every step goes through `hand`. The given one stays as it is.

    A deep copy of it is a plain scheduler again: pipelines copy theirs for a second modality, or for a latent frame of its own.
    """
    return _subclass(type(scheduler), hand).from_config(scheduler.config)


def redrawing(scheduler: Any, hand: Redraw, strength: float) -> Any:
    """Make a steered scheduler that runs only the last part of the schedule, and one step before it for `Redraw` to replace.

    strength: share of the schedule that is redone, above 0 and at most 1.
    """
    parent = _subclass(type(scheduler), hand)
    kind = parent.steered_class

    class Redrawing(parent):  # type: ignore[misc, valid-type]
        timesteps: Any
        sigmas: Any

        @functools.wraps(kind.set_timesteps)
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            self._hand_call = args, kwargs
            kind.set_timesteps(self, *args, **kwargs)
            self._cut()

        def _cut(self) -> None:
            steps = len(self.timesteps)
            start = max(0, steps - max(1, int(steps * strength)) - 1)
            self.timesteps = self.timesteps[start:]
            if hasattr(self, "sigmas"):
                self.sigmas = self.sigmas[start:]

        def forget(self) -> None:
            """Start the solver anew after the first step: multistep solvers keep no prediction of what was replaced."""
            args, kwargs = self._hand_call
            kind.set_timesteps(self, *args, **kwargs)
            self._cut()
            if hasattr(kind, "set_begin_index"):
                kind.set_begin_index(self, 1)

    return _named(Redrawing, kind).from_config(scheduler.config)


def noised(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
    """Return clean latents as they are before step `index` of a schedule; after its last step they are clean."""
    if index >= len(scheduler.timesteps):
        return clean
    kind = getattr(scheduler, "steered_class", type(scheduler))
    timestep = scheduler.timesteps[index : index + 1].to(clean.device)
    if hasattr(kind, "scale_noise"):
        first, second = (noise, clean) if scheduler.config.get("invert_sigmas") else (clean, noise)
        return kind.scale_noise(scheduler, first, timestep, second)
    return kind.add_noise(scheduler, clean, noise, timestep)


def _subclass(kind: type, hand: Hand) -> Any:
    signature = inspect.signature(kind.step)  # type: ignore[attr-defined]

    class Steered(kind):
        steered_class = kind

        @functools.wraps(kind.step)  # type: ignore[attr-defined]
        def step(self, *args: Any, **kwargs: Any) -> Any:
            given = signature.bind(self, *args, **kwargs).arguments
            index = _index(self, given["timestep"])
            hand.before(self, index, given["sample"])
            result = kind.step(self, *args, **kwargs)  # type: ignore[attr-defined]
            if isinstance(result, tuple):
                return (hand.after(self, index, result[0]), *result[1:])
            result.prev_sample = hand.after(self, index, result.prev_sample)
            return result

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            plain = kind.from_config(self.config)  # type: ignore[attr-defined]
            own = {name: value for name, value in self.__dict__.items() if not name.startswith("_hand")}
            plain.__dict__.update(copy.deepcopy(own, memo))
            return plain

    if hasattr(kind, "add_noise"):

        def add_noise(
            self: Any, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: Any
        ) -> torch.Tensor:
            return kind.add_noise(self, original_samples, hand.noise(original_samples, noise), timesteps)

        Steered.add_noise = add_noise
    if hasattr(kind, "scale_noise"):

        def scale_noise(
            self: Any, sample: torch.Tensor, timestep: Any, noise: torch.Tensor | None = None
        ) -> torch.Tensor:
            return kind.scale_noise(self, sample, timestep, hand.noise(sample, noise))  # type: ignore[arg-type]

        Steered.scale_noise = scale_noise
    return _named(Steered, kind)


def _named(made: Any, kind: type) -> Any:
    """Give a subclass the name of its parent: pipelines and configurations compare names."""
    made.__name__, made.__qualname__ = kind.__name__, kind.__qualname__
    return made


def _index(scheduler: Any, timestep: Any) -> int:
    """Return the number of a step in the schedule."""
    found = (scheduler.timesteps.cpu() == torch.as_tensor(timestep).cpu().reshape(-1)[0]).nonzero()
    return int(found[0])
