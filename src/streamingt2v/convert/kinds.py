"""Convert a published checkpoint to a model folder, completely or not at all.

Files are memory-mapped and written tensor by tensor, so peak memory is little more than one tensor. Every key
is used, known to be unneeded, or reported in an error.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler
from transformers import AutoTokenizer

from ..checkpoints.hub import check_disk
from ..checkpoints.reading import Tensors, read_tensors
from ..checkpoints.registry import TOKENIZER_REPO
from ..checkpoints.writing import WEIGHTS, atomic_folder, size_of, write_part
from ..config import ExtendConfig, ModelConfig, RefineConfig
from ..config.external import ALIGN_YOUR_STEPS, SvdConfig
from ..config.values import read_json
from ..errors import ModelError, RequestError
from ..models.vid2vid_unet import passes
from . import sizes
from .ldm import VID2VID, rename_unet
from .streaming_svd import split_svd
from .streaming_t2v import PREFIXES, fitting, refuse_unknown, split

KINDS = ("streaming-t2v", "streaming-svd", "vid2vid")
FILES = {
    "streaming-t2v": "streaming_t2v.ckpt",
    "streaming-svd": "model.safetensors",
    "vid2vid": "non_ema_0035000.pth",
}
"""File name of each kind in its published repository."""

STREAMING_T2V = ModelConfig("streaming-t2v", 256, 256, 8, ExtendConfig(16, 8, 50, 7.5, 0.0, 1.0))
STREAMING_SVD = ModelConfig(
    "streaming-svd",
    576,
    1024,
    12,
    ExtendConfig(25, 7, 30, 3.0, 0.0, 0.0, 6, ALIGN_YOUR_STEPS),
    backbone="svd",
    svd=SvdConfig(),
)
VID2VID_REFINE = RefineConfig(
    frames=24,
    overlap=8,
    strength=0.6,
    steps=30,
    guidance_scale=7.5,
    guidance_rescale=0.2,
    law="code",
    form="joint",
)

Note = Callable[[str], None]


def check_target(kind: str, target: Path) -> None:
    """Raise RequestError unless `target` is new or empty, or for `vid2vid` a model without a refiner."""
    if kind not in KINDS:
        raise RequestError("kind", kind, f"must be one of {', '.join(KINDS)}")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if kind == "vid2vid" and (target / "model.json").is_file():
        _check_joins(target)
        return
    also = ", or for vid2vid a model folder that gets it as its refiner" if kind == "vid2vid" else ""
    raise RequestError("target", str(target), f"already exists; name a new folder{also}")


def _check_joins(target: Path) -> None:
    """Raise RequestError unless a model folder has all that MS-Vid2Vid-XL needs and no third stage yet."""
    config = ModelConfig.load(target)
    if (target / "refiner").exists() or config.refine is not None:
        raise RequestError(
            "target", str(target), "has a refiner already; remove its folder refiner, or choose another model"
        )
    if config.refine_by is not None:
        fix = (
            f"refines by the pipeline in {config.refine_by.pipeline} already; remove "
            "it from model.json, or choose another model"
        )
        raise RequestError("target", str(target), fix)
    lacking = [part for part in ("text_encoder", "tokenizer") if not (target / part).is_dir()]
    own = (
        read_json(target / "vae" / "config.json").get("_class_name")
        if (target / "vae" / "config.json").is_file()
        else None
    )
    if own != AutoencoderKL.__name__ and not (target / "refiner_vae").is_dir():
        lacking.append("an autoencoder of single frames")
    if lacking:
        other = (
            "StreamingSVD's enhancer is i2vgen-xl: streamingt2v get streaming-svd --preset full"
            if config.backbone == "svd"
            else ""
        )
        fix = f"lacks what this enhancer needs: {', '.join(lacking)}. {other or 'Name a new folder'}"
        raise RequestError("target", str(target), fix)


def _check_widths(target: Path, network: Any) -> None:
    """Raise RequestError unless the refiner fits the model's text embeddings and latents."""
    width = read_json(target / "text_encoder" / "config.json").get("hidden_size")
    vae = "refiner_vae" if (target / "refiner_vae").is_dir() else "vae"
    channels = read_json(target / vae / "config.json").get("latent_channels")
    for what, has, needs in (
        ("text embeddings", width, network.config["cross_attention_dim"]),
        ("latents", channels, network.config["in_channels"]),
    ):
        if has != needs:
            fix = f"its {what} have {has} channels, the enhancer needs {needs}; choose another model"
            raise RequestError("target", str(target), fix)


