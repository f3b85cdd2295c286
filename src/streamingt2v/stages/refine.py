"""Stage 3 by the model's own refiner: noised and denoised windows, joined by randomized blending.

A `Wavefront` plans the work, a `Crew` does it: this process or several. Each frame is encoded once, with the
first window it is in. A window uses the prompt of the middle of the frames that it gives out.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from ..config import RefineConfig
from ..external.calling import covered
from ..ray_backend import Crew
from ..samplers.sdedit import logsnr_cosine_interp, trailing_nodes
from ..types import State, TextCond
from ..video.piece import Piece, whole
from .wavefront import Wavefront, Work

TextAt = Callable[[int], TextCond]
Answer = Callable[[torch.Tensor], Piece | None]
"""Handle a worker's result; return a piece if it completes one."""


class RefineStage:
    """Refine a stream with one crew of `RefinerBackbone`s and one seed, to frames of `size` (height, width).

    total: number of frames, None without end. on_step: called with (step, steps) after every denoising step
    of a window; raising in it cancels.
    """

    def __init__(
        self,
        crew: Crew,
        config: RefineConfig,
        seed: int,
        total: int | None,
        size: tuple[int, int],
        on_step: Callable[[int, int], None] | None = None,
    ):
        self.crew, self.config, self.seed = crew, config, seed
        self.total, self.size, self.on_step = total, size, on_step
        self.schedule = logsnr_cosine_interp()
        self.nodes = trailing_nodes(
            self.schedule, config.steps, levels=round(config.strength * len(self.schedule.sigmas))
        )

    def stream(self, pieces: Iterable[Piece], text_at: TextAt, state: State | None = None) -> Iterator[Piece]:
        """Yield refined pieces of the same frames, in order and exactly once, one for each window.

        state: of the last piece kept; `pieces` then continue after the last piece that was taken in. A
        piece's state is that piece's and this stage's own. The number of workers changes how much is taken in
        at a time, not the frames.
        """
        front = Wavefront(self.config, self.schedule, self.nodes, self.seed, self.total)
        if state:
            front.load_state_dict(state)
        return iter(_Refinement(self, front, _Inlet(iter(pieces), state), text_at))


class _Inlet:
    """Frames that wait to enter the wavefront.

    number: of the next window. frames_TCHW: raw frames from the end of the window before. shared_BCTHW:
    latents that the next window shares with those before. upstream: state of the last piece that was taken
    in.
    """

    def __init__(self, source: Iterator[Piece], state: State | None):
        self._source, self.upstream = source, state or {}
        self.number = int(self.upstream.get("refine.number", 0))
        self.frames_TCHW: torch.Tensor | None = self.upstream.get("refine.frames")
        self.shared_BCTHW: torch.Tensor | None = self.upstream.get("refine.shared")

    def take(self, count: int) -> torch.Tensor:
        """Return the next `count` raw frames; they stay here until `encoded`."""
        while self.frames_TCHW is None or len(self.frames_TCHW) < count:
            piece = next(self._source)
            self.upstream = piece.state
            waiting = [] if self.frames_TCHW is None else [self.frames_TCHW]
            self.frames_TCHW = torch.cat([*waiting, piece.frames_TCHW])
        return self.frames_TCHW[:count]

    def encoded(self, latents_BCTHW: torch.Tensor, shared_with_next: int) -> torch.Tensor:
        """Return the latents of the next window, from those of the frames taken."""
        assert self.frames_TCHW is not None, "taken before"
        self.frames_TCHW = self.frames_TCHW[latents_BCTHW.shape[2] :].clone()
        shared = [] if self.shared_BCTHW is None else [self.shared_BCTHW]
        window_BCTHW = torch.cat([*shared, latents_BCTHW], dim=2)
        self.shared_BCTHW = window_BCTHW[:, :, window_BCTHW.shape[2] - shared_with_next :].clone()
        self.number += 1
        return window_BCTHW

    def state_dict(self) -> State:
        values = {
            "refine.number": self.number,
            "refine.frames": self.frames_TCHW,
            "refine.shared": self.shared_BCTHW,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class _Refinement:
    """One stream: submit work while workers are idle, and handle their results."""

    stage: RefineStage
    front: Wavefront
    inlet: _Inlet
    text_at: TextAt
    under_way: dict[Future, Answer] = field(default_factory=dict)
    encoding: bool = False
    decoding: bool = False
    asked: set[int] = field(default_factory=set)  # windows that the network works on

    def __iter__(self) -> Iterator[Piece]:
        while self.front.window(self.front.released) is not None:
            while len(self.under_way) < self.stage.crew.size and self._hand_out():
                pass
            done = wait(self.under_way, return_when=FIRST_COMPLETED).done
            for future in [future for future in self.under_way if future in done]:
                piece = self.under_way.pop(future)(future.result())
                if piece is not None:
                    yield piece

    def _hand_out(self) -> bool:
        """Submit one task, those nearest to finished frames first; return False if there is none."""
        ready = [work for work in self.front.ready() if work.number not in self.asked]
        new = None if self.encoding else self.front.window(self.inlet.number)
        if not self.decoding and (latents_BCTHW := self.front.finished()) is not None:
            self._decode(latents_BCTHW)
        elif new is not None and len(ready) < self.stage.config.batch:
            self._encode(new)
        elif ready:
            self._ask(list(islice(ready, self.stage.config.batch)))
        else:
            return False
        return True

    def _submit(self, answer: Answer, method: str, *arguments: Any) -> None:
        self.under_way[self.stage.crew.submit(method, *arguments)] = answer

    def _encode(self, window: range) -> None:
        number = self.inlet.number
        before = self.front.window(number - 1) if number else None
        following = self.front.window(number + 1)
        frames_TCHW = self.inlet.take(window.stop - (before.stop if before else 0))

        def admit(latents_BCTHW: torch.Tensor) -> None:
            self.encoding = False
            self.front.admit(
                number, self.inlet.encoded(latents_BCTHW, window.stop - following.start if following else 0)
            )

        self.encoding = True
        self._submit(admit, "encode", covered(frames_TCHW, *self.stage.size))

    def _ask(self, works: list[Work]) -> None:
        config = self.stage.config
        latents_BCTHW = torch.cat([work.latents_BCTHW for work in works])
        texts = [self._text(work.number) for work in works]

        def put(velocity_BCTHW: torch.Tensor) -> None:
            for work, one_BCTHW in zip(works, velocity_BCTHW.split(1), strict=True):
                self.asked.remove(work.number)
                self.front.put(work, one_BCTHW)
                if self.stage.on_step is not None:
                    self.stage.on_step(work.step + 1, len(self.stage.nodes))

        self.asked.update(work.number for work in works)
        timesteps = [work.timestep for work in works]
        self._submit(
            put, "velocity", latents_BCTHW, timesteps, texts, config.guidance_scale, config.guidance_rescale
        )

    def _text(self, number: int) -> TextCond:
        own = self.front.own(number)
        return self.text_at((own.start + own.stop - 1) // 2)

    def _decode(self, latents_BCTHW: torch.Tensor) -> None:
        def piece(frames_TCHW: torch.Tensor) -> Piece:
            self.decoding = False
            self.front.release()
            state = {**self.inlet.upstream, **self.inlet.state_dict(), **self.front.state_dict()}
            return Piece(whole(frames_TCHW), state, self.front.window(self.front.released) is None)

        self.decoding = True
        self._submit(piece, "decode", latents_BCTHW)
