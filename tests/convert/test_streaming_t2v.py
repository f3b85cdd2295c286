"""Test the published checkpoint's keys against the classes of this package, diffusers and transformers."""

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from recorded import assert_near, checkpoint_keys
from streamingt2v.convert.openclip import TEXT_LEFTOVERS
from streamingt2v.convert.streaming_t2v import PREFIXES, load_part, split
from streamingt2v.errors import ModelError
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import ConditionalAttentionModule
from streamingt2v.models.unet3d import StreamingUNet3D
from toy_networks import JOINT, SIZES, cam, randn, streaming


def published_networks():
    """Build every part of the published checkpoint at full size."""
    text = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
    }
    vision = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
    }
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return {
        "unet": StreamingUNet3D(),
        "cam": ConditionalAttentionModule(),
        "image_tokens": ImageTokens(),
        "image_encoder": CLIPVisionModelWithProjection(
            CLIPVisionConfig(**vision, patch_size=14, projection_dim=1024, hidden_act="gelu")
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text, projection_dim=1024, hidden_act="gelu")),
        "vae": AutoencoderKL(
            **levels, block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4
        ),
    }


def test_every_published_key_has_its_place():
    """Names and shapes of the full-size networks equal the published list."""
    published = {name: torch.empty(shape, device="meta") for name, shape in checkpoint_keys().items()}
    assert len(published) == 3407
    parts = split(published)
    with torch.device("meta"):
        networks = published_networks()
    assert set(parts) == set(networks) == set(PREFIXES.values()) > {"image_encoder", "text_encoder", "vae"}
    for part, network in networks.items():
        own = {name: tuple(x.shape) for name, x in network.state_dict().items()}
        theirs = {
            name.removeprefix("text_model.") if part == "text_encoder" else name: tuple(x.shape)
            for name, x in parts[part].items()
        }
        assert own == theirs, part
    trained = sum(x.numel() for part in ("unet", "cam", "image_tokens") for x in parts[part].values())
    assert trained == 1_480_478_804 + 621_981_664 + 22_299_904


def under(prefix, network):
    return {prefix + name: x for name, x in network.state_dict().items()}


def test_round_trip_of_the_trained_parts():
    tokens = ImageTokens(6, 5, 3, 12)
    parts = split(
        {**under("base_model.", streaming()), **under("unet.", cam()), **under("resampler.", tokens)}
    )
    fresh = {
        "unet": StreamingUNet3D.from_config(streaming().config),
        "cam": ConditionalAttentionModule(**SIZES, conditioning_channels=(4, 8)),
        "image_tokens": ImageTokens(6, 5, 3, 12),
    }
    for part, network in fresh.items():
        load_part(network, parts[part], part)
    assert torch.equal(fresh["image_tokens"](torch.ones(1, 6)), tokens(torch.ones(1, 6)))
    expected = streaming().state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in fresh["unet"].state_dict().items())
    assert JOINT["merger_head_dim"] == fresh["unet"].config.merger_head_dim


def test_unknown_keys_are_named():
    with pytest.raises(ModelError, match=r"optimizer\.step, image_encoder\.model\.visual\.strange"):
        split({"optimizer.step": torch.zeros(1), "image_encoder.model.visual.strange": torch.zeros(1)})


def test_what_does_not_fit_is_named():
    tokens = ImageTokens(6, 5, 3, 12)
    tensors = dict(tokens.state_dict())
    tensors["context_embedding.0.bias"] = torch.zeros(7)
    tensors["more"] = tensors.pop("context_embedding.2.bias")
    message = (
        r"missing: context_embedding\.2\.bias; unknown: more; of another shape: context_embedding\.0\.bias"
    )
    with pytest.raises(ModelError, match=message):
        load_part(tokens, tensors, "image_tokens")