def find_source(kind: str, source: Path) -> Path:
    """Return the checkpoint file, given itself or its published folder; raise RequestError if missing.

    For `vid2vid`, also accept a folder written by an earlier conversion.
    """
    file = source
    if source.is_dir():  # wherever in the published folder it is
        file = next(iter(sorted(source.rglob(FILES[kind]))), source / FILES[kind])
    if kind == "vid2vid" and (written := source / "refiner" / WEIGHTS).is_file():
        return written
    if not file.is_file():
        raise RequestError(
            "source", str(source), f"there is no file {file}; give the published {FILES[kind]} or its folder"
        )
    return file


def convert(
    kind: str,
    source: Path,
    target: Path,
    *,
    dtype: torch.dtype | None = None,
    tokenizer: Path | None = None,
    note: Note = lambda text: None,
) -> None:
    """Write the model folder `target` from a checkpoint file or its published folder.

    dtype: of all weights; None keeps each tensor's. tokenizer: its folder, required for streaming-t2v. note:
    receives progress messages. Raise RequestError or ModelError and leave nothing behind if the conversion
    fails.
    """
    check_target(kind, target)
    file = find_source(kind, source)
    words = load_tokenizer(tokenizer) if kind == "streaming-t2v" else None
    note(f"reading {file}")
    tensors = read_tensors(file)
    if kind == "streaming-t2v":
        with atomic_folder(target) as folder:
            _streaming_t2v(tensors, folder, target, dtype, words, note)
    elif kind == "streaming-svd":
        with atomic_folder(target) as folder:
            _streaming_svd(tensors, folder, target, dtype, note)
    else:
        _vid2vid(tensors, file.name == WEIGHTS, target, dtype, note)


def load_tokenizer(folder: Path | None) -> Any:
    """Load the tokenizer of a folder; raise RequestError if there is none."""
    if folder is None:
        raise RequestError(
            "tokenizer", None, f"the checkpoint has none; give the folder `tokenizer` of {TOKENIZER_REPO}"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            "tokenizer", str(folder), f"no tokenizer can be read there ({str(error).splitlines()[0]})"
        ) from error


def _check_tokenizer(tokenizer: Any, config: Any) -> None:
    """Limit texts to the encoder's length; raise RequestError if the vocabulary is too large for it."""
    if len(tokenizer) > config.vocab_size:
        fix = (
            f"has {len(tokenizer)} tokens, the text encoder {config.vocab_size}; "
            f"give the one of {TOKENIZER_REPO}"
        )
        raise RequestError("tokenizer", tokenizer.name_or_path, fix)
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.max_position_embeddings)


