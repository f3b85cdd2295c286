"""Assemble the recipes' folders into one model folder that `LongVideoPipeline.from_pretrained` reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import CLIPVisionModelWithProjection

from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.backbones.text import TextEncoder, Vocabulary
from streamingt2v.checkpoints.load import Components, save
from streamingt2v.config import ExtendConfig, ModelConfig, RefineConfig, find_model
from streamingt2v.metrics.eyes import load_text_projection, save_text_projection
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D

from ..world import clip, vocabulary
from . import data, diffusion
from .text import load_text

EXTEND = ExtendConfig(
    16, 8, steps=8, guidance_scale=1.5, guidance_rescale=0.5, eta=0.0, time_guidance=0.5, crossfade=4
)
REFINE = RefineConfig(
    frames=16,
    overlap=4,
    strength=0.15,
    steps=4,
    guidance_scale=2.0,
    guidance_rescale=0.5,
    scale=2,
    form="causal",
    law="paper",
)


@dataclass(frozen=True)
class AssembleConfig:
    """Folders of the recipes. memory: of apm, or of cam for a model without APM. nouns, mixed_noise: as in
    training.
    """

    text: Path
    vae: Path
    memory: Path
    refiner: Path | None = None
    nouns: int = 12
    mixed_noise: float = 0.0
    name: str = "tiny"


def assemble(config: AssembleConfig, out: Path) -> None:
    """Write the model folder, weights in float16."""
    vae = AutoencoderKL.from_pretrained(config.vae / "vae")
    text = TextEncoder(*load_text(config.text), build_vocabulary(data.noun_names(config.nouns)))
    backbone = ModelScopeBackbone(
        vae,
        StreamingUNet3D.from_pretrained(config.memory / "unet"),
        ConditionalAttentionModule.from_pretrained(config.memory / "cam"),
        CLIPVisionModelWithProjection.from_pretrained(config.text / "image_encoder"),
        ImageTokens.from_pretrained(config.memory / "image_tokens"),
    )
    refiner = (
        RefinerBackbone(vae, UNet3DConditionModel.from_pretrained(config.refiner / "unet"))
        if config.refiner
        else None
    )
    extend = replace(EXTEND, mixed_noise=config.mixed_noise)
    model = ModelConfig(config.name, 64, 64, clip.FPS, extend, REFINE if refiner else None)
    save(Components(model, text, backbone, diffusion.make_sampler(), refiner), out)
    projection = load_text_projection(config.text)
    if projection is not None:
        save_text_projection(out, projection, torch.float16)


def write_teacher(out: Path) -> Path:
    """Write the model that the included one was distilled from into `out`, replacing files; return `out`.

    Its networks, sampler and settings are its own, the rest is shared.
    """
    own = Path(__file__).parent / "weights" / "teacher"
    shutil.copytree(
        find_model("tiny"),
        out,
        ignore=shutil.ignore_patterns(*(path.name for path in own.iterdir())),
        dirs_exist_ok=True,
    )
    shutil.copytree(own, out, dirs_exist_ok=True)
    return out


def build_vocabulary(nouns: tuple[str, ...]) -> Vocabulary:
    """Return the words of training; others map to the nearest of them (untrained nouns, held-out words)."""
    untrained = {word for n in vocabulary.NOUNS if n.name not in nouns for word in n.synonyms}
    known = frozenset(vocabulary.words()) - untrained - {","}
    nearest = {
        word: target
        for word in (*vocabulary.NEAREST, *untrained)
        if (target := _follow(word, known)) is not None and word not in known
    }
    return Vocabulary(known, nearest)


def _follow(word: str, known: frozenset[str]) -> str | None:
    """Follow nearest words to the first known one; None if the chain ends or loops."""
    seen = {word}
    owner = {w: n.name for n in vocabulary.NOUNS for w in n.synonyms}
    while True:
        word = vocabulary.NEAREST.get(word) or vocabulary.NEAREST_NOUN.get(owner.get(word, ""), "")
        if word in known:
            return word
        if not word or word in seen:
            return None
        seen.add(word)
