"""What the registry tells of pipelines that are models is what their classes make, and where they ran."""

from __future__ import annotations

import inspect

import diffusers
import pytest

import toy_bases
from streamingt2v.checkpoints.registry import ENTRIES, find_entry
from streamingt2v.external import families

CLASSES = {
    "wan-2.1-14b": "Wan", "wan-2.1-i2v-14b": "WanImageToVideo", "wan-2.1-vace-1.3b": "WanVACE",
    "wan-2.2-a14b": "Wan",
    "wan-2.2-i2v-a14b": "WanImageToVideo", "skyreels-v2-df-1.3b": "SkyReelsV2DiffusionForcing",
    "ltx-2": "LTX2",
    "cogvideox-5b": "CogVideoX", "hunyuanvideo": "HunyuanVideo", "hunyuanvideo-1.5": "HunyuanVideo15",
    "mochi-1": "Mochi",
    "kandinsky-5-lite": "Kandinsky5T2V", "wan-1.3b": "Wan", "ltx-video": "LTX", "cogvideox-2b": "CogVideoX",
}  # fmt: skip
OF_THE_NETWORK = {"CogVideoX": (480, 720, 49), "HunyuanVideo15": (480, 848, 121)}
"""Size and frames that the configuration of a network decides."""
TOYS = (
    "wan", "wan_image", "wan_vace", "skyreels_df", "ltx2", "cogvideox", "hunyuan", "hunyuan15", "mochi",
    "kandinsky5", "ltx",
)  # fmt: skip
"""`stages/test_every_pipeline` makes streams with them."""


def test_every_pipeline_of_the_registry_has_its_class_here():
    said = {entry.name for entry in ENTRIES if "run at toy size here" in entry.verified}
    ran = {type(toy_bases.built(name)).__name__.removesuffix("Pipeline") for name in TOYS}
    assert said == set(CLASSES) and set(CLASSES.values()) <= ran


@pytest.mark.parametrize("name", CLASSES)
def test_figures_are_the_classes_own_or_tell_their_source(name):
    entry, kind = find_entry(name), getattr(diffusers, f"{CLASSES[name]}Pipeline")
    takes = inspect.signature(kind.__call__).parameters
    size = families.default_size(kind)
    made = OF_THE_NETWORK.get(CLASSES[name]) or (*size, families.default_frames(kind))
    assert (entry.height, entry.width, entry.frames) == made and entry.fps == families.default_fps(kind)
    own = tuple(takes[n].default if n in takes else None for n in ("num_inference_steps", "guidance_scale"))
    if entry.steps is not None and (entry.steps, entry.guidance_scale) != own:
        assert "steps and guidance: its authors' advice, the card was not seen" in entry.verified
