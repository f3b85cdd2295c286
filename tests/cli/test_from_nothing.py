"""From no model to a video in one command, with a local hub of toy models in the published layouts."""

import json

import pytest
from PIL import Image

from commands import PROMPT, run
from hub_server import Hub
from published_hub import put_pipeline, put_streaming_svd, put_streaming_t2v

DEPTH = 6
"""Of the autoencoder: smaller latents, quicker networks."""


def answer(capsys, *arguments) -> dict:
    code, out, err = run(capsys, "generate", PROMPT, "--json", *arguments)
    assert code == 0, err
    return json.loads(out.splitlines()[-1]) | {"told": err}


def test_streaming_t2v(hub: Hub, tmp_path, capsys):
    put_streaming_t2v(hub, tmp_path, DEPTH)
    line = ["--model", "streaming-t2v", "--frames", "16", "--steps", "1", "-o"]
    code, _, err = run(capsys, "generate", PROMPT, *line, tmp_path / "a.mp4")
    assert code == 2 and "--model 'streaming-t2v': is a download of" in err and "give --yes" in err
    made = answer(capsys, *line, tmp_path / "a.mp4", "--yes")
    assert (made["frames"], made["width"], made["model"]) == (16, 256, "streaming-t2v")
    for words in (
        "PAIR/StreamingT2V: streaming_t2v.ckpt",
        "licence: cc-by-nc-4.0",
        "on cpu (no accelerator found) in float32",
    ):
        assert words in made["told"]
    asked = len(hub.asked)
    code, _, err = run(capsys, "generate", PROMPT, *line, tmp_path / "a.mp4")
    assert (
        code == 2 and "exists; give --overwrite" in err and len(hub.asked) == asked
    )  # downloaded files are not requested again


def test_streaming_svd_from_an_image(hub: Hub, tmp_path, capsys, monkeypatch):
    put_streaming_svd(hub)
    Image.new("RGB", (64, 36), "orange").save(tmp_path / "start.png")
    code, _, err = run(capsys, "get", "streaming-svd", "--yes")
    assert code == 0, err
    model = tmp_path / "home" / "models" / "streaming-svd" / "model.json"
    settings = json.loads(model.read_text()) | {"height": 64, "width": 64}
    settings["extend"] |= {"frames": 4, "overlap": 2, "anchor": 1}
    model.write_text(json.dumps(settings))
    made = answer(
        capsys,
        "--model",
        "streaming-svd",
        "--image",
        tmp_path / "start.png",
        "--frames",
        "6",
        "--steps",
        "1",
        "-o",
        tmp_path / "a.mp4",
    )
    assert (made["frames"], made["width"]) == (6, 64)


@pytest.mark.parametrize("kind", ["modelscope", "cogvideox"])
def test_a_base_by_its_id(hub: Hub, tmp_path, capsys, kind):
    put_streaming_t2v(hub, tmp_path, DEPTH)
    put_pipeline(hub, "owner/base", kind, tmp_path)
    line = ["--model", "streaming-t2v", "--base", "owner/base", "--frames", "16", "--steps", "1", "--yes"]
    made = answer(capsys, *line, "-o", tmp_path / "a.mp4")
    assert (
        made["frames"] == 16
        and "the base makes the first 16 frames at" in made["told"]
        and "owner/base: " in made["told"]
    )


def test_a_base_that_the_included_model_would_shrink_names_one_that_fits(hub: Hub, tmp_path, capsys):
    """Wan's class makes 832x480 by itself; the included model 64x64."""
    put_pipeline(hub, "owner/base", "wan", tmp_path)
    code, _, err = run(capsys, "generate", PROMPT, "--base", "owner/base", "--yes", "-o", tmp_path / "a.mp4")
    assert code == 2 and "but model 'tiny' continues at" in err and "--model streaming-t2v" in err
    assert not (tmp_path / "a.mp4").exists()
