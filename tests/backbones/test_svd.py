"""StreamingSVD's network: equal to the stock one where nothing is joined on;
CAM without effect while its mergers are new."""

from __future__ import annotations

from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch

from recorded import assert_near
from streamingt2v.config.external import SvdConfig
from streamingt2v.models.svd_cam import SpatioTemporalCam
from streamingt2v.models.svd_unet import StreamingUNetSpatioTemporal
from streamingt2v.samplers.denoise import denoise, final, log_linear
from streamingt2v.samplers.guidance import Guidance, guide
from streamingt2v.types import TextCond
from toy_networks import randn, stir
from toy_pipelines import EDM, SVD_SIZES, SVD_UNET, WIDTH, svd_backbone

CONTEXT, ADDED = randn(2, 1, WIDTH, seed=1), torch.tensor([[6.0, 127.0, 0.02]] * 2)
NO_TEXT = TextCond(torch.zeros(1, 0, 0), torch.zeros(1, 0, 0))


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def stock() -> diffusers.UNetSpatioTemporalConditionModel:
    return stir(diffusers.UNetSpatioTemporalConditionModel(**SVD_UNET))  # type: ignore[return-value]


def cam() -> SpatioTemporalCam:
    return stir(SpatioTemporalCam(**SVD_SIZES, conditioning_channels=(8, 16)), seed=1)  # type: ignore[return-value]


@pytest.mark.parametrize("frames, height, width", [(1, 8, 8), (5, 6, 7)])
def test_equals_stock_network(frames, height, width):
    theirs = stock()
    ours = StreamingUNetSpatioTemporal.from_base(theirs, merger_head_dim=16).eval()
    latents, timesteps = randn(2, frames, 8, height, width), torch.tensor([1.6, -0.5])
    expected = theirs(latents, timesteps, CONTEXT, ADDED).sample
    assert torch.equal(ours(latents, timesteps, CONTEXT, ADDED), expected)
    features = cam()(
        latents, timesteps, CONTEXT, ADDED, cam().encode_frames(randn(1, 1, 3, 2 * height, 2 * width))
    )
    assert torch.equal(ours(latents, timesteps, CONTEXT, ADDED, features), expected), (
        "new mergers end in zeros"
    )


def test_cam_is_a_copy_of_the_encoder_and_its_new_part_has_no_effect():
    """Without frames in effect, CAM's middle is what the base network's own middle gives for the same frames
    alone."""
    theirs, caught = stock(), []
    copy = SpatioTemporalCam.from_base(theirs, conditioning_channels=(8, 16)).eval()
    theirs.mid_block.register_forward_hook(lambda module, args, output: caught.append(output))
    latents = randn(2, 3, 8, 8, 8)
    theirs(latents, 0.3, CONTEXT, ADDED)
    features = copy(
        torch.cat([latents, randn(2, 2, 8, 8, 8, seed=5)], dim=1),
        0.3,
        CONTEXT,
        ADDED,
        copy.encode_frames(randn(1, 3, 3, 16, 16)),
    )
    assert torch.equal(features.mid, caught[0])


def test_names_of_the_parameters():
    """Names of a converted checkpoint (method.md: StreamingSVD, Merger)."""
    names = set(StreamingUNetSpatioTemporal(**SVD_UNET, merger_head_dim=16).state_dict())
    skips = 1 + 2 + 1  # the input, a layer and its downsampling, a layer
    for merger in [*(f"down_blocks.{i}" for i in range(skips)), "mid_block"]:
        assert f"cross_attention_merger_{merger}.temporal_transformer.attention.to_q.weight" in names
    assert f"cross_attention_merger_down_blocks.{skips}.temporal_transformer.norm.weight" not in names
    own = set(cam().state_dict()) - set(stock().state_dict())
    parts = [*(f"blocks.{i}" for i in range(2)), *(f"norms.{i}" for i in range(2)), "conv_in", "conv_out"]
    assert own == {
        f"controlnet_cond_embedding.{part}.{kind}" for part in parts for kind in ("weight", "bias")
    }


def test_published_sizes_have_six_norms_and_twelve_skips():
    with torch.device("meta"):
        names = set(StreamingUNetSpatioTemporal().state_dict())
        module = SpatioTemporalCam()
    assert {
        int(n.split(".")[1]) for n in names if n.startswith("cross_attention_merger_down_blocks.")
    } == set(range(12))
    assert [norm.weight.shape[0] for norm in module.controlnet_cond_embedding.norms] == [
        32,
        96,
        96,
        256,
        256,
        512,
    ]


def test_every_feature_of_cam_has_an_effect_and_only_the_overlap_is_looked_at():
    net, module, latents = svd_backbone().unet, cam(), randn(2, 5, 8, 8, 8)
    embedding = module.encode_frames(randn(1, 2, 3, 16, 16))
    features = module(latents, 0.3, CONTEXT, ADDED, embedding)
    plain = net(latents, 0.3, CONTEXT, ADDED, features)
    for level in range(len(features.down)):
        down = tuple(
            feature + (k == level) * torch.randn_like(feature) for k, feature in enumerate(features.down)
        )
        assert (net(latents, 0.3, CONTEXT, ADDED, features._replace(down=down)) - plain).abs().max() > 1e-4, (
            level
        )
    later = torch.cat([latents[:, :2], latents[:, 2:] + 1], dim=1)
    assert torch.equal(module(later, 0.3, CONTEXT, ADDED, embedding).mid, features.mid)
    with pytest.raises(ValueError, match="1 latent frames for 2"):
        module(latents[:, :1], 0.3, CONTEXT, ADDED, embedding)


