"""Test whole conversions: toy checkpoints in the published layouts become equivalent model folders."""

import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModelWithProjection

import forking
import published
from lab.tiny import text
from streamingt2v.checkpoints.load import load
from streamingt2v.checkpoints.placing import align
from streamingt2v.convert import kinds
from streamingt2v.convert.kinds import convert
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.pipeline import LongVideoPipeline
from toy_networks import randn


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@torch.no_grad()
def test_streaming_t2v_computes_what_its_networks_did(networks, model):
    made = load(model)
    backbone = made.backbone
    latents, image = randn(1, 4, 3, 8, 8), randn(1, 3, 8, 8, seed=2)
    words = randn(1, text.TEXT_LENGTH, 64, seed=1)
    tokens = networks["image_tokens"](networks["image_encoder"](image).image_embeds)
    assert torch.equal(backbone.image_tokens(backbone.image_encoder(image).image_embeds), tokens)
    frames = randn(1, 2, 3, 64, 64, seed=3)
    features = [cam(latents, 5, words, cam.encode_frames(frames)) for cam in (networks["cam"], backbone.cam)]
    outputs = [
        net(latents, 5, words, tokens, f)
        for net, f in zip((networks["unet"], backbone.unet), features, strict=True)
    ]
    assert torch.equal(*outputs) and outputs[0].std() > 0
    ids = torch.arange(text.TEXT_LENGTH)[None]
    assert torch.equal(
        made.text.encoder(ids).last_hidden_state, networks["text_encoder"](ids).last_hidden_state
    )
    assert torch.equal(
        backbone.vae.decode(latents[:, :, 0]).sample, networks["vae"].decode(latents[:, :, 0]).sample
    )


def test_streaming_t2v_has_the_published_settings(model):
    made = load(model)
    assert (
        made.config.height,
        made.config.fps,
        made.config.extend.steps,
        made.config.extend.guidance_scale,
    ) == (256, 8, 50, 7.5)
    made.scheduler.set_timesteps(50)
    assert made.scheduler.timesteps[[0, 1, -1]].tolist() == [981, 961, 1]
    assert made.scheduler.config.set_alpha_to_one is False and made.scheduler.config.clip_sample is False


def test_a_converted_model_makes_a_video(model, tmp_path):
    settings = json.loads((model / "model.json").read_text())
    small = tmp_path / "copy"
    small.mkdir()
    for part in model.iterdir():
        (small / part.name).symlink_to(part)
    (small / "model.json").unlink()
    settings |= {"height": 32, "width": 32}
    settings["extend"] |= {"frames": 4, "overlap": 2, "steps": 2}
    (small / "model.json").write_text(json.dumps(settings))
    frames = LongVideoPipeline.from_pretrained(small)("A cat running on the street", num_frames=7).frames
    assert frames.shape == (7, 32, 32, 3) and frames.std() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_another_dtype(checkpoint, tokenizer, tmp_path, dtype):
    convert("streaming-t2v", checkpoint, tmp_path / "model", dtype=dtype, tokenizer=tokenizer)
    weights = load_file(tmp_path / "model" / "cam" / "diffusion_pytorch_model.safetensors")
    assert {x.dtype for x in weights.values()} == {dtype}


def changed(checkpoint: Path, path: Path, **changes) -> Path:
    """Save the checkpoint with tensors replaced, added or (None) removed."""
    names = torch.load(checkpoint, weights_only=True)["state_dict"] | {
        name.replace("__", "."): x for name, x in changes.items()
    }
    return published.write(path, {name: x for name, x in names.items() if x is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model__conv_in__bias": None}, r"unet does not fit: missing: conv_in\.bias"),
        ({"unet__surplus": torch.zeros(1)}, r"cam does not fit: unknown: surplus"),
        ({"optimizer__step": torch.zeros(1)}, r"unknown keys in the checkpoint: optimizer\.step"),
        (
            {"base_model__conv_in__bias": torch.zeros(7)},
            r"unet does not fit: of another shape: conv_in\.bias",
        ),
        (
            {"resampler__context_embedding.0.weight": None},
            r"image_tokens does not fit: missing: context_embedding\.0\.weight",
        ),
    ],
)
def test_keys_that_do_not_fit_are_named_and_nothing_is_left(
    checkpoint, tokenizer, tmp_path, changes, message
):
    source = changed(checkpoint, tmp_path / "wrong.ckpt", **changes)
    with pytest.raises(ModelError, match=message):
        convert("streaming-t2v", source, tmp_path / "a" / "model", tokenizer=tokenizer)
    assert leftovers(tmp_path) == ["wrong.ckpt"]


def test_another_kind_is_told(checkpoint, tokenizer, tmp_path):
    for kind, message in (("vid2vid", "unknown keys"), ("streaming-svd", "unknown keys")):
        with pytest.raises(ModelError, match=message):
            convert(kind, checkpoint, tmp_path / "model")
    save_file({"first_stage_model.x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(
        ModelError, match="has no weights of unet, cam, image_encoder: it is of another kind or incomplete"
    ):
        convert("streaming-svd", tmp_path / "x.safetensors", tmp_path / "model")
    assert leftovers(tmp_path) == ["x.safetensors"]


def test_a_failure_while_writing_leaves_nothing(checkpoint, tokenizer, tmp_path, monkeypatch):
    def full(*arguments) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kinds.DDIMScheduler, "save_pretrained", full)  # the last but one thing to be written
    with pytest.raises(OSError, match="No space"):
        convert("streaming-t2v", checkpoint, tmp_path / "deep" / "model", tokenizer=tokenizer)
    assert leftovers(tmp_path) == []


