"""`get`: which files it downloads from a local hub, and that the folders load."""

import json
from pathlib import Path

import pytest
import torch

import toy_pipelines
from commands import run
from hub_server import Hub
from published_hub import put_pipeline, put_streaming_svd, put_streaming_t2v, put_vid2vid
from streamingt2v.checkpoints.find import find_model
from streamingt2v.checkpoints.load import load
from streamingt2v.checkpoints.opening import load_pipeline
from streamingt2v.checkpoints.variants import needed_files, variant_of, weight_set
from streamingt2v.config import ModelConfig
from streamingt2v.convert.obtain import order
from streamingt2v.errors import ModelError
from streamingt2v.external.abilities import read_base


def answer(capsys, *arguments) -> dict:
    code, out, err = run(capsys, "get", *arguments, "--yes", "--json")
    assert code == 0, err
    return json.loads(out.splitlines()[-1]) | {"told": err}


def test_streaming_t2v_in_one_command_and_its_third_stage_later(hub: Hub, tmp_path, capsys):
    put_streaming_t2v(hub, tmp_path)
    put_vid2vid(hub)
    with pytest.raises(
        ModelError,
        match=r"streaming-t2v is not on this machine; get it by: streamingt2v get streaming-t2v \(a download",
    ):
        find_model("streaming-t2v")
    got = answer(capsys, "streaming-t2v")
    assert got["folder"] == str(tmp_path / "home" / "models" / "streaming-t2v") and got["fetched_bytes"] > 1e6
    for words in (
        "PAIR/StreamingT2V: streaming_t2v.ckpt, ",
        "licence: cc-by-nc-4.0",
        "converted to ",
        " free in ",
    ):
        assert words in got["told"]
    assert not any(path.endswith(".bin") for path in hub.bytes_sent)
    assert load("streaming-t2v").config.name == "streaming-t2v" and find_model("PAIR/StreamingT2V") == Path(
        got["folder"]
    )
    assert (
        "is already downloaded" in (again := answer(capsys, "streaming-t2v"))["told"]
        and again["fetched_bytes"] == 0
    )
    asked = len(hub.asked)
    full = answer(capsys, "streaming-t2v", "--preset", "full")
    assert full["folder"] == got["folder"] and 0 < full["fetched_bytes"] < got["fetched_bytes"]
    assert not any("StreamingT2V" in question for question in hub.asked[asked:])
    assert load("streaming-t2v").refiner is not None


@pytest.mark.parametrize("revision", [(), ("--revision", "v1")])
def test_convert_finds_offline_what_it_fetched(hub: Hub, tmp_path, capsys, revision):
    """A revision applies to the checkpoint, not to the tokenizer."""
    put_streaming_t2v(hub, tmp_path)
    hub.repositories["PAIR/StreamingT2V"].revisions["v1"] = hub.repositories["PAIR/StreamingT2V"].commit
    line = ["convert", "streaming-t2v", "PAIR/StreamingT2V"]
    assert run(capsys, *line, tmp_path / "first", *revision)[0] == 0
    asked = len(hub.asked)
    for name, again in (("second", revision), ("third", ())):
        code, _, err = run(capsys, *line, tmp_path / name, *again, "--offline")
        assert code == 0, err
    assert len(hub.asked) == asked and load(tmp_path / "third").config.name == "streaming-t2v"


def test_half_precision_where_it_is_asked_for(hub: Hub, tmp_path, capsys):
    put_streaming_t2v(hub, tmp_path)
    folder = answer(capsys, "streaming-t2v", "--dtype", "float16")["folder"]
    from safetensors.torch import load_file

    assert {
        x.dtype for x in load_file(Path(folder) / "cam" / "diffusion_pytorch_model.safetensors").values()
    } == {torch.float16}


