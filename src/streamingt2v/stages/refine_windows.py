"""Refine a stream window by window: the part of stage 3 that all pipelines of diffusers share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Self

import torch

from ..config.refine import RefineByConfig
from ..external.calling import Open, own_randomness
from ..types import State
from ..video.piece import Piece
from .protocols import OnStep, PromptAt

PREFIX, KEPT = "refine.", "refine.kept."


@dataclass(frozen=True)
class Carry:
    """State between two windows.

    number: of the next window. start: index of its first frame. frames_TCHW: unrefined frames from there on.
    kept: tensors that a stage keeps of earlier windows, by name.
    """

    number: int = 0
    start: int = 0
    frames_TCHW: torch.Tensor | None = None
    kept: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def state_dict(self) -> State:
        """Return it as a flat mapping."""
        frames = {} if self.frames_TCHW is None else {f"{PREFIX}frames": self.frames_TCHW}
        kept = {KEPT + name: value for name, value in self.kept.items()}
        return {f"{PREFIX}number": self.number, f"{PREFIX}start": self.start, **frames, **kept}

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Read what `state_dict` returned."""
        kept = {name.removeprefix(KEPT): value for name, value in state.items() if name.startswith(KEPT)}
        frames_TCHW = state.get(f"{PREFIX}frames")
        return cls(int(state[f"{PREFIX}number"]), int(state[f"{PREFIX}start"]), frames_TCHW, kept)

    def fed(self, frames_TCHW: torch.Tensor) -> Self:
        """Append unrefined frames."""
        have = frames_TCHW if self.frames_TCHW is None else torch.cat([self.frames_TCHW, frames_TCHW])
        return replace(self, frames_TCHW=have)

    def frames(self, window: range) -> torch.Tensor:
        """Return the unrefined frames of a window."""
        assert self.frames_TCHW is not None, "fed before"
        return self.frames_TCHW[window.start - self.start : window.stop - self.start]

    @property
    def stop(self) -> int:
        """Index of the frame after the last unrefined one."""
        return self.start + (0 if self.frames_TCHW is None else len(self.frames_TCHW))


@dataclass(frozen=True)
class Work:
    """A window to refine: its frames, the next window (None for the last), the frames it gives out."""

    window: range
    following: range | None
    given: range
    text_at: PromptAt

    @property
    def prompt(self) -> str:
        """Prompt of the middle of the frames that it gives out."""
        return self.text_at((self.given.start + self.given.stop - 1) // 2)

    @property
    def own(self) -> int:
        """Number of its frames before the next window starts."""
        return (self.following.start if self.following else self.window.stop) - self.window.start


@dataclass(frozen=True)
class WindowRefineStage(ABC):
    """Refine a stream with one pipeline and seed.

    total: number of frames, None without end. size: (height, width) of the output. on_step: called with
    (step, steps) after every denoising step of a window; raising in it cancels.
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

        text_at: returns the prompt of a frame; a window uses that of the middle of the frames it gives out.
        state: of the last piece kept; `pieces` then continue after the last piece that was taken in. A
        piece's state is that piece's, and the `Carry`.
        """
        carry, upstream = (Carry.from_state(state), state) if state else (Carry(), {})
        source = iter(pieces)

        def feed(carry: Carry, stop: int) -> Carry:
            nonlocal upstream
            while carry.stop < stop:
                piece = next(source)
                carry, upstream = carry.fed(self._taken(piece.frames_TCHW)), piece.state
            return carry

        if self.total is not None and carry.start >= self.total:
            return
        carry = feed(carry, carry.start + 1)  # earlier stages may have to free their memory first
        with ExitStack() as stack:
            with own_randomness(self.seed, "refine"):  # loading may draw random numbers
                pipe = self._prepared(stack.enter_context(self.open()))
            plan = islice(self._plan(pipe), carry.number, None)
            window = next(plan, None)
            while window is not None:
                following = next(plan, None)
                carry = feed(carry, self._needed(carry, window))
                work = self._work(pipe, window, following, text_at)
                refined_TCHW, kept = self._window(pipe, carry, work)
                after = window.start + work.own
                rest_TCHW = carry.frames(range(after, carry.stop)).clone()
                carry = Carry(carry.number + 1, after, rest_TCHW if len(rest_TCHW) else None, kept)
                frames_TCHW = refined_TCHW[work.given.start - window.start : work.given.stop - window.start]
                if len(frames_TCHW):
                    before = {name: value for name, value in upstream.items() if not name.startswith(PREFIX)}
                    yield Piece(frames_TCHW, {**before, **carry.state_dict()}, following is None)
                window = following

    def _work(self, pipe: Any, window: range, following: range | None, text_at: PromptAt) -> Work:
        late = self._late(pipe)
        start = window.start + (late if window.start else 0)
        stop = following.start + late if following else window.stop
        return Work(window, following, range(start, stop), text_at)

    @abstractmethod
    def _plan(self, pipe: Any) -> Iterator[range]:
        """Yield all windows."""

    @abstractmethod
    def _window(self, pipe: Any, carry: Carry, work: Work) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return a window's refined frames, at least those it gives out, and what the next needs."""

    def _taken(self, frames_TCHW: torch.Tensor) -> torch.Tensor:
        """Return frames in the form in which they wait."""
        return frames_TCHW

    def _prepared(self, pipe: Any) -> Any:
        """Return the pipeline that does the work, from the one that was opened."""
        return pipe

    def _late(self, pipe: Any) -> int:
        """Return how many first frames of a window the window before gives out."""
        return 0

    def _needed(self, carry: Carry, window: range) -> int:
        """Return up to which frame unrefined frames must be there for a window."""
        return window.stop