def test_targets_and_sources_are_checked_first(checkpoint, tokenizer, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for kind in kinds.KINDS:
        with pytest.raises(RequestError, match="already exists; name a new folder"):
            convert(kind, tmp_path / "nothing.ckpt", tmp_path / "full")
        with pytest.raises(RequestError, match=f"give the published {kinds.FILES[kind]} or its folder"):
            convert(kind, tmp_path / "full", tmp_path / "model")
    with pytest.raises(RequestError, match="must be one of streaming-t2v"):
        convert("modelscope", checkpoint, tmp_path / "model")
    with pytest.raises(RequestError, match="the checkpoint has none; give the folder"):
        convert("streaming-t2v", checkpoint, tmp_path / "model")
    with pytest.raises(RequestError, match="no tokenizer can be read there"):
        convert("streaming-t2v", checkpoint, tmp_path / "model", tokenizer=tmp_path / "full")


def test_a_tokenizer_of_more_words_than_the_encoder_is_refused(networks, tokenizer, tmp_path):
    names = published.streaming_t2v_names(networks)
    word = next(
        name for name in names if name.endswith("token_embedding.weight") and name.startswith("text_encoder")
    )
    names[word] = names[word][:9].clone()
    with pytest.raises(RequestError, match=r"tokenizer=.* has \d+ tokens, the text encoder 9"):
        convert(
            "streaming-t2v",
            published.write(tmp_path / "x.ckpt", names),
            tmp_path / "model",
            tokenizer=tokenizer,
        )


@torch.no_grad()
def test_streaming_svd_fills_the_stock_classes(tmp_path):
    networks = published.streaming_svd()
    names = published.streaming_svd_names({part: network.state_dict() for part, network in networks.items()})
    save_file({name: x.contiguous().clone() for name, x in names.items()}, tmp_path / "model.safetensors")
    convert("streaming-svd", tmp_path, tmp_path / "model")
    for part in ("unet", "cam"):
        weights = load_file(tmp_path / "model" / part / "diffusion_pytorch_model.safetensors")
        own = networks[part].state_dict()
        assert weights.keys() == own.keys() and all(
            torch.equal(x, own[name]) for name, x in weights.items()
        ), part
    stock = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path / "model" / "unet")
    align(stock)
    given = (randn(1, 2, 8, 8, 8), 0.3, randn(1, 1, 16), torch.tensor([[6.0, 127.0, 0.02]]))
    assert torch.equal(stock(*given).sample, networks["unet"](*given))
    vae = AutoencoderKLTemporalDecoder.from_pretrained(tmp_path / "model" / "vae")
    align(vae)
    latents = randn(2, 4, 4, 4)
    assert torch.equal(
        vae.decode(latents, num_frames=2).sample, networks["vae"].decode(latents, num_frames=2).sample
    )
    vision = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "model" / "image_encoder")
    align(vision)
    assert torch.equal(
        vision(randn(1, 3, 8, 8)).image_embeds, networks["image_encoder"](randn(1, 3, 8, 8)).image_embeds
    )


def test_streaming_svd_goes_on_with_a_picture(tmp_path):
    networks = published.streaming_svd()
    names = published.streaming_svd_names({part: network.state_dict() for part, network in networks.items()})
    save_file({name: x.contiguous().clone() for name, x in names.items()}, tmp_path / "model.safetensors")
    convert("streaming-svd", tmp_path, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "model.json").read_text())
    assert settings["extend"]["anchor"] == 6 and settings["backbone"] == "svd"
    settings |= {"height": 64, "width": 64}
    settings["extend"] |= {"frames": 4, "overlap": 2, "steps": 2, "anchor": 1}
    (tmp_path / "model" / "model.json").write_text(json.dumps(settings))
    Image.new("RGB", (64, 64), "orange").save(tmp_path / "start.png")
    frames = LongVideoPipeline.from_pretrained(tmp_path / "model")(
        "anything", num_frames=7, image=str(tmp_path / "start.png")
    ).frames
    assert frames.shape == (7, 64, 64, 3)


MEASURE = """
import sys, torch
from pathlib import Path
from streamingt2v.convert import kinds
from streamingt2v.cli.video import peak_rss_mb
kinds.load_tokenizer(Path(sys.argv[3]))
before = peak_rss_mb()
source, target, tokenizer = map(Path, sys.argv[1:4])
kinds.convert("streaming-t2v", source, target, tokenizer=tokenizer, dtype=torch.float16)
print(peak_rss_mb() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's figures of memory")
def test_memory_stays_within_the_kept_tensors(checkpoint, tokenizer, tmp_path):
    """Convert 300 MB, half of them an optimizer's, with a memory growth far below all of it:
    below 1.4 times the kept half."""
    names = torch.load(checkpoint, weights_only=True)["state_dict"]
    big = "text_encoder.text_model.embeddings.token_embedding.weight"
    names[big] = torch.zeros(600_000, names[big].shape[1])  # 154 MB
    whole = {"state_dict": names, "optimizer_states": [{"exp_avg": torch.ones(600_000, 64)}]}
    torch.save(whole, tmp_path / "big.ckpt")
    kept = sum(x.numel() * x.element_size() for x in names.values()) / 2**20
    assert (tmp_path / "big.ckpt").stat().st_size > 300e6
    words = [
        sys.executable,
        "-c",
        MEASURE,
        str(tmp_path / "big.ckpt"),
        str(tmp_path / "model"),
        str(tokenizer),
    ]
    grown = float(forking.run(words, check=True).stdout.split()[-1])
    assert grown < 1.4 * kept, f"{grown:.0f} MiB for {kept:.0f} MiB of tensors"
