"""The enhancer's geometry, against its forward pass written out from the description
(method.md: The enhancer's network)."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet3DConditionModel
from hypothesis import given
from hypothesis import strategies as st

from recorded import assert_near
from streamingt2v.checkpoints.placing import align
from streamingt2v.models.vid2vid_unet import Vid2VidUNet, check_latent_size
from toy_networks import randn, stir

SIZES = {
    "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
    "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}


@pytest.fixture(scope="module")
def network() -> Vid2VidUNet:
    return stir(Vid2VidUNet(**SIZES))  # type: ignore[return-value]


def layer(block, index, x, emb, text, frames):
    """One layer: spatial residual block, temporal convolution, spatial attention, temporal attention."""
    x = block.temp_convs[index](block.resnets[index](x, emb), num_frames=frames)
    if getattr(block, "attentions", None):
        x = block.attentions[index](x, encoder_hidden_states=text, return_dict=False)[0]
        x = block.temp_attentions[index](x, num_frames=frames, return_dict=False)[0]
    return x


def written_out(net, sample, timestep, text):
    """The published forward pass on stock layers: rows are padded and cut by hand,
    with plain convolutions."""
    batch, _, frames, _, _ = sample.shape
    emb = net.time_embedding(net.time_proj(torch.full((batch,), timestep))).repeat_interleave(frames, 0)
    text = text.repeat_interleave(frames, 0)
    x = net.conv_in(sample.transpose(1, 2).flatten(0, 1))
    x = net.transformer_in(x, num_frames=frames, return_dict=False)[0]
    skips, rows = [x], []
    for block in net.down_blocks:
        for index in range(len(block.resnets)):
            x = layer(block, index, x, emb, text, frames)
            skips.append(x)
        rows.append(x.shape[-2])
        if block.downsamplers:
            conv = block.downsamplers[0].conv
            x = F.conv2d(F.pad(x, (1, 1, 2, 2)), conv.weight, conv.bias, stride=2)
            skips.append(x)
    middle = net.mid_block
    x = middle.temp_convs[0](middle.resnets[0](x, emb), num_frames=frames)
    x = middle.attentions[0](x, encoder_hidden_states=text, return_dict=False)[0]
    x = middle.temp_attentions[0](x, num_frames=frames, return_dict=False)[0]
    x = middle.temp_convs[1](middle.resnets[1](x, emb), num_frames=frames)
    for block in net.up_blocks:
        for index in range(len(block.resnets)):
            x = layer(block, index, torch.cat([x, skips.pop()], 1), emb, text, frames)
        if block.upsamplers:
            conv = block.upsamplers[0].conv
            doubled = x.repeat_interleave(2, -2).repeat_interleave(2, -1)
            x = F.conv2d(doubled[..., 1:-1, :], conv.weight, conv.bias, padding=1)
    x = net.conv_out(F.silu(net.conv_norm_out(x)))
    return x.unflatten(0, (batch, frames)).transpose(1, 2), rows


@torch.no_grad()
@pytest.mark.parametrize(
    ("height", "rows"), [(90, [90, 46, 24, 13]), (26, [26, 14, 8, 5]), (10, [10, 6, 4, 3])]
)
def test_computes_what_is_published(network, height, rows):
    stock = UNet3DConditionModel(**SIZES).eval()
    stock.load_state_dict(network.state_dict())  # same names, none more
    sample, text = randn(1, 4, 2, height, 16), randn(1, 5, 12, seed=1)
    expected, heights = written_out(stock, sample, 300, text)
    assert heights == rows
    assert_near(network(sample, 300, text).sample, expected)
    assert (stock(sample, 300, text).sample - expected).abs().max() > 1e-2, "the geometry has an effect"


def test_is_saved_and_loaded_as_itself(network, tmp_path, caplog):
    network.save_pretrained(tmp_path)
    again = Vid2VidUNet.from_pretrained(tmp_path)
    align(again)
    assert again.down_blocks[0].downsamplers[0].conv.padding == (2, 1) and "not expected" not in caplog.text
    sample, text = randn(1, 4, 1, 10, 8), randn(1, 5, 12, seed=1)
    with torch.no_grad():
        assert torch.equal(again(sample, 5, text).sample, network(sample, 5, text).sample)


@given(height=st.integers(1, 300), width=st.integers(1, 64), levels=st.integers(1, 4))
def test_sizes_pass_exactly_where_they_come_back(height, width, levels):
    down = [(height, width)]
    for _ in range(levels - 1):
        h, w = down[-1]
        down.append(((h + 4 - 3) // 2 + 1, (w + 2 - 3) // 2 + 1))
    returns = all((2 * h - 2, 2 * w) == above for above, (h, w) in pairwise(down))
    try:
        check_latent_size(height, width, levels)
        passes = True
    except ValueError:
        passes = False
    assert passes == returns


@pytest.mark.parametrize(("height", "near"), [(8, "2 or 10"), (45, "42 or 50"), (91, "90 or 98"), (1, "2")])
def test_heights_that_do_not_pass_are_told_with_the_nearest(network, height, near):
    with pytest.raises(ValueError, match=rf"latents of {height} rows .* use {near}$"):
        network(randn(1, 4, 1, height, 16), 0, randn(1, 5, 12))


def test_widths_that_do_not_pass_are_told(network):
    with pytest.raises(ValueError, match=r"12 columns .* multiple of 8"):
        network(randn(1, 4, 1, 10, 12), 0, randn(1, 5, 12))
