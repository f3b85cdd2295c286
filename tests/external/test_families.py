"""What is known of diffusers' families holds for the real classes."""

from __future__ import annotations

import diffusers
import pytest

import toy_bases
from streamingt2v.external import families
from streamingt2v.external.latents import temporal_ratio


@pytest.mark.parametrize("name", toy_bases.lanes(toy_bases.TOYS))
def test_the_ratio_of_a_folder_is_the_pipelines(name):
    pipe = toy_bases.built(name)
    config = {**pipe.vae.config, "_class_name": type(pipe.vae).__name__}
    assert families.ratio_of(config) == temporal_ratio(pipe)


def test_every_family_is_of_a_class_that_exists():
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    assert [
        family for family in families.FAMILIES if not any(name.startswith(family) for name in names)
    ] == []


def test_a_class_finds_its_own_family_before_a_wider_one():
    assert (
        families.family(diffusers.WanAnimatePipeline).edits
        and not families.family(diffusers.WanPipeline).edits
    )
    assert (
        families.family(diffusers.HunyuanVideo15Pipeline).negative
        and not families.family(diffusers.HunyuanVideoPipeline).negative
    )


def test_who_cannot_make_a_single_step():
    """Mochi divides by zero there, and the only step of Cosmos 2 would be one without noise."""
    least = {kind: families.family(kind).least_steps for kind in (
        diffusers.MochiPipeline, diffusers.Cosmos2VideoToWorldPipeline, diffusers.WanPipeline,
        diffusers.Cosmos2_5_PredictBasePipeline,
    )}  # fmt: skip
    assert list(least.values()) == [2, 2, 1, 1]


def test_what_follows_other_videos_makes_none_from_a_prompt():
    for name in ("LTX2LatentUpsample", "LTX2DFRTemporalRefine", "LTX2HDR", "AnimateDiffControlNet",
                 "AnimateDiffSparseControlNet", "AnimateDiffVideoToVideoControlNet"):  # fmt: skip
        kind = getattr(diffusers, f"{name}Pipeline")
        assert families.family(kind).edits is not None and not families.redraws_videos(kind)


def test_who_redraws_videos_by_a_strength_of_noise():
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    redraw = {name for name in names if families.redraws_videos(getattr(diffusers, name))}
    assert {"WanVideoToVideoPipeline", "CogVideoXVideoToVideoPipeline", "VideoToVideoSDPipeline"} <= redraw
    assert "AnimateDiffVideoToVideoPipeline" in redraw
    assert not {"LTXConditionPipeline", "WanVACEPipeline", "LucyEditPipeline"} & redraw


def test_what_no_request_can_give_is_named():
    assert "pose_video" in families.unmet(diffusers.WanAnimatePipeline)
    for kind in (
        diffusers.WanPipeline,
        diffusers.LTXConditionPipeline,
        diffusers.StableVideoDiffusionPipeline,
        diffusers.HeliosPipeline,
    ):
        assert families.unmet(kind) == ()


def test_defaults_are_read_from_signatures():
    assert (
        families.default_size(diffusers.WanPipeline) == (480, 832)
        and families.default_frames(diffusers.WanPipeline) == 81
    )
    assert (
        families.default_frames(diffusers.SanaVideoPipeline) == 81
        and families.default_fps(diffusers.LTXPipeline) == 25
    )
    assert (
        families.default_fps(diffusers.WanPipeline) == 16
        and families.default_size(diffusers.CogVideoXPipeline) is None
    )


def test_a_missing_package_is_known_before_loading(monkeypatch):
    monkeypatch.setattr(families, "find_spec", lambda name: None)
    assert families.missing_packages(diffusers.WanImageToVideoPipeline) == ("ftfy",)
    assert families.missing_packages(diffusers.LTXPipeline) == ()
