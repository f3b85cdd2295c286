"""Video pipelines of diffusers: real classes at toy size, with random weights. `TOYS` by name.

A builder returns a pipeline in memory; `saved` writes its folder. Sizes are the smallest
that the autoencoder and network allow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from streamingt2v.config import ExtendConfig
from streamingt2v.external.as_model import pipeline_model

from . import newer, transformer_toys, unets, wan


@dataclass(frozen=True)
class Toy:
    """A pipeline to try.

    size: (height, width). chunk: frames and overlap. image: it needs one to start from.
    more: further arguments of a call.
    """

    build: Callable[[], Any]
    size: tuple[int, int]
    frames: int = 9
    chunk: tuple[int, int] = (17, 9)
    image: bool = False
    video: bool = False
    more: tuple[tuple[str, Any], ...] = ()


@cache
def built(name: str) -> Any:
    """Return a toy in memory, once a process."""
    torch.manual_seed(0)
    pipe = TOYS[name].build()
    pipe.set_progress_bar_config(disable=True)
    if name == "allegro":
        pipe.vae.enable_tiling()
    return pipe


def lanes(names: Iterable[str]) -> list[Any]:
    """Return names as parameters of a test, those of newer families in the slow lane."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in NEWER else []) for name in names]


def saved(name: str, folder: Path) -> Path:
    """Write the folder of a toy."""
    torch.manual_seed(0)
    TOYS[name].build().save_pretrained(folder)
    return folder


def model_folder(name: str, folder: Path, chunk: tuple[int, int] | None = None) -> Path:
    """Write a toy with a `model.json` of its toy size, short chunks and two steps."""
    saved(name, folder)
    config, (height, width) = pipeline_model(folder), TOYS[name].size
    extend, by = ExtendConfig(*(chunk or TOYS[name].chunk)), replace(config.extend_by, steps=2)
    replace(config, height=height, width=width, extend=extend, extend_by=by).save(folder)
    return folder


def folder_of(tmp_path: Path, kind: str, scheduler: str | None = None, **config) -> Path:
    """Write what tells a pipeline's class and scheduler, without weights."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    if scheduler is not None:
        (tmp_path / "scheduler").mkdir()
        values = {"_class_name": scheduler, **config}
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(values))
    return tmp_path


TOYS = {
    "modelscope": Toy(unets.modelscope, (16, 16)),
    "modelscope_video": Toy(unets.modelscope_video, (16, 16), video=True),
    "animatediff": Toy(unets.animatediff, (16, 16)),
    "animatediff_dpm": Toy(unets.animatediff_dpm, (16, 16)),
    "animatediff_video": Toy(unets.animatediff_video, (16, 16), video=True),
    "svd": Toy(unets.svd, (16, 16), image=True, frames=6, chunk=(6, 3)),
    "cogvideox": Toy(transformer_toys.cogvideox, (32, 32)),
    "cogvideox_dpm": Toy(transformer_toys.cogvideox_dpm, (32, 32)),
    "cogvideox_image": Toy(transformer_toys.cogvideox_image, (32, 32), image=True),
    "cogvideox_video": Toy(transformer_toys.cogvideox_video, (32, 32), video=True),
    "wan": Toy(wan.wan, (16, 16)),
    "wan_unipc": Toy(wan.wan_unipc, (16, 16)),
    "wan22": Toy(wan.wan22, (16, 16)),
    "wan_image": Toy(wan.wan_image, (16, 16), image=True),
    "wan22_image": Toy(wan.wan22_image, (16, 16), image=True),
    "wan_vace": Toy(wan.wan_vace, (16, 16)),
    "wan_video": Toy(wan.wan_video, (16, 16), video=True),
    "anyflow": Toy(wan.anyflow, (16, 16)),
    "skyreels": Toy(wan.skyreels, (16, 16)),
    "skyreels_image": Toy(wan.skyreels_image, (16, 16), image=True),
    "skyreels_df": Toy(wan.skyreels_df, (16, 16), more=(("base_num_frames", 9),)),
    "skyreels_df_image": Toy(wan.skyreels_df_image, (16, 16), image=True, more=(("base_num_frames", 9),)),
    "skyreels_df_video": Toy(
        wan.skyreels_df_video,
        (16, 16),
        frames=17,
        video=True,
        more=(("overlap_history", 5), ("base_num_frames", 9)),
    ),
    "ltx": Toy(transformer_toys.ltx, (32, 32)),
    "ltx_image": Toy(transformer_toys.ltx_image, (32, 32), image=True),
    "ltx_condition": Toy(transformer_toys.ltx_condition, (32, 32)),
    "mochi": Toy(transformer_toys.mochi, (16, 16), frames=13, chunk=(13, 7)),
    "latte": Toy(transformer_toys.latte, (16, 16), frames=16, chunk=(16, 8)),
    "hunyuan": Toy(transformer_toys.hunyuan, (16, 16)),
    "hunyuan_skyreels_image": Toy(transformer_toys.hunyuan_skyreels_image, (16, 16), image=True),
    "easyanimate": Toy(transformer_toys.easyanimate, (16, 16)),
    "allegro": Toy(transformer_toys.allegro, (16, 16), frames=16),
    "sana": Toy(wan.sana, (32, 32), more=(("use_resolution_binning", False),)),
    "helios": Toy(wan.helios, (16, 16), frames=33, chunk=(42, 9)),
    "ltx2": Toy(newer.ltx2, (32, 32)),
    "ltx2_image": Toy(newer.ltx2_image, (32, 32), frames=25, image=True),
    "hunyuan15": Toy(newer.hunyuan15, (16, 16)),
    "motif": Toy(newer.motif, (16, 16)),
    "kandinsky5": Toy(newer.kandinsky5, (16, 16)),
    "cosmos2": Toy(newer.cosmos2, (32, 32), image=True),
    "framepack": Toy(newer.framepack, (32, 32), image=True),
    "anyflow_far": Toy(newer.anyflow_far, (32, 32), frames=17),
}
NEWER = ("ltx2", "ltx2_image", "hunyuan15", "motif", "kandinsky5", "cosmos2", "framepack", "anyflow_far")
