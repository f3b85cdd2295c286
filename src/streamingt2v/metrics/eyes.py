"""Encoders of metrics: an image encoder whose embeddings are compared, and a text encoder where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel, CLIPTextModel, CLIPVisionModelWithProjection

from ..backbones.text import Vocabulary
from ..config import find_model
from ..errors import ModelError, RequestError
from ..models.apm import preprocess
from ..video.reader import Frame
from .flow import to_nchw

TEXT_PROJECTION = "text_projection.safetensors"
"""In a model folder: what takes the text tower's output into the space of the image encoder. Generating does not read it."""


@dataclass(frozen=True)
class Eyes:
    """name: for results. see: a frame (H, W, 3) uint8 to its embedding (D,), of length 1. read: a text to one; None without text."""

    name: str
    see: Callable[[Frame], np.ndarray]
    read: Callable[[str], np.ndarray] | None = None


def eyes_of_model(name_or_folder: str | Path = "tiny") -> Eyes:
    """The image encoder of a model of this package (its APM looks at the anchor with the same).

    With a text side if the folder holds the text tower's projection into the common space.
    """
    folder = find_model(name_or_folder)
    if not (folder / "image_encoder").is_dir():
        raise ModelError(f"{folder} is incomplete: it has no folder image_encoder")
    encoder = _frozen(CLIPVisionModelWithProjection, folder / "image_encoder")
    size = encoder.config.image_size
    projection = load_text_projection(folder)
    read = None if projection is None else _reader(folder, projection)
    return Eyes(
        str(name_or_folder),
        lambda frame: _unit(encoder(pixel_values=_pixels(frame, size)).image_embeds),
        read,
    )


def _reader(folder: Path, projection: torch.Tensor) -> Callable[[str], np.ndarray]:
    """A text to its embedding, in the words that the model knows."""
    tokenizer, encoder = (
        AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        _frozen(CLIPTextModel, folder / "text_encoder"),
    )
    vocabulary = (
        Vocabulary.load(folder / "vocabulary.json") if (folder / "vocabulary.json").is_file() else None
    )
    length = tokenizer.model_max_length

    def read(text: str) -> np.ndarray:
        known = vocabulary.translate(text) if vocabulary else text
        ids = tokenizer(
            [known], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        return _unit(encoder(ids).pooler_output @ projection.T)

    return read


def _frozen(kind: Any, folder: Path) -> Any:
    return (
        kind.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
        .eval()
        .requires_grad_(False)
    )


def save_text_projection(folder: Path, weight_ED: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Write it into a model folder: from the text tower's width D to the common space's E."""
    save_file({"weight": weight_ED.detach().to("cpu", dtype).contiguous()}, folder / TEXT_PROJECTION)


def load_text_projection(folder: Path) -> torch.Tensor | None:
    """Return what `save_text_projection` wrote, in float32; None if the folder has none."""
    path = folder / TEXT_PROJECTION
    return load_file(path)["weight"].float() if path.is_file() else None


def eyes_of_clip(name_or_folder: str | Path) -> Eyes:
    """A whole CLIP (transformers' `CLIPModel`) by its folder, or by its name if it has been downloaded before. RequestError if not."""
    try:
        model = (
            CLIPModel.from_pretrained(name_or_folder, torch_dtype=torch.float32, local_files_only=True)
            .eval()
            .requires_grad_(False)
        )
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        fix = "no whole CLIP with its tokenizer is there; give the folder of one, or download it first: hf download NAME"
        raise RequestError("clip", str(name_or_folder), fix) from error
    size, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings

    def read(text: str) -> np.ndarray:
        ids = tokenizer(
            [text], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        return _unit(model.text_projection(model.text_model(ids).pooler_output))

    def see(frame: Frame) -> np.ndarray:
        return _unit(model.visual_projection(model.vision_model(_pixels(frame, size)).pooler_output))

    return Eyes(Path(name_or_folder).name, see, read)


def _pixels(frame_HWC: Frame, size: int) -> torch.Tensor:
    """The encoder's input, (1, 3, size, size), scaled to a square as APM does it."""
    return preprocess(to_nchw(frame_HWC) / 127.5 - 1, size)


def _unit(embedding_BD: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embedding_BD, dim=-1)[0].double().numpy()