def test_one_chunk_without_cam_is_that_of_the_published_pipeline():
    """The backbone's prediction and our loop against diffusers' own pipeline on the same parts,
    noise and picture."""
    backbone = svd_backbone(first_guidance=1.0, augmentation=0.0)
    scheduler = diffusers.EulerDiscreteScheduler(**EDM)
    theirs = diffusers.UNetSpatioTemporalConditionModel(**SVD_UNET).eval()
    own = backbone.unet.state_dict()
    theirs.load_state_dict({name: own[name] for name in theirs.state_dict()})
    pipe = diffusers.StableVideoDiffusionPipeline(
        backbone.vae, backbone.image_encoder, theirs, scheduler, None
    )
    picture_CHW = randn(3, 32, 32).clamp(-1, 1)
    condition = backbone.condition(NO_TEXT, picture_CHW)
    pipe._encode_image = lambda *_: (
        condition.context_BLD
    )  # CLIP's size is fixed in it; compared by itself below
    noise = randn(1, 4, 6, 16, 16)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        (picture_CHW[None] + 1) / 2, 32, 32, 6, num_inference_steps=2, fps=7, noise_aug_strength=0.0,
        latents=noise.transpose(1, 2),
        output_type="pt",
    ).frames[0]  # fmt: skip
    predict = backbone.predictor(condition, None, Guidance(3.0))
    latents = final(denoise(predict, noise, scheduler, 2, step_noise=lambda step: noise))
    assert_near(backbone.decode(latents), expected * 2 - 1, 1e-3)  # float32 at noise levels of 700


def test_guidance_rises_evenly_over_the_frames():
    without, with_ = randn(1, 4, 3, 2, 2), randn(1, 4, 3, 2, 2, seed=1)
    backbone = svd_backbone(first_guidance=1.5)
    backbone.unet.forward = lambda *args, **kwargs: torch.cat([without, with_]).transpose(1, 2)
    condition = backbone.condition(NO_TEXT, torch.zeros(3, 4, 4))
    guided = backbone.predictor(condition, None, Guidance(3.0))(torch.zeros(1, 4, 3, 2, 2), torch.tensor(0.5))
    for frame, scale in enumerate((1.5, 2.25, 3.0)):
        assert_near(guided[:, :, frame], guide(without[:, :, frame], with_[:, :, frame], scale))


def test_the_picture_is_noised_as_asked_and_keyed_by_the_seed():
    picture, backbone = randn(3, 32, 32).clamp(-1, 1), svd_backbone()

    def latents(seed: int = 0, **changes) -> torch.Tensor:
        backbone.config = SvdConfig(**changes)
        return backbone.condition(NO_TEXT, picture, seed).latents_BCHW

    assert not latents()[0].any(), "without the picture: zeros"
    assert torch.equal(latents(1), latents(1)) and not torch.equal(latents(1), latents(2))
    assert torch.equal(latents(1, augmentation=0.0), latents(2, augmentation=0.0))
    assert not torch.equal(latents(augmentation_kind="uniform"), latents(augmentation_kind="normal"))
    backbone.config = SvdConfig(augmentation_kind="uniform")
    uniform = backbone._augmentation(0, (3, 32, 32))
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(float(uniform.mean()) - 0.5) < 0.03
    assert_near(backbone.condition(NO_TEXT, picture).added_BN, torch.tensor([[6.0, 127.0, 0.02]] * 2))


def test_a_chunk_without_a_picture_is_refused():
    with pytest.raises(ValueError, match="picture"):
        svd_backbone().condition(NO_TEXT, None)


@pytest.mark.parametrize("steps", [2, 3, 30])
def test_noise_levels_are_laid_through_the_nodes(steps):
    nodes = (700.0, 54.5, 0.002)
    levels = log_linear(nodes, steps)
    assert len(levels) == steps and np.allclose([levels[0], levels[-1]], [700, 0.002])
    assert all(a > b for a, b in pairwise(levels))
    if steps == 3:
        assert np.allclose(levels, nodes)
    told = []
    for step in denoise(
        lambda x, t: x,
        randn(1, 4, 1, 2, 2),
        diffusers.EulerDiscreteScheduler(**EDM),
        steps,
        step_noise=lambda s: randn(2),
        sigmas=nodes,
    ):
        told.append(float(step.timestep))
    assert np.allclose(told, 0.25 * np.log(levels), atol=1e-5), (
        "the network is told a quarter of the logarithm"
    )


def test_a_scheduler_without_own_noise_levels_is_refused():
    with pytest.raises(ValueError, match="DDIMScheduler takes none"):
        final(denoise(lambda x, t: x, randn(1, 4, 1, 2, 2), diffusers.DDIMScheduler(), 2, sigmas=(2.0, 1.0)))
