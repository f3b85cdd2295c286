"""Load a model folder into components on a device, and save them. Weights must fit exactly."""

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
from ..backbones.base import Backbone, vae_factor
from ..backbones.engines import take_over
from ..backbones.modelscope import ModelScopeBackbone
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
from .adapting import adapt_unet
from .find import find_model, locate
from .opening import load_pipeline
from .placing import align, offload, offload_pipeline, save_in_vae
from .writing import write_part


@dataclass(frozen=True)
class PartLoader:
    """Load parts of a model folder for a device; with offloading their weights stay on the CPU."""

    folder: Path
    device: torch.device
    savings: Savings

    def __call__(self, name: str, from_pretrained: Callable, dtype: torch.dtype) -> Any:
        """Load one part by its class's `from_pretrained`; raise ModelError if missing or misfit."""
        part = _part(self.folder, name)
        try:
            model, report = from_pretrained(
                part, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{part}: {error}") from error
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        wrong = [key for kind in kinds for key in report.get(kind, ())]
        if wrong:
            raise ModelError(f"{part}: weights do not fit the configuration: {sorted(map(str, wrong))[:5]}")
        save_in_vae(model, self.savings)
        home = self.device if self.savings.offload == "none" else "cpu"
        if self.device.type == "cpu":
            align(model)
        return model.to(home).eval().requires_grad_(False)


@dataclass
class Components:
    """All parts of a model.

    backbone: None where a diffusers `pipeline` makes all chunks on `place` (device, dtype). refiner: None if
    the model has none or it was not loaded. savings: options in use; adapted: the network has their LoRA.
    """

    config: ModelConfig
    text: TextEncoder | NoText
    backbone: Backbone | None
    scheduler: Any
    refiner: RefinerBackbone | None
    savings: Savings = PLAIN
    pipeline: Any = None
    place: tuple[torch.device, torch.dtype] = (torch.device("cpu"), torch.float32)
    adapted: bool = False

    @property
    def device(self) -> torch.device:
        """Return the device that the networks compute on."""
        return self.backbone.device if self.backbone is not None else self.place[0]

    @property
    def dtype(self) -> torch.dtype:
        """Return the data type that the networks compute in."""
        return self.backbone.dtype if self.backbone is not None else self.place[1]


def load(
    name_or_folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32,
    savings: Savings = PLAIN, refiner: bool = True, config: ModelConfig | None = None,
) -> Components:  # fmt: skip
    """Load a model folder with weights in `dtype`; the VAE stays in float32.

    refiner: False skips the networks of stage 3. config: for a folder without `model.json`. Raise ModelError
    naming what is missing, RequestError for memory options that the device or model cannot use.
    """
    folder = find_model(name_or_folder)
    config = config or locate(ModelConfig.load(folder))
    savings.check(device, config, str(dtype).removeprefix("torch."))
    if config.extend_by is not None:
        by = config.extend_by.pipeline
        pipeline = load_pipeline(by, device, dtype, savings=savings, lora="must")
        place = torch.device(device), dtype
        return Components(config, NoText(), None, None, None, savings, pipeline, place)
    made = _read(folder, config, PartLoader(folder, torch.device(device), savings), dtype, refiner)
    made.savings = savings
    if savings.lora and isinstance(made.backbone, ModelScopeBackbone):
        made.adapted = adapt_unet(made.backbone.unet, savings)
    _put_on(lambda: networks_of(made), torch.device(device), savings)
    return made


def _put_on(
    networks: Callable[[], dict[str, torch.nn.Module]], device: torch.device, savings: Savings
) -> None:
    """Attach offloading hooks or an engine to the networks."""
    if savings.offload != "none":
        offload(networks(), device, savings)
    if savings.engine != "torch":
        take_over(networks(), savings.engine)


def best_device(name: str) -> str:
    """Return a usable device; "auto" and "balanced" pick the accelerator. Raise RequestError if unusable."""
    if name in ("auto", "balanced"):
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return "cpu" if found is None else str(found)
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise RequestError(
            "device", name, f"is not usable here ({str(error).splitlines()[0]}); cpu always is"
        ) from error
    return name


def move(components: Components, device: str | None, dtype: torch.dtype | None) -> None:
    """Move networks to a device and convert all but autoencoders to a dtype, in place.

    Raise RequestError if offloading or an engine already places the weights.
    """
    savings = components.savings
    if savings.offload != "none" or savings.engine != "torch":
        name, value = (
            ("offload", savings.offload) if savings.offload != "none" else ("engine", savings.engine)
        )
        raise RequestError(
            name, value, "manages the weights itself; load the pipeline again for another device or dtype"
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
    """Keep networks in CPU memory and move each to `device` to compute; errors as in `Savings.check`."""
    savings = replace(components.savings, offload="model")
    savings.check(str(device), components.config, str(components.dtype).removeprefix("torch."))
    move(components, "cpu", None)
    components.savings = savings
    offload(networks_of(components), device, savings)
    if components.pipeline is not None:
        offload_pipeline(components.pipeline, device, savings)
    _work_on(components, device, components.place[1])


def set_in_vaes(components: Components, name: Literal["vae_slicing", "vae_tiling"], on: bool) -> None:
    """Turn slicing or tiling of the autoencoders on or off; raise RequestError if none supports it."""
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
    """Return every network once, keyed by its folder name."""
    parts = components.backbone.parts() if components.backbone is not None else {}
    if isinstance(components.text, TextEncoder):
        parts["text_encoder"] = components.text.encoder
    if components.refiner:
        parts["refiner"] = components.refiner.unet
        if components.refiner.vae is not parts.get("vae"):
            parts["refiner_vae"] = components.refiner.vae
    return parts


def _read(
    folder: Path, config: ModelConfig, load_part: PartLoader, dtype: torch.dtype, refiner: bool
) -> Components:
    backbone = (_svd if config.backbone == "svd" else _modelscope)(config, load_part, dtype)
    if config.height % (factor := vae_factor(backbone.parts()["vae"])) or config.width % factor:
        raise ModelError(
            f"{folder}: {config.height} x {config.width} pixels: the autoencoder needs multiples of {factor}"
        )
    # StreamingSVD's temporal decoder cannot decode single frames
    vae = None if config.backbone == "svd" else backbone.parts()["vae"]
    enhancer = _refiner(folder, config, load_part, dtype, vae) if config.refine and refiner else None
    text, scheduler = _load_text(folder, config, load_part, dtype), load_scheduler(folder / "scheduler")
    return Components(config, text, backbone, scheduler, enhancer)


def _modelscope(config: ModelConfig, load_part: PartLoader, dtype: torch.dtype) -> Backbone:
    return ModelScopeBackbone(
        load_part("vae", AutoencoderKL.from_pretrained, torch.float32),
        load_part("unet", StreamingUNet3D.from_pretrained, dtype),
        load_part("cam", ConditionalAttentionModule.from_pretrained, dtype),
        load_part("image_encoder", CLIPVisionModelWithProjection.from_pretrained, dtype),
        load_part("image_tokens", ImageTokens.from_pretrained, dtype),
        load_part.device,
    )


def _svd(config: ModelConfig, load_part: PartLoader, dtype: torch.dtype) -> Backbone:
    return SvdBackbone(
        load_part("vae", AutoencoderKLTemporalDecoder.from_pretrained, torch.float32),
        load_part("unet", StreamingUNetSpatioTemporal.from_pretrained, dtype),
        load_part("cam", SpatioTemporalCam.from_pretrained, dtype),
        load_part("image_encoder", CLIPVisionModelWithProjection.from_pretrained, dtype),
        config.svd or SvdConfig(),
        load_part.device,
    )


def load_refiner(
    folder: Path, device: str, dtype: torch.dtype, threads: int, savings: Savings = PLAIN
) -> RefinerBackbone:
    """Load only the refiner of a model folder, for a worker process with `threads` CPU threads."""
    torch.set_num_threads(threads)
    made = _refiner(
        folder, ModelConfig.load(folder), PartLoader(folder, torch.device(device), savings), dtype
    )
    _put_on(lambda: {"refiner": made.unet, "vae": made.vae}, torch.device(device), savings)
    return made


def save(components: Components, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a model folder that `load` reads; weights in memory are unchanged.

    External pipelines are not copied but referred to by relative paths. The folder is written aside and moved
    into place when complete, so a failed save changes nothing. In an existing folder the model's files are
    replaced and others stay. Raise ModelError if the refiner was not loaded.
    """
    if components.config.refine is not None and components.refiner is None:
        raise ModelError("the model was loaded without its refiner; load it with refiner=True to save it")
    if components.adapted:
        raise RequestError(
            "lora", components.savings.lora[0], "is not saved; load the model without it to save it"
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


def _write(components: Components, folder: Path, target: Path, dtype: torch.dtype) -> None:
    components.config.save(folder, target)
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
    """Remove the source folder that diffusers records; it means nothing on another machine."""
    values = read_json(path)
    if values.pop("_name_or_path", None) is not None:
        durable.write_file(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def _refiner(
    folder: Path,
    config: ModelConfig,
    load_part: PartLoader,
    dtype: torch.dtype,
    vae: AutoencoderKL | None = None,
) -> RefinerBackbone:
    """Load stage 3. vae: stage 2's autoencoder if it decodes single frames; None loads one."""
    if vae is None:
        vae = load_part(
            "refiner_vae" if config.backbone == "svd" else "vae", AutoencoderKL.from_pretrained, torch.float32
        )
    kind = _refiner_class(folder, config, vae_factor(vae))
    return RefinerBackbone(vae, load_part("refiner", kind.from_pretrained, dtype), load_part.device)


def _refiner_class(folder: Path, config: ModelConfig, factor: int) -> type[UNet3DConditionModel]:
    """Return the class in the refiner's configuration; raise ModelError if the frame size does not fit."""
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


def _load_text(
    folder: Path, config: ModelConfig, load_part: PartLoader, dtype: torch.dtype
) -> TextEncoder | NoText:
    if not config.reads_text and config.refine is None:
        return NoText()
    encoder = load_part("text_encoder", CLIPTextModel.from_pretrained, dtype)
    path = folder / "vocabulary.json"
    vocabulary = Vocabulary.load(path) if path.is_file() else None
    tokenizer = AutoTokenizer.from_pretrained(_part(folder, "tokenizer"), local_files_only=True)
    return TextEncoder(tokenizer, encoder, vocabulary, load_part.device)


def load_scheduler(folder: Path) -> Any:
    """Load any diffusers scheduler by the class that its configuration names."""
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