def test_streaming_svd_with_i2vgen_xl_as_its_enhancer(hub: Hub, tmp_path, capsys):
    put_streaming_svd(hub)
    put_pipeline(hub, "ali-vilab/i2vgen-xl", "i2vgen_xl", tmp_path)
    folder = Path(answer(capsys, "streaming-svd", "--preset", "full")["folder"])
    refine = ModelConfig.load(folder).refine_by
    assert refine is not None and (refine.frames, refine.overlap, refine.strength, refine.height) == (
        38,
        12,
        0.97,
        720,
    )
    assert (Path(refine.pipeline) / "model_index.json").is_file() and not (
        Path(refine.pipeline) / "whole.safetensors"
    ).exists()
    assert order("streaming-svd", full=True) is None and order("streaming-svd") is None


def test_bases_of_several_repositories_need_no_settings_by_hand(hub: Hub, tmp_path, capsys):
    put_pipeline(hub, "SG161222/Realistic_Vision_V5.1_noVAE", "stable_diffusion", tmp_path)
    put_pipeline(hub, "stabilityai/stable-video-diffusion-img2vid-xt", "svd", tmp_path)
    put_pipeline(hub, "stabilityai/stable-diffusion-xl-base-1.0", "stable_diffusion", tmp_path / "sdxl")
    adapter = toy_pipelines.motion_adapter(tmp_path / "adapter")
    hub.put("guoyww/animatediff-motion-adapter-v1-5-2", adapter)
    base = read_base(Path(answer(capsys, "animatediff")["folder"]))
    assert (base.steps, base.height, base.resample) == (25, 512, "nearest") and Path(
        str(base.adapter)
    ).is_dir()
    base = read_base(Path(answer(capsys, "svd-sdxl")["folder"]))
    assert (base.frames, base.height, base.fit) == (25, 576, "pad") and (
        Path(str(base.picture)) / "model_index.json"
    ).is_file()


@pytest.mark.parametrize("kind", ["modelscope", "wan", "cogvideox"])
def test_of_a_pipeline_only_what_is_needed_comes(hub: Hub, tmp_path, capsys, kind):
    put_pipeline(hub, "owner/name", kind, tmp_path, **{"unet/diffusion_pytorch_model.fp16.bin": bytes(9)})
    got = answer(capsys, "owner/name")
    folder = Path(got["folder"])
    whole = {path.relative_to(tmp_path / kind) for path in (tmp_path / kind).rglob("*") if path.is_file()}
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == whole
    assert find_model("owner/name") == folder == find_model(f"owner/name@{folder.name}")


