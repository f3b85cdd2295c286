"""Assemble the parts of a run into a model folder, which `streamingt2v generate --model DIR` takes.

    python -m lab.proof.export RUNS OUT             # the teacher: memories of RUNS/apm, its own sampler
    python -m lab.proof.export RUNS OUT --student   # the distilled network of RUNS/student/model

Weights are written in float16.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from transformers import CLIPVisionModelWithProjection

from lab.tiny.assemble import EXTEND, REFINE
from lab.world2 import clip, vocabulary
from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.backbones.refiner import RefinerBackbone
from streamingt2v.backbones.text import TextEncoder, Vocabulary
from streamingt2v.checkpoints.load import Components, load, save
from streamingt2v.config import ModelConfig
from streamingt2v.metrics.eyes import load_text_projection, save_text_projection
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.train.objective import quick_sampler

from .sampling import make_scheduler
from .words import load_text


def teacher_config(
    guidance_scale: float = 2.0, time_guidance: float = 0.5, steps: int = EXTEND.steps
) -> ModelConfig:
    """Return the teacher's settings; its chunks draw independent noise, as in training."""
    guided = {"guidance_scale": guidance_scale, "time_guidance": time_guidance}
    extend = replace(EXTEND, **guided, steps=steps, mixed_noise=0.0)
    refine = replace(REFINE, strength=0.08)  # at 0.15 the small refiner leaves noise behind
    return ModelConfig("tiny", 64, 64, clip.FPS, extend, refine)


def assembled(runs: Path, guidance_scale: float, time_guidance: float, steps: int) -> Components:
    """Return the teacher."""
    vae = AutoencoderKL.from_pretrained(runs / "vae" / "vae").float()
    backbone = ModelScopeBackbone(
        vae,
        StreamingUNet3D.from_pretrained(runs / "apm" / "unet"),
        ConditionalAttentionModule.from_pretrained(runs / "apm" / "cam"),
        CLIPVisionModelWithProjection.from_pretrained(runs / "sight" / "image_encoder"),
        ImageTokens.from_pretrained(runs / "apm" / "image_tokens"),
    )
    text = TextEncoder(*load_text(runs / "text"), build_vocabulary())
    config = teacher_config(guidance_scale, time_guidance, steps)
    refiner = RefinerBackbone(vae, UNet3DConditionModel.from_pretrained(runs / "refiner" / "unet"))
    return Components(config, text, backbone, quick_sampler(make_scheduler()), refiner)


def write(components: Components, out: Path, projected: Path) -> None:
    """Write a model folder with the text projection of the folder `projected`, if that has one."""
    save(components, out)
    projection = load_text_projection(projected)
    if projection is not None:
        save_text_projection(out, projection, torch.float16)


def build_vocabulary() -> Vocabulary:
    """Return the words of training, and for everyday and held-out words the nearest of them."""
    known = frozenset(vocabulary.words()) - {","}
    nearest = {word: target for word, target in vocabulary.nearest_words().items() if target in known}
    return Vocabulary(known, nearest)


def main(words: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    p.add_argument("runs", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--student", action="store_true")
    p.add_argument("--guidance_scale", type=float, default=2.0)
    p.add_argument("--time_guidance", type=float, default=0.5)
    p.add_argument("--steps", type=int, default=EXTEND.steps)
    a = p.parse_args(words)
    if a.student:
        components = load(a.runs / "student" / "model")
    else:
        components = assembled(a.runs, a.guidance_scale, a.time_guidance, a.steps)
    write(components, a.out, a.runs / "sight")


if __name__ == "__main__":
    main()
