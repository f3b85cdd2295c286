"""A model name or folder to components on a device in a dtype, and back; strict. The only file that names devices, with `placing`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import diffusers
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNet3DConditionModel
from transformers import AutoTokenizer, CLIPTextModel, CLIPVisionModelWithProjection

from .. import durable
from ..backbones.base import Backbone
from ..backbones.engines import take_over
from ..backbones.modelscope import ModelScopeBackbone, vae_factor
from ..backbones.refiner import RefinerBackbone
from ..backbones.svd import SvdBackbone
from ..backbones.text import NoText, TextEncoder, Vocabulary
from ..config import ModelConfig
from ..config.external import SvdConfig
from ..config.runtime import PLAIN, Savings
from ..config.values import read_json
from ..errors import ModelError, RequestError
from ..models.apm import ImageTokens
from ..models.cam import ConditionalAttentionModule
from ..models.svd_cam import SpatioTemporalCam
from ..models.svd_unet import StreamingUNetSpatioTemporal
from ..models.unet3d import StreamingUNet3D
from ..models.vid2vid_unet import Vid2VidUNet, check_latent_size
from .find import find_model
from .opening import load_pipeline
from .placing import align, offload, offload_pipeline, save_in_vae
from .writing import write_part


@dataclass(frozen=True)
class Place:
    """Reads parts of a model's folder, ready for use. device: where they work; with offloading their weights stay on the CPU."""

    folder: Path
    device: torch.device
    savings: Savings

    def __call__(self, name: str, from_pretrained: Callable, dtype: torch.dtype) -> Any:
        """The part of that name, by its class's `from_pretrained`; ModelError if it is missing or its weights do not fit."""
        part = _part(self.folder, name)
        try:
            model, report = from_pretrained(
                part, torch_dtype=dtype, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{part}: {error}") from error
        wrong = [
            key
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            for key in report.get(kind, ())
        ]
        if wrong:
            raise ModelError(f"{part}: weights do not fit the configuration: {sorted(map(str, wrong))[:5]}")
        save_in_vae(model, self.savings)
        home = self.device if self.savings.offload == "none" else "cpu"
        if self.device.type == "cpu":
            align(model)
        return model.to(home).eval().requires_grad_(False)


@dataclass
class Components:
    """All parts of a model. backbone: None where a `pipeline` of diffusers makes all chunks; `place` says where and in what it works.

    refiner: None where the model has none, or it was left out, see `load`. savings: how device memory is saved, also with pipelines.
    """

    config: ModelConfig
    text: TextEncoder | NoText
    backbone: Backbone | None
    scheduler: Any
    refiner: RefinerBackbone | None
    savings: Savings = PLAIN
    pipeline: Any = None
    place: tuple[torch.device, torch.dtype] = (torch.device("cpu"), torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the networks work."""
        return self.backbone.device if self.backbone is not None else self.place[0]

    @property
    def dtype(self) -> torch.dtype:
        """What they compute in."""
        return self.backbone.dtype if self.backbone is not None else self.place[1]


def load(
    name_or_folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32, savings: Savings = PLAIN,
    refiner: bool = True, config: ModelConfig | None = None,
) -> Components:  # fmt: skip
    """Read a model folder. Weights are converted to `dtype`; the VAE stays in float32. ModelError names what is missing.

    refiner: False leaves the networks of stage 3 out. config: of a folder without `model.json`.

    RequestError for savings that the device or the model cannot use.
    """
    folder = find_model(name_or_folder)
    config = config or ModelConfig.load(folder)
    savings.check(device, config, str(dtype).removeprefix("torch."))
    if config.extend_by is not None:
        pipeline = load_pipeline(config.extend_by.pipeline, device, dtype, savings=savings)
        place = torch.device(device), dtype
        return Components(config, NoText(), None, None, None, savings, pipeline, place)
    made = _read(folder, config, Place(folder, torch.device(device), savings), dtype, refiner)
    made.savings = savings
    _put_on(lambda: networks_of(made), torch.device(device), savings)
    return made


def _put_on(
    networks: Callable[[], dict[str, torch.nn.Module]], device: torch.device, savings: Savings
) -> None:
    """What is between networks and those who call them: hooks that bring weights to the device, or an engine."""
    if savings.offload != "none":
        offload(networks(), device, savings)
    if savings.engine != "torch":
        take_over(networks(), savings.engine)


def best_device(name: str) -> str:
    """A device by its name; "auto" and "balanced" are the accelerator where there is one. RequestError if it cannot be used here."""
    if name in ("auto", "balanced"):
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return "cpu" if found is None else str(found)
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise RequestError(
            "device", name, f"cannot be used here ({str(error).splitlines()[0]}); cpu always can"
        ) from error
    return name


def move(components: Components, device: str | None, dtype: torch.dtype | None) -> None:
    """Networks to a device, and all but autoencoders to a dtype, in place.

    RequestError where offloading or an engine places weights, or the model's savings have no use there.
    """
    savings = components.savings
    if savings.offload != "none" or savings.engine != "torch":
        name, value = (
            ("offload", savings.offload) if savings.offload != "none" else ("engine", savings.engine)
        )
        raise RequestError(
            name, value, "places the weights itself; load the pipeline anew for another device or dtype"
        )
    for name, network in networks_of(components).items():
        network.to(device=device, dtype=None if name.endswith("vae") else dtype)
    if components.pipeline is not None:
        components.pipeline.to(
            **{"device": device} if device is not None else {},
            **{"dtype": dtype} if dtype is not None else {},
        )
    place = components.device if device is None else torch.device(device)
    _work_on(components, place, components.place[1] if dtype is None else dtype)


def offload_models(components: Components, device: torch.device) -> None:
    """Keep networks in the machine's memory, and bring each to `device` when it works. RequestError as `Savings.check` has it."""
    savings = replace(components.savings, offload="model")
    savings.check(str(device), components.config, str(components.dtype).removeprefix("torch."))
    move(components, "cpu", None)
    components.savings = savings
    offload(networks_of(components), device, savings)
    if components.pipeline is not None:
        offload_pipeline(components.pipeline, device, savings)
    _work_on(components, device, components.place[1])


def set_in_vaes(components: Components, name: Literal["vae_slicing", "vae_tiling"], on: bool) -> None:
    """Turn slicing or tiling of autoencoders on or off. RequestError where none can do it."""
    savings = replace(components.savings, **{name: on})  # type: ignore[arg-type]
    savings.check(str(components.device), components.config, str(components.dtype).removeprefix("torch."))
    components.savings = savings
    kind = name.removeprefix("vae_")
    networks = networks_of(components) | (
        {"vae": components.pipeline.vae} if hasattr(components.pipeline, "vae") else {}
    )
    for key, network in networks.items():
        if key.endswith("vae") and hasattr(network, f"use_{kind}"):
            getattr(network, f"{'enable' if on else 'disable'}_{kind}")()


def _work_on(components: Components, device: torch.device, dtype: torch.dtype) -> None:
    owners: tuple[Any, ...] = (components.backbone, components.refiner, components.text)
    for owner in owners:
        if hasattr(owner, "works_on"):
            owner.works_on = device
    components.place = device, dtype


def networks_of(components: Components) -> dict[str, torch.nn.Module]:
    """Every network once, under the name of its folder."""
    parts = components.backbone.parts() if components.backbone is not None else {}
    if isinstance(components.text, TextEncoder):
        parts["text_encoder"] = components.text.encoder
    if components.refiner:
        parts["refiner"] = components.refiner.unet
        if components.refiner.vae is not parts.get("vae"):
            parts["refiner_vae"] = components.refiner.vae
    return parts


def _read(folder: Path, config: ModelConfig, place: Place, dtype: torch.dtype, refiner: bool) -> Components:
    backbone = (_svd if config.backbone == "svd" else _modelscope)(config, place, dtype)
    if config.height % (factor := vae_factor(backbone.parts()["vae"])) or config.width % factor:
        raise ModelError(
            f"{folder}: {config.height} x {config.width} pixels: the autoencoder needs multiples of {factor}"
        )
    # the decoder of StreamingSVD's videos knows nothing of single frames
    vae = None if config.backbone == "svd" else backbone.parts()["vae"]
    enhancer = _refiner(folder, config, place, dtype, vae) if config.refine and refiner else None
    text, scheduler = _load_text(folder, config, place, dtype), _load_scheduler(folder / "scheduler")
    return Components(config, text, backbone, scheduler, enhancer)


def _modelscope(config: ModelConfig, place: Place, dtype: torch.dtype) -> Backbone:
    return ModelScopeBackbone(
        place("vae", AutoencoderKL.from_pretrained, torch.float32),
        place("unet", StreamingUNet3D.from_pretrained, dtype),
        place("cam", ConditionalAttentionModule.from_pretrained, dtype),
        place("image_encoder", CLIPVisionModelWithProjection.from_pretrained, dtype),
        place("image_tokens", ImageTokens.from_pretrained, dtype),
        place.device,
    )


def _svd(config: ModelConfig, place: Place, dtype: torch.dtype) -> Backbone:
    return SvdBackbone(
        place("vae", AutoencoderKLTemporalDecoder.from_pretrained, torch.float32),
        place("unet", StreamingUNetSpatioTemporal.from_pretrained, dtype),
        place("cam", SpatioTemporalCam.from_pretrained, dtype),
        place("image_encoder", CLIPVisionModelWithProjection.from_pretrained, dtype),
        config.svd or SvdConfig(),
        place.device,
    )


def load_refiner(
    folder: Path, device: str, dtype: torch.dtype, threads: int, savings: Savings = PLAIN
) -> RefinerBackbone:
    """Of a model folder only what refines, for a process of its own, which on a CPU uses so many threads."""
    torch.set_num_threads(threads)
    made = _refiner(folder, ModelConfig.load(folder), Place(folder, torch.device(device), savings), dtype)
    _put_on(lambda: {"refiner": made.unet, "vae": made.vae}, torch.device(device), savings)
    return made


def save(components: Components, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model folder that `load` reads; the weights in memory stay as they are. Pipelines of others that the model works with are
    not copied: it names them by their way from the folder.

    It is written beside its place and moved there when it is whole, so a save that fails changes nothing. In a folder that is there
    already the files of a model are replaced, others stay. ModelError for a model that was loaded without its refiner.
    """
    if components.config.refine is not None and components.refiner is None:
        raise ModelError(
            "the model was loaded without its refiner and would be saved without it; load it with refiner=True"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        whole = Path(made) / "model"
        whole.mkdir()
        _write(components, whole, folder, dtype)
        if not folder.exists():
            whole.rename(folder)
            return
        for part in whole.iterdir():
            if (folder / part.name).is_dir():
                shutil.rmtree(folder / part.name)
            part.replace(folder / part.name)


def _write(components: Components, folder: Path, place: Path, dtype: torch.dtype) -> None:
    components.config.save(folder, place)
    if components.backbone is None:  # its pipeline stays where it is
        return
    components.scheduler.save_pretrained(folder / "scheduler")
    if isinstance(components.text, TextEncoder):
        components.text.tokenizer.save_pretrained(folder / "tokenizer")
        if components.text.vocabulary:
            components.text.vocabulary.save(folder / "vocabulary.json")
    for name, part in networks_of(components).items():
        write_part(folder / name, part, part.state_dict(), dtype)
        _forget_origin(folder / name / "config.json")


def _forget_origin(path: Path) -> None:
    """diffusers notes the folder that a network was read from, which means nothing on another machine."""
    values = read_json(path)
    if values.pop("_name_or_path", None) is not None:
        durable.write_file(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def _refiner(
    folder: Path, config: ModelConfig, place: Place, dtype: torch.dtype, vae: AutoencoderKL | None = None
) -> RefinerBackbone:
    """`vae`: that of stage 2, where it decodes single frames; else it is read here."""
    if vae is None:
        vae = place(
            "refiner_vae" if config.backbone == "svd" else "vae", AutoencoderKL.from_pretrained, torch.float32
        )
    kind = _refiner_class(folder, config, vae_factor(vae))
    return RefinerBackbone(vae, place("refiner", kind.from_pretrained, dtype), place.device)


def _refiner_class(folder: Path, config: ModelConfig, factor: int) -> type[UNet3DConditionModel]:
    """The class that the refiner's configuration names; ModelError if frames of the size that it refines to do not pass."""
    assert config.refine is not None, "asked for with a refiner only"
    path = _part(folder, "refiner") / "config.json"
    values = read_json(path)
    height, width = config.refine.size(config.height, config.width)
    if height % factor or width % factor:
        raise ModelError(
            f"{folder}: refines to {height} x {width} pixels: the autoencoder needs multiples of {factor}"
        )
    if values.get("_class_name") != Vid2VidUNet.__name__:
        return UNet3DConditionModel
    try:
        check_latent_size(height // factor, width // factor, len(values["block_out_channels"]))
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    return Vid2VidUNet


def _load_text(folder: Path, config: ModelConfig, place: Place, dtype: torch.dtype) -> TextEncoder | NoText:
    if not config.reads_text and config.refine is None:
        return NoText()
    encoder = place("text_encoder", CLIPTextModel.from_pretrained, dtype)
    path = folder / "vocabulary.json"
    vocabulary = Vocabulary.load(path) if path.is_file() else None
    return TextEncoder(
        AutoTokenizer.from_pretrained(_part(folder, "tokenizer"), local_files_only=True),
        encoder,
        vocabulary,
        place.device,
    )


def _load_scheduler(folder: Path) -> Any:
    """Any scheduler of diffusers, by the class its configuration names."""
    path = _part(folder.parent, folder.name) / "scheduler_config.json"
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
