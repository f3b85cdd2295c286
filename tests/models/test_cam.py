"""CAM: a copy of the encoder half, its frame encoder, and the mergers."""

import pytest
import torch
import torch.nn.functional as F

from recorded import assert_near, golden, group
from streamingt2v.models import encoder
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.merger import SkipMerger
from toy_networks import JOINT, SIZES, cam, randn, stir, stock, streaming

TEXT = randn(2, 5, 12, seed=1)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("make", [stock, streaming])
def test_starts_as_the_base_encoder(make):
    """A new CAM's frame encoder ends in zeros, so its features are the base network's own of the overlap
    frames."""
    base = make()
    module = ConditionalAttentionModule.from_base(base, conditioning_channels=(4, 8)).eval()
    latents = randn(2, 4, 6, 4, 4)
    features = module(latents, 11, TEXT, module.encode_frames(randn(1, 3, 3, 8, 8)))
    net = base if make is streaming else streaming().from_base(base, **JOINT).eval()
    head = latents[:, :, :3]
    conditions, hidden = encoder.begin(net, head, 11, net.contexts(TEXT))
    hidden, skips = encoder.descend(net, hidden, conditions)
    for ours, theirs in zip(features.down, skips, strict=True):
        assert_near(ours, theirs)
    assert_near(features.mid, encoder.bottom(net, hidden, conditions))


def test_sees_only_the_overlap_frames():
    module, latents = cam(), randn(2, 4, 6, 4, 4)
    embedding = module.encode_frames(randn(1, 3, 3, 8, 8))
    later = latents.clone()
    later[:, :, 3:] += 1
    assert torch.equal(module(latents, 7, TEXT, embedding).mid, module(later, 7, TEXT, embedding).mid)
    with pytest.raises(ValueError, match="2 latent frames for 3"):
        module(latents[:, :, :2], 7, TEXT, embedding)


def test_one_embedding_serves_both_halves():
    module, latents, frames = cam(), randn(2, 4, 4, 4, 4), randn(1, 4, 3, 8, 8)
    shared = module(latents, 7, module.contexts(TEXT), module.encode_frames(frames))
    apart = module(latents, 7, TEXT, module.encode_frames(frames.expand(2, -1, -1, -1, -1)))
    assert_near(shared.mid, apart.mid)


@pytest.mark.parametrize("channels, factor", [((4,), 1), ((4, 8, 8), 4)])
def test_frame_encoder_halves_once_an_entry(channels, factor):
    embedding = cam(conditioning_channels=channels).encode_frames(randn(1, 2, 3, 8, 16))
    assert embedding.shape == (1, 2, 8, 8 // factor, 16 // factor)


def test_save_and_load(tmp_path):
    module, latents, frames = cam(), randn(1, 4, 2, 4, 4), randn(1, 2, 3, 8, 8)
    module.save_pretrained(tmp_path)
    again = ConditionalAttentionModule.from_pretrained(tmp_path).eval()
    expected = module(latents, 7, TEXT[:1], module.encode_frames(frames)).mid
    assert torch.equal(again(latents, 7, TEXT[:1], again.encode_frames(frames)).mid, expected)


def test_incomplete_base_is_refused():
    base = stock()
    base.mid_block = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"lacks .*mid_block"):
        ConditionalAttentionModule.from_base(base, conditioning_channels=(4, 8))


@pytest.mark.parametrize("frames, cam_frames", [(1, 1), (7, 3), (3, 7)])
def test_merger_formula(frames, cam_frames):
    """Spec 3.5, written out pixel by pixel and head by head."""
    channels, head_dim = 8, 4
    merger = stir(SkipMerger(channels, head_dim, norm_num_groups=4))
    skip, features = randn(2 * frames, channels, 2, 3), randn(2 * cam_frames, channels, 2, 3, seed=1)
    part = merger.temporal_transformer
    normed = F.group_norm(
        encoder.unflatten_frames(skip, frames), 4, part.norm.weight, part.norm.bias, eps=1e-6
    )
    expected = skip.clone()
    for b in range(2):
        for y in range(2):
            for x in range(3):
                query = part.attention.to_q(part.proj_in(normed[b, :, :, y, x].T))
                source = features[b * cam_frames : (b + 1) * cam_frames, :, y, x]
                key, value = part.attention.to_k(source), part.attention.to_v(source)
                heads = [slice(h * head_dim, (h + 1) * head_dim) for h in range(channels // head_dim)]
                seen = [
                    torch.softmax(query[:, h] @ key[:, h].T * head_dim**-0.5, dim=1) @ value[:, h]
                    for h in heads
                ]
                change = part.proj_out(part.attention.to_out[0](torch.cat(seen, dim=1)))
                expected[b * frames : (b + 1) * frames, :, y, x] += change
    assert_near(merger(skip, features, batch=2), expected)


@pytest.mark.parametrize("trace, index", [("merger_down_11", "down_blocks.11"), ("merger_mid", "mid_block")])
def test_golden_merger(trace, index):
    traces = group(golden("g1"), f"traces.{trace}.")
    weights = group(golden("g1"), f"weights.base_model.cross_attention_merger_{index}.")
    merger = SkipMerger(traces["output"].shape[2], head_dim=16, norm_num_groups=32)
    merger.load_state_dict(weights)
    merged = merger(traces["query_features"].flatten(0, 1), traces["cam_features"].flatten(0, 1), batch=1)
    assert_near(merged, traces["output"].flatten(0, 1))


def test_sizes_are_those_of_the_blocks():
    assert encoder.skip_channels(cam()) == (8, 8, 8, 16) == encoder.skip_channels(stock())
    assert SIZES["layers_per_block"] == 1
