"""Test the renaming of latent-diffusion keys: published list, full-size stock classes, unknown names."""

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

import published
from recorded import vid2vid_keys
from streaming_svd_keys import streaming_svd_keys
from streamingt2v.convert import sizes
from streamingt2v.convert.ldm import VID2VID, rename_temporal_vae, rename_unet
from streamingt2v.convert.streaming_svd import split_svd
from streamingt2v.convert.streaming_t2v import fitting
from streamingt2v.errors import ModelError
from streamingt2v.models.svd_cam import SpatioTemporalCam
from streamingt2v.models.svd_unet import StreamingUNetSpatioTemporal

SVD_XT = {"block_out_channels": (320, 640, 1280, 1280), "num_attention_heads": (5, 10, 20, 20)}


def test_rules_equal_the_published_map_of_the_enhancer():
    keys = vid2vid_keys()
    renamed, unknown = rename_unet(
        {name: torch.empty(shape, device="meta") for name, (_, shape) in keys.items()}, VID2VID
    )
    assert unknown == [] and len(renamed) == 1480
    assert list(renamed) == [new for new, _ in keys.values()]
    network = sizes.vid2vid(renamed)
    assert (
        network.config.block_out_channels == (320, 640, 1280, 1280)
        and network.config.attention_head_dim == 64
    )
    fitting(network, renamed, "refiner")  # every shape too
    assert sum(x.numel() for x in renamed.values()) == 1_411_233_860


def test_streaming_svd_at_full_size_fills_the_stock_classes():
    """Inverted rules restore the names, and the sizes read from them are SVD-XT's."""
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(**SVD_XT)
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        small = published.vision(1024)
        net, cam = StreamingUNetSpatioTemporal(), SpatioTemporalCam()
    assert len(net.cross_attention_merger_down_blocks) == 12
    parts = {
        "unet": net.state_dict(),
        "cam": cam.state_dict(),
        "image_encoder": small.state_dict(),
        "vae": vae.state_dict(),
    }
    back = split_svd(published.streaming_svd_names(parts))
    for part, tensors in parts.items():
        assert {name: x.shape for name, x in back[part].items()} == {
            name: x.shape for name, x in tensors.items()
        }, part
    stock = {name: x.shape for name, x in unet.state_dict().items()}
    assert {
        name: x.shape for name, x in back["unet"].items() if not name.startswith("cross_attention_merger_")
    } == stock
    assert [name for name in back["cam"] if name.startswith("controlnet_cond_embedding.norms.5.")] != []
    for name in (
        "block_out_channels",
        "num_attention_heads",
        "cross_attention_dim",
        "addition_time_embed_dim",
        "layers_per_block",
    ):
        assert sizes.svd_unet(back["unet"]).config[name] == unet.config[name], name
    read = sizes.svd_cam(back["cam"]).config
    assert all(read[name] == value for name, value in cam.config.items() if name != "_use_default_values")
    assert sizes.temporal_vae(back["vae"]).config.block_out_channels == vae.config.block_out_channels


def test_names_that_no_rule_knows_are_listed():
    good = {"input_blocks.0.0.weight": torch.empty(1)}
    strange = ["input_blocks.1.5.weight", "middle_block.9.weight", "else.weight"]
    renamed, unknown = rename_unet({**good, **dict.fromkeys(strange, torch.empty(1))}, VID2VID)
    assert list(renamed) == ["conv_in.weight"] and unknown == strange
    with pytest.raises(ModelError, match=r"conditioner\.embedders\.1\.strange, controlnet\.strange"):
        split_svd({"controlnet.strange": torch.empty(1), "conditioner.embedders.1.strange": torch.empty(1)})


def test_an_encoder_without_quant_conv_gets_one_that_changes_nothing():
    vae = published.streaming_svd()["vae"]
    whole = published.streaming_svd_names(
        {"unet": {}, "cam": {}, "image_encoder": {}, "vae": vae.state_dict()}
    )
    first = {
        name.removeprefix("first_stage_model."): x
        for name, x in whole.items()
        if name.startswith("first_stage_model.")
    }
    assert not any(name.startswith("quant_conv") for name in rename_temporal_vae(first))
    got = split_svd({f"first_stage_model.{name}": x for name, x in first.items()})["vae"]
    vae.load_state_dict(got)
    picture = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(vae.quant_conv(vae.encoder(picture)), vae.encoder(picture))


def test_every_key_of_streaming_svd_at_full_size_has_its_place():
    """Every name of the published configuration is used and the parts fill their classes."""
    keys = streaming_svd_keys()
    parts = split_svd({name: torch.empty(shape, device="meta") for name, shape in keys.items()})
    assert {part: len(tensors) for part, tensors in parts.items()} == {
        "unet": 1571,
        "cam": 657,
        "image_encoder": 520,
        "vae": 374,
    }
    made = {
        "unet": sizes.svd_unet,
        "cam": sizes.svd_cam,
        "image_encoder": sizes.image_encoder,
        "vae": sizes.temporal_vae,
    }
    for part, size in made.items():
        fitting(size(parts[part]), parts[part], part)
    assert sum(x.numel() for tensors in parts.values() for x in tensors.values()) == 2_996_355_290