def test_legacy_names():
    """Accept tables and attention names saved by older libraries."""
    parts = split(
        {
            "text_encoder.text_model.embeddings.position_ids": torch.arange(77),
            "vae.decoder.mid_block.attentions.0.query.weight": torch.zeros(2),
            "vae.decoder.mid_block.attentions.0.proj_attn.bias": torch.zeros(2),
            "vae.decoder.conv_in.weight": torch.zeros(2),
        }
    )
    assert parts["text_encoder"] == {}
    assert list(parts["vae"]) == [
        "decoder.mid_block.attentions.0.to_q.weight",
        "decoder.mid_block.attentions.0.to_out.0.bias",
        "decoder.conv_in.weight",
    ]


def test_text_encoder_loads_whatever_it_calls_its_level():
    encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=10
        )
    )
    tensors = {
        f"text_model.{name.removeprefix('text_model.')}": x + 1 for name, x in encoder.state_dict().items()
    }
    load_part(
        encoder,
        split({f"text_encoder.{name}": x for name, x in tensors.items()})["text_encoder"],
        "text_encoder",
    )
    assert torch.equal(next(iter(encoder.state_dict().values())), next(iter(tensors.values())))


def test_openclip_tower_computes_the_same():
    """The renamed image tower equals OpenCLIP's, written with torch's own attention."""
    tensors = openclip_tower(width=8, layers=2, patch=4, pixels=8, out=6)
    sizes = {"hidden_size": 8, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**sizes, patch_size=4, image_size=8, projection_dim=6, hidden_act="gelu")
    ).eval()
    load_part(
        model,
        split({f"image_encoder.model.{name}": x for name, x in tensors.items()})["image_encoder"],
        "image_encoder",
    )
    image = randn(2, 3, 8, 8)
    with torch.no_grad():
        assert_near(model(image).image_embeds, openclip_forward(tensors, image, heads=2, layers=2))


def openclip_tower(width, layers, patch, pixels, out):
    """Return random weights of an image tower and a text tower's leftovers."""
    shapes = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((pixels // patch) ** 2 + 1, width),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.proj": (width, out),
        **{
            f"visual.{norm}.{kind}": (width,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")
        },
        **dict.fromkeys(TEXT_LEFTOVERS, (1,)),
    }
    for layer in range(layers):
        block = f"visual.transformer.resblocks.{layer}."
        shapes |= {
            block + f"{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")
        }
        shapes |= {
            block + "attn.in_proj_weight": (3 * width, width),
            block + "attn.in_proj_bias": (3 * width,),
        }
        for name, rows, columns in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
    return {name: randn(*shape, seed=seed) * 0.3 for seed, (name, shape) in enumerate(shapes.items())}


def openclip_forward(w, image, heads, layers):
    """Return the pooled and projected embedding."""
    F = torch.nn.functional
    width = len(w["visual.class_embedding"])

    def norm(x, name):
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"])

    patches = (
        F.conv2d(image, w["visual.conv1.weight"], stride=w["visual.conv1.weight"].shape[-1])
        .flatten(2)
        .transpose(1, 2)
    )
    x = (
        torch.cat([w["visual.class_embedding"].expand(len(image), 1, -1), patches], dim=1)
        + w["visual.positional_embedding"]
    )
    x = norm(x, "visual.ln_pre")
    for layer in range(layers):
        block = f"visual.transformer.resblocks.{layer}."
        attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        attention.load_state_dict(
            {
                name.removeprefix(f"{block}attn."): x
                for name, x in w.items()
                if name.startswith(f"{block}attn.")
            }
        )
        y = norm(x, f"{block}ln_1")
        x = x + attention(y, y, y)[0]
        hidden = F.gelu(
            F.linear(norm(x, f"{block}ln_2"), w[f"{block}mlp.c_fc.weight"], w[f"{block}mlp.c_fc.bias"])
        )
        x = x + F.linear(hidden, w[f"{block}mlp.c_proj.weight"], w[f"{block}mlp.c_proj.bias"])
    return norm(x[:, 0], "visual.ln_post") @ w["visual.proj"]
