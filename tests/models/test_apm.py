"""APM: preprocessing, image tokens, and their mixing into the text."""

import pytest
import torch

from recorded import assert_near, config, golden, group
from streamingt2v.models.apm import (
    CLIP_MEAN,
    CLIP_STD,
    AppearanceAttention,
    ImageTokens,
    anchor_tokens,
    preprocess,
)
from toy_networks import randn


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_golden_tokens():
    recorded, sizes = golden("g2"), config("g2")
    dim = sizes["cross_attention_dim"]
    tokens = ImageTokens(dim, sizes["inner_dim"], sizes["num_image_tokens"], dim)
    tokens.load_state_dict(group(recorded, "weights.resampler."))
    assert_near(tokens(recorded["inputs.embed_1frame"]), recorded["outputs.tokens_1frame"])
    assert_near(
        tokens(recorded["inputs.embed_5frames_flat"].unflatten(0, (2, 5))), recorded["outputs.tokens_5frames"]
    )
    assert_near(tokens(recorded["inputs.embed_3d"]), recorded["outputs.tokens_3d"])


@pytest.mark.parametrize("name", ["attn_pos", "attn_neg"])
def test_golden_mixing(name):
    """Both signs of alpha; SiLU of a negative one is a little below 0."""
    recorded, sizes = golden("g2"), config("g2")
    attention = sizes["attn"]
    layer = AppearanceAttention(
        attention["query_dim"],
        sizes["cross_attention_dim"],
        attention["heads"],
        attention["dim_head"],
        site=0,
    )
    layer.load_state_dict(group(recorded, f"weights.{name}."))
    text, image = recorded["inputs.attn_context"].split([77, 16], dim=1)
    mixed = layer.mix(text, image)
    assert_near(mixed, recorded[f"outputs.{name}.context_mixed"])
    assert_near(
        layer(recorded["inputs.attn_hidden_states"], (layer.context(mixed),)), recorded[f"outputs.{name}.out"]
    )


def test_new_layer_ignores_the_image():
    layer = AppearanceAttention(8, 12, 2, 4, site=0, num_text_tokens=5, num_image_tokens=3)
    text = randn(2, 5, 12)
    assert torch.equal(layer.mix(text, randn(2, 3, 12, seed=1)), text)


def test_attention_mask_is_refused():
    layer = AppearanceAttention(8, 12, 2, 4, site=0)
    with pytest.raises(ValueError, match="mask"):
        layer(randn(1, 4, 8), (layer.context(randn(1, 5, 12)),), attention_mask=torch.ones(1, 5))


@pytest.mark.parametrize("name, shape", [("256", (256, 256)), ("64x96", (64, 96))])
def test_golden_preprocessing(name, shape):
    """Smaller and larger than CLIP's input; the recorded corner depends on the recorded part of the image
    only."""
    image = torch.zeros(1, 3, *shape)
    corner = golden("g2b")[f"inputs.image_{name}"]
    image[:, :, : corner.shape[2], : corner.shape[3]] = corner
    made = preprocess(image)[:, :, ::2, ::2][:, :, :14, :14]
    assert_near(made, golden("g2b")[f"outputs.pixel_values_from_{name}_every2"])


def test_preprocessing_of_the_right_size_only_normalises():
    image = randn(1, 3, 16, 16).clamp(-1, 1)
    expected = ((image + 1) / 2 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[
        :, None, None
    ]
    assert_near(preprocess(image, 16), expected)


def test_negative_tokens_are_those_of_a_grey_frame():
    tokens = ImageTokens(embed_dim=3, hidden_dim=4, num_tokens=2, token_dim=5)

    def encode(image):
        return image.mean((2, 3))

    anchor = randn(1, 3, 4, 4)
    negative, positive = anchor_tokens(encode, tokens, anchor)
    assert_near(negative, tokens(torch.zeros(1, 3)))
    assert_near(positive, tokens(encode(anchor)))
    assert negative.shape == (1, 2, 5)
