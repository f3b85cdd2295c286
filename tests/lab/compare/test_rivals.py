"""Rivals that are trained: without effect at first, then learning,
and told of a window what their kind is told, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from lab.compare import rivals
from lab.compare.baselines import WithoutBoth, rival_backbones, with_backbone
from lab.proof.memory import Rivalry
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.models.unet3d import StreamingUNet3D
from toy import SIZE, write_toy_model
from toy_networks import randn

KINDS = tuple(rivals.NAMES)
LATENTS, TEXT = randn(1, 16, 16, 4, 4), randn(1, 5, 32, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("toy") / "toy", refiner=False)


def rivalry(kind: str, model: Path) -> Rivalry:
    """Return a new rival on the toy's base, as it is trained."""
    torch.manual_seed(0)
    base = StreamingUNet3D.from_pretrained(model / "unet").stock().float()
    vae = AutoencoderKL.from_pretrained(model / "vae").float()
    return Rivalry(
        StreamingUNet3D.from_base(base, 16),
        rivals.from_base(kind, base, (16, 16, 16, 16)),
        lambda pixels: vae.encode(pixels).latent_dist.mode(),
    ).eval()


def window(seed: int = 0) -> torch.Tensor:
    return randn(1, 8, 3, SIZE, SIZE, seed=seed).clamp(-1, 1)


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory) -> dict[str, tuple[float, float, Path]]:
    """Loss of each kind on one clip before and after a few steps on it, and the export."""
    found = {}
    for kind in KINDS:
        module = rivalry(kind, model)
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
        losses = []
        for _ in range(9):
            made = module(LATENTS, torch.tensor([500]), TEXT, window(), torch.zeros(0))
            loss = (made - randn(*made.shape, seed=3)).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        folder = tmp_path_factory.mktemp(kind)
        module.export(folder)
        found[kind] = losses[0], losses[-1], folder
    return found


def predicted(module: Rivalry, window: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module(LATENTS, torch.tensor([500]), TEXT, window, torch.zeros(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_rival_is_the_base(kind, model):
    module = rivalry(kind, model)
    with torch.no_grad():
        base = module.unet(LATENTS, torch.tensor([500]), TEXT)
    torch.testing.assert_close(predicted(module, window()), base)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_rival_is_trained_and_it_learns(kind, trained, model):
    before, after, _ = trained[kind]
    assert after < 0.97 * before
    named = rivalry(kind, model).named_parameters()
    assert {name.split(".")[0] for name, parameter in named if parameter.requires_grad} == {"rival"}


@pytest.mark.parametrize("kind", KINDS)
def test_of_the_window_it_sees_what_its_kind_is_told(kind, trained, model):
    module = rivalry(kind, model)
    module.rival = rivals.load_rival(trained[kind][2], module.unet)
    other_first, other_last = window(), window()
    other_first[:, 0], other_last[:, -1] = 0.5, 0.5
    plain = predicted(module, window())
    assert torch.equal(predicted(module, other_first), plain) == (kind == "last-frame")
    assert not torch.equal(predicted(module, other_last), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rival_makes_videos_of_exactly_so_many_frames(kind, trained, model):
    own = LongVideoPipeline.from_pretrained(model).components
    ((name, backbone),) = rival_backbones([trained[kind][2]], own).items()
    assert name == rivals.NAMES[kind]
    request = Request("A cat running on the street", 21)
    video, forgetful = (
        np.concatenate([chunk.frames for chunk in LongVideoPipeline(way).stream(request)])
        for way in (replace(own, backbone=backbone), with_backbone(own, WithoutBoth))
    )
    assert video.shape == (21, SIZE, SIZE, 3)
    np.testing.assert_array_equal(video[:16], forgetful[:16])
    assert (video[16:] != forgetful[16:]).any()


def test_what_is_written_is_what_is_read(trained, model):
    for kind in KINDS:
        unet = rivalry(kind, model).unet
        once = rivals.load_rival(trained[kind][2], unet)
        assert rivals.kind_of(once) == kind
        once.save_pretrained(trained[kind][2] / "again" / "rival")
        again = rivals.load_rival(trained[kind][2] / "again", unet)
        assert all(
            torch.equal(a, b)
            for a, b in zip(once.state_dict().values(), again.state_dict().values(), strict=True)
        )


def test_a_rival_of_another_base_is_refused(trained, model, tmp_path):
    unet = rivalry("additive", model).unet
    with pytest.raises(ModelError, match="holds no rival"):
        rivals.load_rival(tmp_path, unet)
    with torch.no_grad():
        unet.conv_out.weight += 0.1
    with pytest.raises(ModelError, match="another base"):
        rivals.load_rival(trained["additive"][2], unet)


def test_two_rivals_of_a_kind_are_refused(trained, model):
    folder = trained["additive"][2]
    with pytest.raises(RequestError, match="second of kind 'additive'"):
        rival_backbones([folder, folder], LongVideoPipeline.from_pretrained(model).components)
