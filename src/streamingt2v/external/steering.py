"""Steer a diffusers pipeline's own denoising loop through its scheduler.

Every pipeline calls its scheduler after each prediction, so all loops can be steered there: those without a
callback too, and whatever the layout of their latents. `steered` makes a scheduler of a subclass of the
pipeline's own (`isinstance`, configuration and signatures hold) that passes every step to a `Hand`, which may
replace its result. Holding an overlap to extend a video, and randomized blending (paper, section 4.3), are
two hands.
"""

import copy
import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

OnStep = Callable[[int, int], None]


class Hand:
    """Observe a denoising loop, and change its latents. The base class changes nothing."""

    def before(self, scheduler: Any, index: int, sample: torch.Tensor) -> None:
        """Receive the latents that step `index` starts from."""

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents to continue with after step `index`, in the loop's own layout."""
        return latents

    def noise(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return the noise that a video-to-video pipeline adds to clean latents before the first step."""
        return noise


@dataclass
class Watch(Hand):
    """Call `on_step` with (step, steps) after every step. Raising in it cancels the loop."""

    on_step: OnStep

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        self.report(index + 1, len(scheduler.timesteps))
        return latents

    def report(self, step: int, steps: int) -> None:
        """Call `on_step`."""
        self.on_step(step, steps)


@dataclass
class Hands(Hand):
    """Apply several hands in order."""

    hands: tuple[Hand, ...]

    def before(self, scheduler: Any, index: int, sample: torch.Tensor) -> None:
        for hand in self.hands:
            hand.before(scheduler, index, sample)

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        for hand in self.hands:
            latents = hand.after(scheduler, index, latents)
        return latents

    def noise(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        for hand in self.hands:
            noise = hand.noise(clean, noise)
        return noise


@dataclass
class HeldOverlap(Hand):
    """Hold the first frames of a chunk at known latents.

    After every step they are set to the known latents at that step's noise level, always with the loop's
    starting noise. For deterministic solvers these are the latents that a network which knows the answer
    would reach.

    known: clean latents of the first frames, in the loop's layout. axis: of time. total: places along `axis`
    of the whole chunk; some loops leave the first ones out of their steps, which their shape shows.
    """

    known: torch.Tensor
    axis: int
    total: int
    start_noise: torch.Tensor | None = field(default=None, init=False)

    def before(self, scheduler: Any, index: int, sample: torch.Tensor) -> None:
        """Keep the noise that the loop starts from."""
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
    """Splice the window before into this one's first frames, up to a random cut (paper, section 4.3).

    axis: of time. noise_of: returns noise of a shape that belongs to frames, not to windows. left: latents of
    the window before after every step, of the shared frames; empty for the first window. cut: returns how
    many places along `axis` are taken at a step. skip: leading places that stay this window's own (the first
    latent of a causal autoencoder holds a single frame). made: latents of this window after every step.
    """

    axis: int
    noise_of: Callable[[torch.Size], torch.Tensor]
    left: dict[int, torch.Tensor]
    cut: Callable[[int], int]
    skip: int = 0
    made: dict[int, torch.Tensor] = field(default_factory=dict, init=False)

    def noise(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return noise that neighbouring windows share where they overlap."""
        return self.noise_of(clean.shape).to(clean)

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        """Splice, and record the result."""
        if index in self.left and (count := self.cut(index) - self.skip) > 0:
            latents = latents.clone()
            latents.narrow(self.axis, self.skip, count).copy_(
                self.left[index].narrow(self.axis, self.skip, count)
            )
        self.made[index] = latents.detach().clone()
        return latents

    def shared(self, start: int, length: int) -> dict[str, torch.Tensor]:
        """Return a part of `made` along the time axis, by names that `left_in` reads; empty for no length."""
        parts = {
            step: latents.narrow(self.axis, start, length) for step, latents in self.made.items() if length
        }
        return {f"left.{step}": part.cpu().clone() for step, part in parts.items()}

    @staticmethod
    def left_in(kept: Mapping[str, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Read what `shared` returned for the window before."""
        names = [name for name in kept if name.startswith("left.")]
        return {int(name.removeprefix("left.")): kept[name] for name in names}


@dataclass
class Redraw(Hand):
    """Make a text-to-video loop refine a video (SDEdit): replace its first step by noised latents.

    This works whatever a pipeline's own `latents` argument means, and costs one prediction a window. Use with
    `late(..., before=1)`.

    hand: steers the later steps. clean: latents of the video, in the loop's layout. noise_of: returns the
    noise to add.
    """

    hand: Hand
    clean: torch.Tensor
    noise_of: Callable[[torch.Size], torch.Tensor]

    def after(self, scheduler: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
        if index == 0:
            scheduler.forget()
            return noised(scheduler, self.clean.to(latents), self.noise_of(latents.shape).to(latents), 1)
        return self.hand.after(scheduler, index, latents)


def was_cancelled(error: BaseException) -> bool:
    """Tell whether an error was raised by the `on_step` of a `Watch`."""
    return any(frame.f_code is Watch.report.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def watched(hand: Hand, on_step: OnStep | None) -> Hand:
    """Return a hand that also reports every step."""
    return hand if on_step is None else Hands((hand, Watch(on_step)))


def steered(scheduler: Any, hand: Hand) -> Any:
    """Return a copy of a scheduler whose every step goes through `hand`.

    A deep copy of the result is a plain scheduler again: some pipelines copy theirs for a second modality or
    for each latent frame.
    """
    return _like(_subclass(type(scheduler), hand), scheduler)


def late(scheduler: Any, hand: Hand, strength: float, before: int = 0) -> Any:
    """Return a steered scheduler that runs only the last part of the schedule.

    strength: share of the schedule that is run, above 0 and at most 1. before: further steps in front, e.g.
    for `Redraw` to replace.
    """
    parent = _subclass(type(scheduler), hand)
    kind = parent.steered_class

    class Late(parent):  # type: ignore[misc, valid-type]
        init_noise_sigma = 1.0  # latents are given with their noise
        timesteps: Any
        sigmas: Any

        @functools.wraps(kind.set_timesteps)
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            self._hand_call = args, kwargs
            kind.set_timesteps(self, *args, **kwargs)
            steps = len(self.timesteps)
            start = max(0, steps - max(1, int(steps * strength)) - before)
            self.timesteps = self.timesteps[start:]
            if hasattr(self, "sigmas"):
                self.sigmas = self.sigmas[start:]

        def forget(self) -> None:
            """Restart the solver at the second step, so that it does not use the first prediction."""
            args, kwargs = self._hand_call
            self.set_timesteps(*args, **kwargs)
            if hasattr(kind, "set_begin_index"):
                kind.set_begin_index(self, 1)

    return _like(_named(Late, kind), scheduler)


def _like(kind: Any, scheduler: Any) -> Any:
    """Return a scheduler of class `kind` with a scheduler's configuration."""
    config = dict(scheduler.config)
    takes = inspect.signature(kind.steered_class.__init__).parameters
    added = {name: config.pop(name) for name in list(config) if name not in takes and name[0] != "_"}
    made = kind.from_config(config)
    made.register_to_config(**added)  # by the pipeline, which reads it again
    return made


def noised(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
    """Add the noise of step `index` of a schedule to clean latents; after its last step they stay clean."""
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
            timestep = torch.as_tensor(given["timestep"]).cpu().reshape(-1)[0]
            index = int((self.timesteps.cpu() == timestep).nonzero()[0])
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