def test_a_pipeline_that_has_only_half_precision_files_loads(hub: Hub, tmp_path, capsys):
    folder = toy_pipelines.modelscope(tmp_path / "source")
    for file in list(folder.rglob("*.safetensors")):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    hub.put("owner/half", {path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
    got = Path(answer(capsys, "owner/half")["folder"])
    assert load_pipeline(got, "cpu", torch.float32).unet.dtype == torch.float32


def test_quiet_prints_nothing_of_the_hub(hub: Hub, tmp_path, capsys):
    put_vid2vid(hub)
    code, out, err = run(capsys, "get", "vid2vid", "--yes", "--quiet")
    assert (code, err) == (0, "") and hub.bytes_sent


def test_a_damaged_index_is_told(hub: Hub, capsys):
    hub.put("owner/name", {"notes.txt": b"nothing to use"})
    code, _, err = run(capsys, "get", "owner/name", "--yes")
    assert code == 1 and "has none of the required files; see http" in err


def test_nobody_to_ask_is_an_error_that_names_yes(hub: Hub, tmp_path, capsys):
    put_vid2vid(hub)
    code, _, err = run(capsys, "get", "vid2vid")
    assert code == 2 and "NAME|ID 'vid2vid': is a download of" in err and "give --yes" in err
    assert "licence: cc-by-nc-nd-4.0" in err
    assert hub.bytes_sent == {}


@pytest.mark.parametrize("variable", ["HF_HOME", "STREAMINGT2V_HOME"])
def test_folders_are_tried_before_the_download(hub: Hub, capsys, monkeypatch, variable):
    put_vid2vid(hub)
    unwritable = Path("/proc/nowhere")
    if variable == "HF_HOME":
        monkeypatch.setattr("streamingt2v.checkpoints.hub.constants.HF_HUB_CACHE", str(unwritable))
    else:
        monkeypatch.setenv(variable, str(unwritable))
    code, _, err = run(capsys, "get", "vid2vid", "--yes")
    assert code == 2 and "cannot be written" in err and f"set {variable} to" in err, err
    assert hub.bytes_sent == {}


@pytest.mark.parametrize("answered", [True, False])
def test_it_asks_once(hub: Hub, capsys, monkeypatch, answered):
    put_vid2vid(hub)
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda text, err: asked.append(text) or answered)
    code, _, err = run(capsys, "get", "vid2vid")
    assert (code, len(asked)) == ((0, 1) if answered else (2, 1)) and asked[0].startswith("Download ")
    assert answered or "was not downloaded" in err


def test_names_that_are_none(hub: Hub, capsys):
    for name, words in (
        ("nothing", "no model 'nothing'"),
        ("owner/nothing", "no such repository"),
        ("tiny", ""),
    ):
        code, _, err = run(capsys, "get", name, "--yes")
        assert code == (0 if name == "tiny" else 2) and words in err, err


def test_room_for_download_and_conversion_is_checked_together_before(hub: Hub, tmp_path, capsys, monkeypatch):
    put_streaming_t2v(hub, tmp_path)
    size = order("streaming-t2v").missing
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": int(1.5 * size)})())
    code, _, err = run(capsys, "get", "streaming-t2v", "--yes")
    assert (
        code == 2
        and "streaming-t2v with its converted folder needs" in err
        and "HF_HOME or STREAMINGT2V_HOME" in err
    )
    assert hub.bytes_sent == {} and not (tmp_path / "home" / "models").exists()


# ---------------------------------------------------------------- which files

PLAIN, FP16 = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
BIN = "diffusion_pytorch_model.bin"
SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]
FP16_SHARDS = [
    "model.fp16-00001-of-00002.safetensors",
    "model.fp16-00002-of-00002.safetensors",
    "model.safetensors.index.fp16.json",
]


@pytest.mark.parametrize(
    ("names", "half", "chosen", "variant"),
    [
        ([PLAIN, FP16, BIN], False, [PLAIN], ""),
        ([PLAIN, FP16, BIN], True, [FP16], "fp16"),
        ([FP16], False, [FP16], "fp16"),
        ([BIN, FP16], False, [BIN], ""),
        ([BIN, FP16], True, [FP16], "fp16"),
        ([PLAIN, "diffusion_pytorch_model.non_ema.safetensors"], True, [PLAIN], ""),
        ([*SHARDS, *FP16_SHARDS, "pytorch_model.bin"], False, SHARDS, ""),
        ([*SHARDS, *FP16_SHARDS], True, FP16_SHARDS, "fp16"),
        (["pytorch_model.bin", "flax_model.msgpack", "model.onnx"], True, ["pytorch_model.bin"], ""),
    ],
)
def test_one_set_of_weights(names, half, chosen, variant):
    found = weight_set(names, half)
    assert found is not None and sorted(found.files) == sorted(chosen) and found.variant == variant


def test_parts_that_are_not_there_or_left_out_bring_nothing():
    index = {
        "_class_name": "X",
        "unet": ["diffusers", "Y"],
        "image_encoder": [None, None],
        "safety_checker": ["z", "Z"],
        "flag": True,
    }
    names = [
        "model_index.json",
        f"unet/{PLAIN}",
        f"unet/{BIN}",
        "unet/config.json",
        "safety_checker/config.json",
        "other/config.json",
    ]
    assert needed_files(names, index, False, ("safety_checker",)) == [
        "model_index.json",
        f"unet/{PLAIN}",
        "unet/config.json",
    ] or sorted(needed_files(names, index, False, ("safety_checker",))) == sorted(
        ["model_index.json", f"unet/{PLAIN}", "unet/config.json"]
    )


def test_the_variant_of_a_folder_that_has_nothing_else(tmp_path):
    folder = toy_pipelines.modelscope(tmp_path / "p")
    assert variant_of(folder) is None and variant_of(folder, half=True) is None
    (folder / "unet" / PLAIN).rename(folder / "unet" / FP16)
    assert variant_of(folder) == "fp16"
