"""Names and shapes in `model.safetensors` of PAIR/StreamingSVD, from its published configuration.

SVD-XT's sizes in the structure of Stability's classes; independent of diffusers and of this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

Shape = tuple[int, ...]
Keys = Iterator[tuple[str, Shape]]

CHANNELS, MULT, BLOCKS, CONTEXT, ADDED, TIME = 320, (1, 2, 4, 4), 2, 1024, 768, 1280
ATTENDS = (True, True, True, False)
CAM_CHANNELS = (32, 96, 256, 512)
VAE, VAE_MULT, LATENT = 128, (1, 2, 4, 4), 4


def streaming_svd_keys() -> dict[str, Shape]:
    """Every key of the file."""
    found: dict[str, Shape] = {}
    for prefix, keys in (
        ("model.diffusion_model.", _unet()),
        ("controlnet.", _cam()),
        ("conditioner.embedders.0.open_clip.model.", _open_clip()),
        ("conditioner.embedders.3.encoder.", _image_autoencoder()),
        ("first_stage_model.", _video_autoencoder()),
    ):
        found |= {prefix + name: shape for name, shape in keys}
    return found


def _layer(name: str, *shape: int, bias: bool = True) -> Keys:
    """Weight of a linear layer or a convolution, and its bias."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def _norm(name: str, channels: int) -> Keys:
    yield from _layer(name, channels)


def _unet() -> Keys:
    yield from _encoder()
    channels = [CHANNELS, *(CHANNELS * MULT[level] for level in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3))]
    skips, current, index = list(channels), CHANNELS * MULT[-1], 0
    for level in reversed(range(len(MULT))):
        wide = CHANNELS * MULT[level]
        for block in range(BLOCKS + 1):
            name = f"output_blocks.{index}"
            yield from _resnet(f"{name}.0", current + skips.pop(), wide)
            current = wide
            if ATTENDS[level]:
                yield from _transformer(f"{name}.1", wide)
            if level and block == BLOCKS:
                yield from _layer(f"{name}.{1 + ATTENDS[level]}.conv", wide, wide, 3, 3)
            index += 1
    yield from _norm("out.0", CHANNELS)
    yield from _layer("out.2", 4, CHANNELS, 3, 3)
    for place, wide in enumerate(channels):
        yield from _merger(f"cross_attention_merger_input_blocks.{place}", wide)
    yield from _merger("cross_attention_merger_mid_block", CHANNELS * MULT[-1])


def _cam() -> Keys:
    yield from _encoder()
    inside = "controlnet_cond_embedding"
    yield from _layer(f"{inside}.conv_in", CAM_CHANNELS[0], 3, 3, 3)
    for place, (wide, following) in enumerate(pairwise(CAM_CHANNELS)):
        yield from _layer(f"{inside}.blocks.{2 * place}", wide, wide, 3, 3)
        yield from _layer(f"{inside}.blocks.{2 * place + 1}", following, wide, 3, 3)
        yield from _norm(f"{inside}.norms.{2 * place}", wide)
        yield from _norm(f"{inside}.norms.{2 * place + 1}", following)
    yield from _layer(f"{inside}.conv_out", CHANNELS, CAM_CHANNELS[-1], 3, 3)


def _encoder() -> Keys:
    """VideoUNet up to its middle."""
    yield from _layer("time_embed.0", TIME, CHANNELS)
    yield from _layer("time_embed.2", TIME, TIME)
    yield from _layer("label_emb.0.0", TIME, ADDED)
    yield from _layer("label_emb.0.2", TIME, TIME)
    yield from _layer("input_blocks.0.0", CHANNELS, 8, 3, 3)
    current, index = CHANNELS, 1
    for level, times in enumerate(MULT):
        for _ in range(BLOCKS):
            yield from _resnet(f"input_blocks.{index}.0", current, CHANNELS * times)
            current = CHANNELS * times
            if ATTENDS[level]:
                yield from _transformer(f"input_blocks.{index}.1", current)
            index += 1
        if level < len(MULT) - 1:
            yield from _layer(f"input_blocks.{index}.0.op", current, current, 3, 3)
            index += 1
    yield from _resnet("middle_block.0", current, current)
    yield from _transformer("middle_block.1", current)
    yield from _resnet("middle_block.2", current, current)