def save_scheduler(kind: str, folder: Path) -> None:
    """Write the published schedule of ModelScope (method.md: Sampling) or SVD-XT; checkpoints lack it."""
    shared = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = (
        DDIMScheduler(**shared, clip_sample=False, set_alpha_to_one=False)
        if kind == "streaming-t2v"
        else EulerDiscreteScheduler(
            **shared, prediction_type="v_prediction", use_karras_sigmas=True, sigma_min=0.002,
            sigma_max=700.0, timestep_spacing="leading", timestep_type="continuous",
        )
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")


def _streaming_t2v(
    tensors: Tensors, folder: Path, target: Path, dtype: torch.dtype | None, tokenizer: Any, note: Note
) -> None:  # fmt: skip
    parts = _all_parts(split(tensors), PREFIXES.values())
    unet = sizes.streaming_unet(parts["unet"])
    networks = {
        "unet": unet,
        "cam": sizes.cam(parts["cam"]),
        "image_tokens": sizes.image_tokens(parts["image_tokens"], unet.config["num_image_tokens"]),
        "image_encoder": sizes.image_encoder(parts["image_encoder"]),
        "text_encoder": sizes.text_encoder(parts["text_encoder"]),
        "vae": sizes.vae(parts["vae"]),
    }
    _check_tokenizer(tokenizer, networks["text_encoder"].config)
    _write_parts(folder, target, networks, parts, dtype, note)
    tokenizer.save_pretrained(folder / "tokenizer")
    save_scheduler("streaming-t2v", folder)
    STREAMING_T2V.save(folder)


def _streaming_svd(
    tensors: Tensors, folder: Path, target: Path, dtype: torch.dtype | None, note: Note
) -> None:
    parts = _all_parts(split_svd(tensors), ("unet", "cam", "image_encoder", "vae"))
    networks = {
        "unet": sizes.svd_unet(parts["unet"]),
        "cam": sizes.svd_cam(parts["cam"]),
        "image_encoder": sizes.image_encoder(parts["image_encoder"]),
        "vae": sizes.temporal_vae(parts["vae"]),
    }
    _write_parts(folder, target, networks, parts, dtype, note)
    save_scheduler("streaming-svd", folder)
    STREAMING_SVD.save(folder)


def _vid2vid(tensors: Tensors, converted: bool, target: Path, dtype: torch.dtype | None, note: Note) -> None:
    """Write a `refiner` folder: alone, or into a model folder, whose model.json then gains stage 3.

    converted: the names are diffusers' already.
    """
    if not converted:
        tensors, unknown = rename_unet(tensors, VID2VID)
        refuse_unknown(unknown)
    network = sizes.vid2vid(tensors)
    fitted = fitting(network, tensors, "refiner")
    if joins := (target / "model.json").is_file():
        _check_widths(target, network)
    check_disk(size_of(fitted, dtype), target, "the model folder", "DST")
    note("writing refiner")
    if not joins:
        with atomic_folder(target) as folder:
            write_part(folder / "refiner", network, fitted, dtype)
        return
    config = _with_refiner(target, len(network.config["block_out_channels"]))
    with atomic_folder(target / "refiner") as folder:
        write_part(folder, network, fitted, dtype)
    config.save(target)  # the part is there first: until its model.json tells of it, nothing reads it


def _with_refiner(folder: Path, levels: int) -> ModelConfig:
    """Return the model's settings with stage 3 at `refined_size`."""
    config = ModelConfig.load(folder)
    factor = 2 ** (len(read_json(folder / "vae" / "config.json")["block_out_channels"]) - 1)
    height, width = refined_size(config.height, config.width, factor, levels)
    return replace(config, refine=replace(VID2VID_REFINE, height=height, width=width))


def refined_size(height: int, width: int, factor: int, levels: int) -> tuple[int, int]:
    """Return the size near the published 720 rows that MS-Vid2Vid-XL accepts for frames of this shape.

    At least 720 rows and never fewer than the input; the width keeps the proportions and the excess at the
    sides is cropped, so no black bars are refined. factor: pixels per latent.
    """
    rows = next(rows for rows in range(max(720, height) // factor, 2**30) if passes(rows, levels))
    grain = 2 ** (levels - 1)
    return rows * factor, max(1, round(rows * width / height / grain)) * grain * factor


def _all_parts(parts: dict[str, Tensors], wanted: Any) -> dict[str, Tensors]:
    missing = [part for part in wanted if not parts.get(part)]
    if missing:
        raise ModelError(
            f"the checkpoint has no weights of {', '.join(missing)}: it is of another kind or incomplete"
        )
    return parts


def _write_parts(
    folder: Path, target: Path, networks: dict[str, Any], parts: dict[str, Tensors],
    dtype: torch.dtype | None, note: Note
) -> None:  # fmt: skip
    """Write every part after checking that all fit and that the disk has room. target: the final folder."""
    fitted = {part: fitting(network, parts[part], part) for part, network in networks.items()}
    check_disk(sum(size_of(tensors, dtype) for tensors in fitted.values()), target, "the model folder", "DST")
    for part, network in networks.items():
        note(f"writing {part}")
        write_part(folder / part, network, fitted[part], dtype)
