"""Encoders for metrics: an image encoder whose embeddings are compared, and an optional text encoder."""

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
"""File in a model folder: maps the text encoder's output to the image encoder's space, for metrics."""


@dataclass(frozen=True)
class Eyes:
    """Encoders. name: for results. see: frame uint8 (H, W, 3) -> unit vector (D,). read: of a text."""

    name: str
    see: Callable[[Frame], np.ndarray]
    read: Callable[[str], np.ndarray] | None = None


def eyes_of_model(name_or_folder: str | Path = "tiny") -> Eyes:
    """Load a model's image encoder, which its APM uses too, and its text encoder if that fits."""
    folder = find_model(name_or_folder)
    if not (folder / "image_encoder").is_dir():
        raise ModelError(f"{folder} is incomplete: it has no folder image_encoder")
    encoder = _frozen(CLIPVisionModelWithProjection, folder / "image_encoder")
    size = encoder.config.image_size
    projection = load_text_projection(folder)
    read = None if projection is None else _reader(folder, projection)

    def see(frame: Frame) -> np.ndarray:
        return _unit(encoder(pixel_values=_pixels(frame, size)).image_embeds)

    return Eyes(str(name_or_folder), see, read)


def _reader(folder: Path, projection: torch.Tensor) -> Callable[[str], np.ndarray]:
    """Return the function text -> embedding, in words that the model knows."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder, words = _frozen(CLIPTextModel, folder / "text_encoder"), folder / "vocabulary.json"
    vocabulary = Vocabulary.load(words) if words.is_file() else None

    def read(text: str) -> np.ndarray:
        known = vocabulary.translate(text) if vocabulary else text
        return _unit(encoder(_ids(tokenizer, known, tokenizer.model_max_length)).pooler_output @ projection.T)

    return read


def _ids(tokenizer: Any, text: str, length: int) -> torch.Tensor:
    options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    return tokenizer([text], **options).input_ids


def _frozen(kind: Any, folder: str | Path) -> Any:
    network = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return network.eval().requires_grad_(False)


def save_text_projection(folder: Path, weight_ED: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Write the projection from the text encoder's width D to the common space's E into a model folder."""
    save_file({"weight": weight_ED.detach().to("cpu", dtype).contiguous()}, folder / TEXT_PROJECTION)


def load_text_projection(folder: Path) -> torch.Tensor | None:
    """Read the projection of `save_text_projection` in float32; None if the folder has none."""
    path = folder / TEXT_PROJECTION
    return load_file(path)["weight"].float() if path.is_file() else None


def eyes_of_clip(name_or_folder: str | Path) -> Eyes:
    """Load a CLIP (transformers' `CLIPModel`) by folder, or by name if downloaded; else RequestError."""
    try:
        model = _frozen(CLIPModel, name_or_folder)
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        fix = "there is no CLIP with its tokenizer; give a folder, or download it first: hf download NAME"
        raise RequestError("clip", str(name_or_folder), fix) from error
    size, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings

    def read(text: str) -> np.ndarray:
        return _unit(model.text_projection(model.text_model(_ids(tokenizer, text, length)).pooler_output))

    def see(frame: Frame) -> np.ndarray:
        return _unit(model.visual_projection(model.vision_model(_pixels(frame, size)).pooler_output))

    return Eyes(Path(name_or_folder).name, see, read)


def _pixels(frame_HWC: Frame, size: int) -> torch.Tensor:
    """Return the encoder's input, (1, 3, size, size), scaled to a square like APM's."""
    return preprocess(to_nchw(frame_HWC) / 127.5 - 1, size)


def _unit(embedding_BD: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embedding_BD, dim=-1)[0].double().numpy()
