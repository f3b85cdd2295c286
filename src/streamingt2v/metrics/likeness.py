"""Metrics of content: likeness to the first frame, and to the prompt."""

import numpy as np

from ..errors import RequestError
from .eyes import Eyes
from .metric import Look, Result, ends, mean


class Anchor:
    """Compute `anchor`, the embeddings' mean cosine to the first frame's, and `anchor_end`, at the end."""

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
    """Compute `text_alignment`: mean cosine of frames and prompt in CLIP's space, of every `every`-th frame.

    RequestError if the encoder has no text side.
    """

    def __init__(self, eyes: Eyes, prompt: str, every: int = 4):
        if eyes.read is None:
            fix = f"{eyes.name!r} has no text encoder for it; give a CLIP by --clip FOLDER, or leave it out"
            raise RequestError("metrics", "text", fix)
        self.prompt_D, self.every, self.cosines = eyes.read(prompt), every, list[float]()

    def update(self, look: Look) -> None:
        seen = look.index % self.every == 0
        self.cosines.append(float(look.embedding_D @ self.prompt_D) if seen else float("nan"))

    def result(self) -> Result:
        return Result({"text_alignment": mean(self.cosines)}, {"text_alignment": np.array(self.cosines)})
