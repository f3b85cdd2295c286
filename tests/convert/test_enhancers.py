"""Test conversions of the published enhancer: a folder of its own, or the refiner of a model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import published
from streamingt2v.checkpoints.load import load
from streamingt2v.cli import main
from streamingt2v.convert.kinds import convert, refined_size
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.models.vid2vid_unet import Vid2VidUNet, check_latent_size
from toy_networks import randn


def test_vid2vid_to_a_folder_of_its_own(tmp_path):
    network = published.vid2vid()
    torch.save({"state_dict": published.vid2vid_names(network)}, tmp_path / "non_ema_0035000.pth")
    convert("vid2vid", tmp_path, tmp_path / "enhancer")
    again = Vid2VidUNet.from_pretrained(tmp_path / "enhancer" / "refiner").eval()
    sample, words = randn(1, 4, 2, 10, 8), randn(1, 5, 64, seed=1)
    with torch.no_grad():
        assert torch.equal(again(sample, 7, words).sample, network(sample, 7, words).sample)


def test_vid2vid_becomes_the_refiner_of_a_model(model, tmp_path):
    torch.save(published.vid2vid_names(published.vid2vid()), tmp_path / "x.pth")
    target = tmp_path / "model"
    target.mkdir()
    for part in model.iterdir():
        (target / part.name).write_bytes(part.read_bytes()) if part.is_file() else (
            target / part.name
        ).symlink_to(part)
    convert("vid2vid", tmp_path / "x.pth", target)
    made = load(target)
    assert isinstance(made.refiner.unet, Vid2VidUNet) and made.config.refine.strength == 0.6
    with pytest.raises(RequestError, match="has a refiner already"):
        convert("vid2vid", tmp_path / "x.pth", target)
    settings = json.loads((target / "model.json").read_text())
    (target / "model.json").write_text(
        json.dumps(settings | {"refine": settings["refine"] | {"height": 792, "width": 720}})
    )
    with pytest.raises(ModelError, match=r"refiner/config\.json: latents of 99 rows do not pass"):
        load(target)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_vid2vid_joins_only_a_model_that_has_all_it_needs(model, tmp_path):
    """A model without text, with other widths, or with a third stage is refused and unchanged."""
    torch.save(published.vid2vid_names(published.vid2vid()), tmp_path / "x.pth")
    source = tmp_path / "x.pth"
    networks = published.streaming_svd()
    names = published.streaming_svd_names({part: network.state_dict() for part, network in networks.items()})
    save_file({name: x.contiguous().clone() for name, x in names.items()}, tmp_path / "model.safetensors")
    convert("streaming-svd", tmp_path / "model.safetensors", tmp_path / "svd")
    cases = [
        (
            tmp_path / "svd",
            r"lacks what this enhancer needs: text_encoder, tokenizer, an autoencoder of .*i2vgen-xl",
        )
    ]
    for name, part, change, message in (
        (
            "words",
            "text_encoder/config.json",
            {"hidden_size": 48},
            "its text embeddings have 48 channels, the enhancer needs 64",
        ),
        (
            "latents",
            "vae/config.json",
            {"latent_channels": 8},
            "its latents have 8 channels, the enhancer needs 4",
        ),
        (
            "third",
            "model.json",
            {"refine_by": {"pipeline": "elsewhere"}},
            "refines by the pipeline in .*elsewhere already",
        ),
    ):
        folder = shutil.copytree(model, tmp_path / name)
        values = json.loads((folder / part).read_text())
        (folder / part).write_text(json.dumps(values | change))
        cases.append((folder, message))
    for folder, message in cases:
        before = everything(folder)
        with pytest.raises(RequestError, match=message):
            convert("vid2vid", source, folder)
        assert everything(folder) == before


def test_an_enhancer_of_its_own_is_joined_later(model, tmp_path):
    """The output of `convert vid2vid SRC NEW` is a source for `convert vid2vid NEW MODEL`."""
    torch.save(published.vid2vid_names(published.vid2vid()), tmp_path / "non_ema_0035000.pth")
    convert("vid2vid", tmp_path, tmp_path / "enhancer")
    target = shutil.copytree(model, tmp_path / "model")
    convert("vid2vid", tmp_path / "enhancer", target)
    weights, again = (
        load_file(folder / "refiner" / "diffusion_pytorch_model.safetensors")
        for folder in (tmp_path / "enhancer", target)
    )
    assert weights.keys() == again.keys() and all(torch.equal(x, again[name]) for name, x in weights.items())
    assert isinstance(load(target).refiner.unet, Vid2VidUNet)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((256, 256), (720, 704)),
        ((576, 1024), (720, 1280)),
        ((320, 512), (720, 1152)),
        ((1000, 1000), (1040, 1024)),
    ],
)
def test_published_sizes_are_refined_without_bars(shape, size):
    """Refine to 720 rows at the model's proportions, at the next width that passes."""
    assert refined_size(*shape, factor=8, levels=4) == size
    check_latent_size(size[0] // 8, size[1] // 8, levels=4)


def test_a_converted_enhancer_joined_to_a_model_refines_its_videos(model, tmp_path, capsys):
    """A refiner joins a square model and refines to a size that is no multiple of its own."""
    torch.save(published.vid2vid_names(published.vid2vid()), tmp_path / "non_ema_0035000.pth")
    target = shutil.copytree(model, tmp_path / "model")
    assert main(["convert", "vid2vid", str(tmp_path), str(target), "--json", "--quiet"]) == 0
    settings = json.loads((target / "model.json").read_text())
    assert (settings["refine"]["height"], settings["refine"]["width"]) == (
        720,
        720,
    )  # two levels: rows must be even, columns too
    settings |= {"height": 32, "width": 32}
    settings["extend"] |= {"frames": 4, "overlap": 2, "steps": 1}
    settings["refine"] |= {"height": 80, "width": 64, "frames": 4, "overlap": 2, "steps": 1}
    (target / "model.json").write_text(json.dumps(settings))
    line = [
        "generate",
        "A cat running on the street",
        "-o",
        str(tmp_path / "o.mp4"),
        "--model",
        str(target),
        "--frames",
        "7",
    ]
    capsys.readouterr()
    assert main([*line, "--preset", "full", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["frames"], result["height"], result["width"]) == (7, 80, 64)
    (target / "model.json").write_text(json.dumps(settings | {"refine": settings["refine"] | {"height": 84}}))
    with pytest.raises(ModelError, match=r"84 x 64 pixels: the autoencoder needs multiples of 8"):
        load(target)
