"""`convert`, `models` and `plan` on the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import published
from streamingt2v.checkpoints.registry import ENTRIES
from streamingt2v.cli import main
from streamingt2v.estimate import plan as planning


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vid2vid")
    torch.save(published.vid2vid_names(published.vid2vid()), folder / "non_ema_0035000.pth")
    return folder


def test_convert_writes_a_folder_and_tells_it(checkpoint, tmp_path, capfd):
    target = tmp_path / "enhancer"
    assert main(["convert", "vid2vid", str(checkpoint), str(target), "--dtype", "float16", "--json"]) == 0
    out, err = capfd.readouterr()
    values = json.loads(out)
    assert values["output"] == str(target) and values["kind"] == "vid2vid" and values["dtype"] == "float16"
    assert values["bytes"] == sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    assert "reading" in err and "writing refiner" in err
    with safe_open(target / "refiner" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "x.ckpt", "y"], "streaming-t2v"),
        (["streaming-t2v", "x.ckpt", "y"], "SRC 'x.ckpt': there is no file x.ckpt"),
        (["vid2vid", "tiny", "y"], "SRC 'tiny': is no name of a repository"),
        (["vid2vid", "CHECKPOINT", "y", "--tokenizer", "."], "--tokenizer '.': vid2vid reads no text"),
        (["vid2vid", "CHECKPOINT", "y", "--revision", "main"], "--revision 'main'"),
        (["vid2vid", "CHECKPOINT", "CHECKPOINT"], "DST "),
        (["vid2vid", "CHECKPOINT", "/proc/y"], "DST '/proc/y': cannot be written"),
        (["vid2vid", "CHECKPOINT", "y" * 300], "use a shorter name"),
    ],
)
def test_what_is_wrong_is_said_first(checkpoint, tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    words = [str(checkpoint) if word == "CHECKPOINT" else word for word in arguments]
    assert main(["convert", *words]) == 2
    assert message in capfd.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_file_that_would_run_code_fails_with_one_line(tmp_path, capfd):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": {"a": Attack()}}, tmp_path / "x.ckpt")
    assert main(["convert", "vid2vid", str(tmp_path / "x.ckpt"), str(tmp_path / "y")]) == 1
    err = capfd.readouterr().err
    assert "contains more than tensors" in err and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ckpt"]


def test_models_lists_what_can_be_used(capfd):
    assert main(["models"]) == 0
    text = capfd.readouterr().out
    assert main(["models", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)["models"]
    assert all(entry["name"] in text and entry["licence"] in text for entry in entries)
    assert {
        "hub_id",
        "revision",
        "parameters",
        "download_bytes",
        "width",
        "height",
        "frames",
        "fps",
        "verified",
    } <= set(entries[0])


def test_plan_tells_what_is_needed(capfd):
    arguments = ["plan", "A cat running on the street", "--frames", "240", "--seconds-per-step", "0.5"]
    assert main([*arguments, "--json"]) == 0
    values = json.loads(capfd.readouterr().out)
    assert values["steps"] == 116 and 58 < values["seconds"] < 116, (
        "0.5 s a step, and the autoencoder's share"
    )
    assert values["memory"] == values["weights"] + values["working"] and values["download"] == 0
    assert main(arguments) == 0
    out = capfd.readouterr().out
    assert "memory" in out and "disk" in out and "min for 116 steps (the given seconds per step; " in out


def test_plan_counts_a_published_model_that_is_not_here(capfd, monkeypatch):
    """Parameters are counted on the meta device and match the published key list, minus unused weights."""
    monkeypatch.setattr(planning, "free_memory", lambda device: 10**12)
    line = [
        "plan",
        "a cat",
        "--model",
        "streaming-t2v",
        "--frames",
        "24",
        "--dtype",
        "float16",
        "--seconds-per-step",
        "2",
        "--json",
    ]
    assert main(line) == 0
    values = json.loads(capfd.readouterr().out)
    left_out = (
        683_800_065 - 632_076_800
    )  # of the text tower of OpenCLIP, beside the image tower (method.md: The published checkpoint)
    assert values["parameters"] == 3_232_602_140 - left_out and values["download"] == 12_930_000_000
    assert values["steps"] == 100 and values["seconds"] > 200
    assert main([*line, "--preset", "full"]) == 0
    full = json.loads(capfd.readouterr().out)
    assert full["parameters"] == values["parameters"] + 1_411_233_860 and (full["height"], full["width"]) == (
        720,
        704,
    )
    assert full["seconds"] > 2 * values["seconds"] and full["memory"] > values["memory"]
    assert main(line[:-1]) == 0
    out = capfd.readouterr().out
    assert "to download: streaming-t2v 12.9 GB" in out and "by: streamingt2v get streaming-t2v" in out


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ("24GB", "yes, it fits\n"),
        ("12 GB", "yes, it fits, with --offload model"),
        ("1GB", "no, it does not fit at any level"),
    ],
)
def test_plan_for_a_card_elsewhere_says_yes_or_no(capfd, memory, words):
    """Needs neither torch nor a device."""
    line = ["plan", "A cat", "--model", "streaming-t2v", "--preset", "full", "--memory", memory]
    assert main(line) == 0
    assert words in capfd.readouterr().out
    assert main([*line, "--json"]) == 0
    values = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (
        values["fits"] is (not words.startswith("no"))
        and values["download"] == 12_930_000_000 + 2_822_000_000
    )


def test_plan_for_a_card_elsewhere_imports_nothing_heavy():
    line = ["plan", "A cat", "--model", "streaming-t2v", "--preset", "full", "--memory", "24GB"]
    loaded = "*(name in sys.modules for name in ('torch', 'diffusers'))"
    script = f"import sys; from streamingt2v.cli import main; print(main({line!r}), {loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False False" and done.stderr == ""


def test_plan_counts_bases_and_enhancers_that_are_not_here(capfd):
    line = ["plan", "A cat", "--memory", "24GB", "--json"]
    assert main([*line, "--model", "streaming-t2v", "--base", "modelscope"]) == 0
    values = json.loads(capfd.readouterr().out.splitlines()[-1])
    base = 2 * (1_411_233_860 + 340_387_840) + 4 * 83_653_863  # the autoencoder stays in float32
    assert values["stages"]["base"] == values["weights"] + base
    assert main([*line, "--model", "streaming-svd", "--image", __file__, "--preset", "full"]) == 0
    values = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert values["stages"]["refine"] > 4_900_000_000 and values["download"] == 11_986_000_000 + 4_953_000_000
    decoding = values["stages"]["decoding"] - values["weights"]
    assert decoding == 8 * 576 * 1024 * 128 * 4 * 4, "eight frames at once"


def test_plan_for_a_card_elsewhere_knows_every_name(capfd):
    """Every model and base of the registry, by itself; enhancers are stages of their models."""
    for entry in ENTRIES:
        image = ["--image", __file__] if "--image" in entry.use or entry.name == "svd" else []
        option = ["--model", "streaming-svd"] if "svd" in entry.name else ["--model", "streaming-t2v"]
        line = option if entry.role == "enhancer" else entry.use.split()[:2]
        line = [*option, *line, *image] if entry.role == "base" else [*line, *image]
        assert main(["plan", "A cat", *line, "--memory", "80GB", "--json"]) == 0, entry.name
        values = json.loads(capfd.readouterr().out.splitlines()[-1])
        levels = [level["memory"] for level in values["levels"]]
        assert levels == sorted(levels, reverse=True) and levels[0] > 0, entry.name
        if entry.role == "model" and not entry.name.startswith("wan-2.2"):  # whose class has Wan 2.1's size
            assert (values["width"], values["height"]) == (entry.width, entry.height), entry.name


def test_plan_for_a_cpu_elsewhere_is_in_float32(capfd):
    for more in (["--device", "cpu"], ["--engine", "openvino"]):
        assert main(["plan", "A cat", "--memory", "24GB", "--json", *more]) == 0
        values = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert (values["device"], values["dtype"]) == ("cpu", "float32")


def test_doctor_tells_what_runs_here(capfd):
    assert main(["doctor", "--json"]) == 0
    values = json.loads(capfd.readouterr().out.splitlines()[-1])
    first = values["models"][0]
    assert values["device"] and (first["model"], first["fits"], first["offload"], first["here"]) == (
        "tiny",
        True,
        "none",
        True,
    )
    assert main(["doctor"]) == 0
    assert "streaming-t2v " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "i2vgen-xl"], "--image: the first chunk of 'i2vgen-xl' is made from an image; give one"),
        (["--base", "svd"], "--image: the base's clip is made from an image; give one"),
        (["--base", "wan-1.3b"], "--base 'wan-1.3b': makes 832x480, but model 'tiny' continues at 64x64"),
        (["--base", "streaming-svd"], "--base 'streaming-svd': is a whole model, so it cannot be the base"),
        (
            ["--model", "vid2vid"],
            "is an enhancer, so it cannot be the model; use it by: --model streaming-t2v",
        ),
        (["--model", "animatediff"], "is a base, so it cannot be the model; use it by: --base animatediff"),
        (["--model", ""], "--model '': no model ''"),
        (["--base", ""], "--base '': no model ''"),
        (["--memory", "24"], "--memory '24': is 24 bytes; write 24GB if those are meant"),
        (["--memory", "\uff15GB"], "must be a size"),
        (["--memory", "24GB", "--device", "gpu"], "--device 'gpu': must be auto, cpu, or one of"),
        (["--memory", "24GB", "--lora", "nowhere.safetensors"], "no such file"),
        (["--memory", "24GB", "--engine", "openvino", "--device", "cuda"], "runs on the cpu only"),
        (["--offload", "model"], "--offload 'model'"),
        (["--model", "nowhere"], "--model 'nowhere': no model"),
        (["--device", "cuda:7"], "--device 'cuda:7': there is no usable cuda device on this machine"),
        (["--memory", "much"], "--memory 'much': must be a size, such as 24GB"),
        (["--frames", "0"], "--frames 0"),
        (["--width", "7"], "--width 7"),
    ],
)
def test_plan_refuses_kindly(capfd, arguments, message):
    assert main(["plan", *arguments]) == 2
    err = capfd.readouterr().err
    assert message in err and "Traceback" not in err
