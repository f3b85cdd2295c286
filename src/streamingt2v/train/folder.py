"""Model folders that training reads and writes; written ones work with `generate --model`."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import AutoTokenizer, CLIPTextModel, CLIPVisionModelWithProjection

from ..backbones.text import TextEncoder, Vocabulary
from ..checkpoints.fingerprint import fingerprint
from ..config import ModelConfig, find_model
from ..config.values import read_json
from ..errors import ModelError, RequestError
from ..models.unet3d import StreamingUNet3D

MODEL = "model"
"""Name of the model folder inside a training's output folder."""


class Source:
    """A model folder, or a diffusers text-to-video pipeline; parts are read in float32.

    config: its `model.json`; for a pipeline, the published settings of stage 2 at the network's size.
    RequestError for anything else or another backbone than ModelScope's.
    """

    def __init__(self, name: str, fps: int = 8):
        try:
            self.folder = find_model(name)
            own = (self.folder / "model.json").is_file()
            self.config = ModelConfig.load(self.folder) if own else self._config_of_pipeline(fps)
        except ModelError as error:
            raise RequestError("model", name, str(error)) from error
        if self.config.backbone != "modelscope":
            fix = "memories and students are trained for modelscope's"
            raise RequestError("model", name, f"its backbone is {self.config.backbone}; {fix}")
        self.has_memories = own

    @property
    def key(self) -> str:
        """Fingerprint of the weights."""
        return fingerprint(self.folder)

    def part(self, name: str, kind: Callable[..., Any]) -> Any:
        """Read a part with its class's `from_pretrained`. ModelError if it is missing or broken."""
        try:
            return kind(self.folder / name, local_files_only=True).float()
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{self.folder / name}: {error}") from error

    def text(self) -> TextEncoder:
        """Read tokenizer, text encoder, and the vocabulary if there is one."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)
        words = self.folder / "vocabulary.json"
        encoder = self.part("text_encoder", CLIPTextModel.from_pretrained)
        return TextEncoder(tokenizer, encoder, Vocabulary.load(words) if words.is_file() else None)

    def base(self) -> UNet3DConditionModel:
        """Read the base network without memories."""
        if self.has_memories:
            return self.part("unet", StreamingUNet3D.from_pretrained).stock().float()
        return self.part("unet", UNet3DConditionModel.from_pretrained)

    def vae(self) -> AutoencoderKL:
        return self.part("vae", AutoencoderKL.from_pretrained)

    def vision(self, other: Path | None = None) -> CLIPVisionModelWithProjection:
        """Read the image encoder, or the one in another folder. RequestError if there is none."""
        folder = other or self.folder / "image_encoder"
        if not (folder / "config.json").is_file():
            fix = "give the folder of a CLIPVisionModelWithProjection as --set image_encoder=FOLDER"
            raise RequestError("image_encoder", str(folder), f"the model has none; {fix}")
        return CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True).float()

    def _config_of_pipeline(self, fps: int) -> ModelConfig:
        if not (self.folder / "model_index.json").is_file():
            raise ModelError("holds neither model.json nor a pipeline's model_index.json")
        unet = UNet3DConditionModel.load_config(self.folder / "unet", local_files_only=True)
        if unet["_class_name"] != "UNet3DConditionModel":
            raise ModelError(
                f"its network is a {unet['_class_name']}; memories are trained for UNet3DConditionModel"
            )
        levels = len(read_json(self.folder / "vae" / "config.json")["block_out_channels"]) - 1
        side = (unet["sample_size"] or 32) * 2**levels
        return ModelConfig(self.folder.name, side, side, fps)


def write_model(source: Source, out: Path, config: ModelConfig, parts: Mapping[str, Any]) -> None:
    """Write OUT/model atomically: trained parts in float32, the rest linked from the source."""
    target, made, old = (out / name for name in (MODEL, f".{MODEL}.part", f".{MODEL}.old"))
    for left in (made, old):
        shutil.rmtree(left, ignore_errors=True)
    made.mkdir(parents=True)
    left_out = {*parts, "model.json", "model_index.json"}
    for path in source.folder.iterdir():
        if path.name in left_out or path.name.startswith("."):
            continue
        if path.is_dir():
            shutil.copytree(path, made / path.name, copy_function=_link)
        else:
            _link(str(path), str(made / path.name))
    for name, part in parts.items():
        part.save_pretrained(made / name)
    config.save(made, target)
    if target.exists():
        target.rename(old)
    made.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """Hard-link the file, or copy it across file systems."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
