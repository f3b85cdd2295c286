"""Metrics that see: is it still the thing of the first frame, and is it what the prompt says?"""

from __future__ import annotations

import numpy as np

from ..errors import RequestError
from .eyes import Eyes
from .metric import Look, Result, ends, mean


class Anchor:
    """`anchor`: mean cosine of the frames' embeddings to the first frame's; `anchor_end`: the same over the end of the video."""

    def __init__(self) -> None:
        self.first_D: np.ndarray | None = None
        self.likeness: list[float] = []

    def update(self, look: Look) -> None:
        if self.first_D is None:
            self.first_D = look.embedding_D
        self.likeness.append(float(look.embedding_D @ self.first_D))

    def result(self) -> Result:
        values = {"anchor": mean(self.likeness[1:]), "anchor_end": mean(ends(self.likeness)[1])}
        return Result(values, {"anchor": np.array(self.likeness)})


class TextAlignment:
    """`text_alignment`: mean cosine of frames and prompt in the space of a whole CLIP, of every `every`-th frame.

    RequestError if the eyes have no text side.
    """

    def __init__(self, eyes: Eyes, prompt: str, every: int = 4):
        if eyes.read is None:
            fix = f"the image encoder of {eyes.name!r} has no text side; give a whole CLIP by --clip FOLDER, or leave the metric out"
            raise RequestError("metrics", "text", fix)
        self.prompt_D, self.every, self.cosines = eyes.read(prompt), every, list[float]()

    def update(self, look: Look) -> None:
        seen = look.index % self.every == 0
        self.cosines.append(float(look.embedding_D @ self.prompt_D) if seen else float("nan"))

    def result(self) -> Result:
        return Result({"text_alignment": mean(self.cosines)}, {"text_alignment": np.array(self.cosines)})
