"""What metrics see with: an image encoder whose embeddings are compared, and where there is one, the text encoder beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPModel, CLIPVisionModelWithProjection

from ..config import find_model
from ..errors import ModelError, RequestError
from ..io.reader import Frame
from ..memory.apm import preprocess
from .flow import to_nchw


@dataclass(frozen=True)
class Eyes:
    """name: for results. see: a frame (H, W, 3) uint8 to its embedding (D,), of length 1. read: a text to one; None without text."""

    name: str
    see: Callable[[Frame], np.ndarray]
    read: Callable[[str], np.ndarray] | None = None


def eyes_of_model(name_or_folder: str | Path = "tiny") -> Eyes:
    """The image encoder of a model of this package (its APM looks at the anchor with the same).

    It comes without a text side: model folders hold the text tower without the projection into the shared space.
    """
    folder = find_model(name_or_folder) / "image_encoder"
    if not folder.is_dir():
        raise ModelError(f"{folder.parent} is incomplete: it has no folder image_encoder")
    encoder = (
        CLIPVisionModelWithProjection.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True).eval().requires_grad_(False)
    )
    size = encoder.config.image_size
    return Eyes(str(name_or_folder), lambda frame: _unit(encoder(pixel_values=_pixels(frame, size)).image_embeds))


def eyes_of_clip(name_or_folder: str | Path) -> Eyes:
    """A whole CLIP (transformers' `CLIPModel`) by its folder, or by its name if it has been downloaded before. RequestError if not."""
    try:
        model = CLIPModel.from_pretrained(name_or_folder, torch_dtype=torch.float32, local_files_only=True).eval().requires_grad_(False)
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        fix = "no whole CLIP with its tokenizer is there; give the folder of one, or download it first: hf download NAME"
        raise RequestError("clip", str(name_or_folder), fix) from error
    size, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings

    def read(text: str) -> np.ndarray:
        ids = tokenizer([text], padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids
        return _unit(model.text_projection(model.text_model(ids).pooler_output))

    def see(frame: Frame) -> np.ndarray:
        return _unit(model.visual_projection(model.vision_model(_pixels(frame, size)).pooler_output))

    return Eyes(Path(name_or_folder).name, see, read)


def _pixels(frame_HWC: Frame, size: int) -> torch.Tensor:
    """The encoder's input, (1, 3, size, size), scaled to a square as APM does it."""
    return preprocess(to_nchw(frame_HWC) / 127.5 - 1, size)


def _unit(embedding_BD: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embedding_BD, dim=-1)[0].double().numpy()