def _resnet(name: str, incoming: int, outgoing: int) -> Keys:
    """VideoResBlock: in space, in time (kernel 3, 1, 1), and how they are mixed."""
    for inside, first, kernel in (("", incoming, (3, 3)), (".time_stack", outgoing, (3, 1, 1))):
        yield from _norm(f"{name}{inside}.in_layers.0", first)
        yield from _layer(f"{name}{inside}.in_layers.2", outgoing, first, *kernel)
        yield from _layer(f"{name}{inside}.emb_layers.1", outgoing, TIME)
        yield from _norm(f"{name}{inside}.out_layers.0", outgoing)
        yield from _layer(f"{name}{inside}.out_layers.3", outgoing, outgoing, *kernel)
    if incoming != outgoing:
        yield from _layer(f"{name}.skip_connection", outgoing, incoming, 1, 1)
    yield f"{name}.time_mixer.mix_factor", (1,)


def _transformer(name: str, channels: int) -> Keys:
    """SpatialVideoTransformer with linear projections, one block in space and one in time."""
    yield from _norm(f"{name}.norm", channels)
    yield from _layer(f"{name}.proj_in", channels, channels)
    yield from _attention_block(f"{name}.transformer_blocks.0", channels)
    yield from _layer(f"{name}.proj_out", channels, channels)
    yield from _norm(f"{name}.time_stack.0.norm_in", channels)
    yield from _feed_forward(f"{name}.time_stack.0.ff_in", channels)
    yield from _attention_block(f"{name}.time_stack.0", channels)
    yield from _layer(f"{name}.time_pos_embed.0", 4 * channels, channels)
    yield from _layer(f"{name}.time_pos_embed.2", channels, 4 * channels)
    yield f"{name}.time_mixer.mix_factor", (1,)


def _attention_block(name: str, channels: int) -> Keys:
    for attention, source in (("attn1", channels), ("attn2", CONTEXT)):
        yield from _layer(f"{name}.{attention}.to_q", channels, channels, bias=False)
        yield from _layer(f"{name}.{attention}.to_k", channels, source, bias=False)
        yield from _layer(f"{name}.{attention}.to_v", channels, source, bias=False)
        yield from _layer(f"{name}.{attention}.to_out.0", channels, channels)
    yield from _feed_forward(f"{name}.ff", channels)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{name}.{norm}", channels)


def _feed_forward(name: str, channels: int) -> Keys:
    yield from _layer(f"{name}.net.0.proj", 8 * channels, channels)
    yield from _layer(f"{name}.net.2", channels, 4 * channels)


def _merger(name: str, channels: int) -> Keys:
    inside = f"{name}.temporal_transformer"
    yield from _norm(f"{inside}.norm", channels)
    yield from _layer(f"{inside}.proj_in", channels, channels)
    for part in ("to_q", "to_k", "to_v"):
        yield from _layer(f"{inside}.attention.{part}", channels, channels, bias=False)
    yield from _layer(f"{inside}.attention.to_out.0", channels, channels)
    yield from _layer(f"{inside}.proj_out", channels, channels)


