"""A model name or folder to components on a device in a dtype, and back; strict. The only file that names a device."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import AutoTokenizer, CLIPTextModel, CLIPVisionModelWithProjection

from streamingt2v.backbones.modelscope import ModelScopeBackbone, vae_factor
from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.backbones.unet3d import StreamingUNet3D
from streamingt2v.config import ModelConfig, find_model, read_json
from streamingt2v.errors import ModelError
from streamingt2v.memory.apm import ImageTokens
from streamingt2v.memory.cam import ConditionalAttentionModule
from streamingt2v.text import TextEncoder, Vocabulary


@dataclass
class Components:
    """All parts of a model. `refiner` is None where the model has no stage 3."""

    config: ModelConfig
    text: TextEncoder
    backbone: ModelScopeBackbone
    scheduler: Any
    refiner: RefinerBackbone | None


def load(name_or_folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Components:
    """Read a model folder. Weights are converted to `dtype`; the VAE stays in float32. ModelError names what is missing."""
    folder = find_model(name_or_folder)
    config = ModelConfig.load(folder)
    place = _placer(folder, device)
    vae = place("vae", AutoencoderKL.from_pretrained, torch.float32)
    if config.height % (factor := vae_factor(vae)) or config.width % factor:
        raise ModelError(f"{folder}: {config.height} x {config.width} pixels: the autoencoder needs multiples of {factor}")
    backbone = ModelScopeBackbone(
        vae,
        place("unet", StreamingUNet3D.from_pretrained, dtype),
        place("cam", ConditionalAttentionModule.from_pretrained, dtype),
        place("image_encoder", CLIPVisionModelWithProjection.from_pretrained, dtype),
        place("image_tokens", ImageTokens.from_pretrained, dtype),
    )
    refiner = _refiner(vae, place, dtype) if config.refine else None
    return Components(config, _load_text(folder, place, dtype), backbone, _load_scheduler(folder), refiner)


def load_refiner(folder: Path, device: str, dtype: torch.dtype, threads: int) -> RefinerBackbone:
    """Of a model folder only what refines, for a process of its own, which on a CPU uses so many threads."""
    torch.set_num_threads(threads)
    place = _placer(folder, device)
    return _refiner(place("vae", AutoencoderKL.from_pretrained, torch.float32), place, dtype)


def save(components: Components, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model folder that `load` reads; the weights in memory stay as they are.

    It is written beside its place and moved there when it is whole, so a save that fails changes nothing. In a folder that is there
    already the files of a model are replaced, others stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        whole = Path(made) / "model"
        whole.mkdir()
        _write(components, whole, dtype)
        if not folder.exists():
            whole.rename(folder)
            return
        for part in whole.iterdir():
            if (folder / part.name).is_dir():
                shutil.rmtree(folder / part.name)
            part.replace(folder / part.name)


def _write(components: Components, folder: Path, dtype: torch.dtype) -> None:
    components.config.save(folder)
    components.text.tokenizer.save_pretrained(folder / "tokenizer")
    if components.text.vocabulary:
        components.text.vocabulary.save(folder / "vocabulary.json")
    components.scheduler.save_pretrained(folder / "scheduler")
    backbone = components.backbone
    parts = {"text_encoder": components.text.encoder, "vae": backbone.vae, "unet": backbone.unet, "cam": backbone.cam}
    parts |= {"image_encoder": backbone.image_encoder, "image_tokens": backbone.image_tokens}
    if components.refiner:
        parts["refiner"] = components.refiner.unet
    for name, part in parts.items():
        # the plain Module.to: diffusers' own warns of parts to keep in float32, of which these networks have none
        torch.nn.Module.to(copy.deepcopy(part), dtype).save_pretrained(folder / name)


def _refiner(vae: AutoencoderKL, place: Callable, dtype: torch.dtype) -> RefinerBackbone:
    return RefinerBackbone(vae, place("refiner", UNet3DConditionModel.from_pretrained, dtype))


def _placer(folder: Path, device: str) -> Callable[[str, Callable, torch.dtype], Any]:
    def place(name: str, from_pretrained: Callable, dtype: torch.dtype) -> Any:
        part = _part(folder, name)
        try:
            model, report = from_pretrained(part, torch_dtype=dtype, local_files_only=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{part}: {error}") from error
        wrong = [key for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report.get(kind, ())]
        if wrong:
            raise ModelError(f"{part}: weights do not fit the configuration: {sorted(map(str, wrong))[:5]}")
        return model.to(device).eval().requires_grad_(False)

    return place


def _load_text(folder: Path, place: Callable, dtype: torch.dtype) -> TextEncoder:
    encoder = place("text_encoder", CLIPTextModel.from_pretrained, dtype)
    path = folder / "vocabulary.json"
    vocabulary = Vocabulary.load(path) if path.is_file() else None
    return TextEncoder(AutoTokenizer.from_pretrained(_part(folder, "tokenizer"), local_files_only=True), encoder, vocabulary)


def _load_scheduler(folder: Path) -> Any:
    """Any scheduler of diffusers, by the class its configuration names."""
    path = _part(folder, "scheduler") / "scheduler_config.json"
    values = read_json(path)
    name = values.get("_class_name") if isinstance(values, dict) else None
    kind = getattr(diffusers, str(name), None)
    if kind is None:
        raise ModelError(f"{path}: diffusers has no scheduler {name!r}")
    return kind.from_config(values)


def _part(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise ModelError(f"{folder} is incomplete: it has no folder {name}")
    return folder / name
