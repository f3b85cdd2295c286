"""Run `generate --model FOLDER` for every kind of model, over all stages, from text and from an image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import toy_pipelines
from streamingt2v.cli import main
from streamingt2v.config import RefineConfig
from streamingt2v.video.reader import probe_video, read_video
from toy import generate_line, write_toy_model

PROMPT = "A cat running on the street"
SEEDS = {  # the pipeline that makes the first chunk, and what model.json says of it
    "modelscope": {},
    "animatediff": {"pipeline": "../animatediff/base", "adapter": "../animatediff/adapter"},
    "svd": {"height": 16, "width": 32, "picture": "../stable_diffusion", "fit": "pad"},
    "cogvideox": {},
    "wan": {"height": 32, "width": 48},
}
MODELS = ("own-network", *SEEDS, "streaming-svd")
FRAMES = 11


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Write a three-stage model for every way to the first chunk; those with pipelines share one network."""
    home = tmp_path_factory.mktemp("models")
    write_toy_model(home / "own-network")
    settings = json.loads((home / "own-network" / "model.json").read_text())
    settings["extend"] |= {"frames": 8, "overlap": 4, "steps": 1}
    settings["refine"] |= {"frames": 8, "overlap": 2, "steps": 1}
    (home / "own-network" / "model.json").write_text(json.dumps(settings))
    toy_pipelines.stable_diffusion(home / "stable_diffusion")
    for name, values in SEEDS.items():
        getattr(toy_pipelines, name)(home / name)
        model = shutil.copytree(
            home / "own-network", home / f"model-{name}", copy_function=lambda a, b: Path(b).symlink_to(a)
        )
        (model / "model.json").unlink()
        seed = {"pipeline": f"../{name}", "steps": 1} | values
        (model / "model.json").write_text(json.dumps(settings | {"seed": seed}))
    toy_pipelines.streaming_svd(
        home / "streaming-svd", refine=RefineConfig(frames=6, overlap=2, strength=0.5, steps=2)
    )
    values = json.loads((home / "streaming-svd" / "model.json").read_text())
    values["seed"] = {"picture": "../stable_diffusion"}
    (home / "streaming-svd" / "model.json").write_text(json.dumps(values))
    Image.new("RGB", (40, 32), (200, 30, 30)).save(home / "red.png")
    return home


@pytest.mark.parametrize("start", ["text", "image"])
@pytest.mark.parametrize("preset", ["preview", "full"])
@pytest.mark.parametrize("model", MODELS)
def test_generate_makes_exactly_what_was_asked_for(home, tmp_path, capsys, model, preset, start):
    folder = home / (f"model-{model}" if model in SEEDS else model)
    out = tmp_path / "out.mp4"
    line = generate_line(folder, out, "--frames", FRAMES, "--preset", preset, "--json", "--quiet")
    assert main([*line, *(["--image", str(home / "red.png")] if start == "image" else [])]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    side = (16 if model == "streaming-svd" else 32) * (2 if preset == "full" else 1)
    assert (result["frames"], result["height"], result["width"], result["preset"]) == (
        FRAMES,
        side,
        side,
        preset,
    )
    assert sum(1 for _ in read_video(out)) == FRAMES and round(probe_video(out).fps) == result["fps"]


def test_one_pipeline_may_start_from_a_picture_alone(home, tmp_path, capsys):
    """LTX from a picture to videos, which needs one."""
    toy_pipelines.ltx_image(home / "ltx")
    (home / "ltx" / "seed.json").write_text(json.dumps({"height": 32, "width": 64, "steps": 1}))
    line = [
        "generate",
        PROMPT,
        "-o",
        str(tmp_path / "o.mp4"),
        "--model",
        str(home / "own-network"),
        "--base",
        str(home / "ltx"),
    ]
    assert (
        main(
            [
                *line,
                "--frames",
                "9",
                "--preset",
                "full",
                "--image",
                str(home / "red.png"),
                "--json",
                "--quiet",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["frames"] == 9
    assert main([*line, "--frames", "9", "--json", "--quiet", "--overwrite"]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["argument"] == "image"