def _open_clip() -> Keys:
    """ViT-H/14's image tower, and what is left of the text tower without its transformer."""
    width, hidden, projection = 1280, 5120, 1024
    yield "visual.class_embedding", (width,)
    yield "visual.positional_embedding", (257, width)
    yield "visual.proj", (width, projection)
    yield "visual.conv1.weight", (width, 3, 14, 14)
    yield from _norm("visual.ln_pre", width)
    yield from _norm("visual.ln_post", width)
    for layer in range(32):
        name = f"visual.transformer.resblocks.{layer}"
        yield from _norm(f"{name}.ln_1", width)
        yield f"{name}.attn.in_proj_weight", (3 * width, width)
        yield f"{name}.attn.in_proj_bias", (3 * width,)
        yield from _layer(f"{name}.attn.out_proj", width, width)
        yield from _norm(f"{name}.ln_2", width)
        yield from _layer(f"{name}.mlp.c_fc", hidden, width)
        yield from _layer(f"{name}.mlp.c_proj", width, hidden)
    yield "positional_embedding", (77, projection)
    yield "text_projection", (projection, projection)
    yield "logit_scale", ()
    yield "token_embedding.weight", (49408, projection)
    yield from _norm("ln_final", projection)


def _image_autoencoder() -> Keys:
    """What the condition's picture is encoded by: Stable Diffusion's, all of it."""
    yield from _vae_encoder()
    yield from _layer("quant_conv", 2 * LATENT, 2 * LATENT, 1, 1)
    yield from _layer("post_quant_conv", LATENT, LATENT, 1, 1)
    yield from _vae_decoder(video=False)


def _video_autoencoder() -> Keys:
    yield from _vae_encoder()
    yield from _vae_decoder(video=True)


def _vae_encoder() -> Keys:
    yield from _layer("encoder.conv_in", VAE, 3, 3, 3)
    current = VAE
    for level, times in enumerate(VAE_MULT):
        for block in range(2):
            yield from _vae_resnet(f"encoder.down.{level}.block.{block}", current, VAE * times)
            current = VAE * times
        if level < len(VAE_MULT) - 1:
            yield from _layer(f"encoder.down.{level}.downsample.conv", current, current, 3, 3)
    yield from _vae_middle("encoder.mid", current, video=False)
    yield from _norm("encoder.norm_out", current)
    yield from _layer("encoder.conv_out", 2 * LATENT, current, 3, 3)


def _vae_decoder(video: bool) -> Keys:
    current = VAE * VAE_MULT[-1]
    yield from _layer("decoder.conv_in", current, LATENT, 3, 3)
    yield from _vae_middle("decoder.mid", current, video)
    for level in reversed(range(len(VAE_MULT))):
        for block in range(3):
            yield from _vae_resnet(f"decoder.up.{level}.block.{block}", current, VAE * VAE_MULT[level], video)
            current = VAE * VAE_MULT[level]
        if level:
            yield from _layer(f"decoder.up.{level}.upsample.conv", current, current, 3, 3)
    yield from _norm("decoder.norm_out", current)
    yield from _layer("decoder.conv_out", 3, current, 3, 3)
    if video:
        yield from _layer("decoder.conv_out.time_mix_conv", 3, 3, 3, 1, 1)


def _vae_middle(name: str, channels: int, video: bool) -> Keys:
    yield from _vae_resnet(f"{name}.block_1", channels, channels, video)
    yield from _norm(f"{name}.attn_1.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        yield from _layer(f"{name}.attn_1.{part}", channels, channels, 1, 1)
    yield from _vae_resnet(f"{name}.block_2", channels, channels, video)


def _vae_resnet(name: str, incoming: int, outgoing: int, video: bool = False) -> Keys:
    yield from _norm(f"{name}.norm1", incoming)
    yield from _layer(f"{name}.conv1", outgoing, incoming, 3, 3)
    yield from _norm(f"{name}.norm2", outgoing)
    yield from _layer(f"{name}.conv2", outgoing, outgoing, 3, 3)
    if incoming != outgoing:
        yield from _layer(f"{name}.nin_shortcut", outgoing, incoming, 1, 1)
    if video:  # no embedding of the time: the decoder has none
        for part, place in (("in_layers", 0), ("out_layers", 0)):
            yield from _norm(f"{name}.time_stack.{part}.{place}", outgoing)
            yield from _layer(
                f"{name}.time_stack.{part}.{2 if part == 'in_layers' else 3}", outgoing, outgoing, 3, 1, 1
            )
        yield f"{name}.mix_factor", (1,)
