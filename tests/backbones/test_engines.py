"""Engines: what computes the networks may change, the video may not."""

from __future__ import annotations

import copy
import json
import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import forking
import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.backbones import engines
from streamingt2v.checkpoints.load import networks_of
from streamingt2v.cli import main
from streamingt2v.config import ModelConfig
from streamingt2v.config.runtime import Savings
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.jobs.settings import Settings
from streamingt2v.metrics import speed
from streamingt2v.runs.render import create_run, reload_pipeline, render
from streamingt2v.runs.run import RunFolder
from toy import write_toy_model

OPENVINO = Savings(engine="openvino")
FLAT = {
    "down_block_types": ("DownBlockSpatioTemporal",),
    "up_block_types": ("UpBlockSpatioTemporal",),
    "block_out_channels": (32,),
    "num_attention_heads": (2,),
}
"""Networks of one level: conversions take seconds for every level."""

REQUEST = Request("A cat running on the street", 9, preset="full", num_inference_steps=1, guidance_scale=2.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("models")
    write_toy_model(home / "toy", channels=(16,))
    toy_pipelines.streaming_svd(home / "svd", sizes=FLAT)
    Image.new("RGB", (40, 32), (200, 30, 30)).save(home / "red.png")
    return home


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch) -> None:
    monkeypatch.setattr(engines, "_cache", lambda: cache)


def video(pipe: LongVideoPipeline, request: Request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in pipe.stream(request)]).astype(int)


class Answers(nn.Module):
    """A network whose inputs and outputs are arranged in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], times: int, beside: dict[str, torch.Tensor | None]
    ) -> dict[str, object]:
        a, b = pair
        more = beside["more"]
        found = torch.tanh(self.layer(a) * times + b)
        return {"found": found, "both": (found + 1, found * 2 if more is None else found * more)}


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.tanh(x)
        return found, found


def flat(answer: dict) -> list[torch.Tensor]:
    return [answer["found"], *answer["both"]]


def inputs(batch: int = 2) -> tuple:
    return (torch.randn(batch, 4), torch.randn(batch, 4)), 3, {"more": None}


@pytest.mark.parametrize("model", ["toy", "svd"])
def test_openvino_makes_the_same_video(home, model):
    request = (
        REQUEST
        if model == "toy"
        else Request(REQUEST.prompt, 9, image=str(home / "red.png"), num_inference_steps=1)
    )
    own, theirs = (
        LongVideoPipeline.from_pretrained(home / model, savings=savings) for savings in (Savings(), OPENVINO)
    )
    assert np.abs(video(own, request) - video(theirs, request)).max() <= 1


def test_what_was_converted_is_read_again_and_gives_the_same_bytes(home, cache, monkeypatch):
    first = video(LongVideoPipeline.from_pretrained(home / "toy", savings=OPENVINO), REQUEST)
    assert any(cache.glob("*/model.xml")) and not any(path.name.startswith("tmp") for path in cache.iterdir())
    monkeypatch.setattr(engines, "_convert", lambda *_: pytest.fail("converted again"))
    assert np.array_equal(
        video(LongVideoPipeline.from_pretrained(home / "toy", savings=OPENVINO), REQUEST), first
    )


def test_a_run_goes_on_by_the_engine_it_began_with(home, tmp_path):
    """Stopped after its first chunk, it becomes what it would have been."""
    pipe = LongVideoPipeline.from_pretrained(home / "toy", savings=OPENVINO)
    request = pipe.resolve(replace(REQUEST, num_frames=17, preset="preview"))
    with create_run(pipe, request, tmp_path / "whole", str(home / "toy"), tmp_path / "whole.mp4") as run:
        render(pipe, run, request)
    with create_run(pipe, request, tmp_path / "run", str(home / "toy"), tmp_path / "stopped.mp4") as run:
        run.commit(next(iter(pipe.stream(request))))
    with RunFolder.open(tmp_path / "run") as run:
        again, request = reload_pipeline(run)
        assert again.components.savings == OPENVINO
        assert isinstance(again.components.backbone.unet.forward, engines.Converted)
        render(again, run, request)
    assert (tmp_path / "stopped.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_any_arrangement_of_inputs_and_answers():
    network = Answers()
    known = {batch: (given := inputs(batch), network(*given)) for batch in (2, 3)}
    more = {"more": torch.tensor(2.0)}
    multiplied = network(*known[2][0][:2], more)
    engines.take_over({"unet": network}, "openvino")
    for given, answer in known.values():
        found = network(*given)
        assert found.keys() == answer.keys() and isinstance(found["both"], tuple)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(flat(found), flat(answer), strict=True))
    pair, times, _ = known[2][0]
    assert torch.allclose(
        network(pair, times=times, beside=more)["both"][1], multiplied["both"][1], atol=1e-5
    )
    assert torch.allclose(
        network(pair, 5, {"more": None})["found"],
        Answers.forward(network, pair, 5, {"more": None})["found"],
        atol=1e-5,
    )


def test_an_answer_is_not_overwritten_by_the_next():
    network, given = Answers(), inputs()
    engines.take_over({"unet": network}, "openvino")
    first = network(*given)["found"]
    kept = first.clone()
    network(*inputs())
    assert torch.equal(first, kept)


def test_only_what_denoises_is_taken_over(home):
    made = LongVideoPipeline.from_pretrained(home / "toy", savings=OPENVINO).components
    assert {name for name, part in networks_of(made).items() if "forward" in vars(part)} == {
        "unet",
        "cam",
        "refiner",
    }


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_half_a_file_in_the_cache_is_made_again(tmp_path, monkeypatch, name):
    monkeypatch.setattr(engines, "_cache", lambda: tmp_path)
    network, given = Answers(), inputs()
    known = flat(network(*given))
    for _ in range(2):
        fresh = copy.deepcopy(network)
        engines.take_over({"unet": fresh}, "openvino")
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(flat(fresh(*given)), known, strict=True))
        (path,) = tmp_path.glob(f"*/{name}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damage_in_the_cache_is_mended_and_a_wrong_conversion_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_cache", lambda: tmp_path)
    right, given = Answers(), inputs()
    known = flat(right(*given))
    engines.take_over({"unet": right}, "openvino")
    right(*given)
    (mine,) = tmp_path.iterdir()
    other = Answers()
    with torch.no_grad():
        other.layer.weight += 1
    engines.take_over({"unet": other}, "openvino")
    other(*given)
    (theirs,) = (folder for folder in tmp_path.iterdir() if folder != mine)
    for name in ("model.xml", "model.bin"):
        (mine / name).write_bytes((theirs / name).read_bytes())
    again = copy.deepcopy(right)  # has torch's forward again
    assert all(torch.equal(a, b) for a, b in zip(flat(again(*given)), known, strict=True))
    engines.take_over({"unet": again}, "openvino")
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(flat(again(*given)), known, strict=True))
    convert = engines._convert
    monkeypatch.setattr(
        engines,
        "_convert",
        lambda _, tensors: convert(engines._Flat(other, other.forward._torch, *spread(given)), tensors),
    )
    wrong = copy.deepcopy(right)
    with torch.no_grad():
        wrong.layer.weight *= 2
    engines.take_over({"unet": wrong}, "openvino")
    with pytest.raises(ModelError, match="otherwise than torch"):
        wrong(*given)


def test_what_cannot_be_converted_is_told():
    """OpenVINO knows no network that gives one answer twice."""
    network, level = Twice(), logging.getLogger().level
    engines.take_over({"unet": network}, "openvino")
    with pytest.raises(ModelError, match=r"cannot convert Twice: .*; use --engine torch"):
        network(torch.ones(3))
    assert logging.getLogger().level == level, "warnings of others are logged no more"


def spread(given: tuple) -> tuple:
    return engines.tree_flatten((given, {}))


MODELS_COME_AND_GO = """
import os, pathlib, signal, sys, torch
from streamingt2v.backbones import engines
from streamingt2v.backbones.engines import Converted
engines._cache = lambda: pathlib.Path(sys.argv[1])
signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
networks = [Converted(torch.nn.Linear(2, 3)) for _ in range(3)]
for network in networks:
    network(torch.zeros(1, 2))
while networks:
    del network
    network = networks.pop(0)
del network
os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_is_handled_after_models_that_went_in_any_order(tmp_path):
    """OpenVINO gives a thread a stack for signals; a stale one ends the process without a word."""
    done = forking.run([sys.executable, "-c", MODELS_COME_AND_GO, tmp_path])
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr


def test_nothing_is_reported_to_anyone(home):
    LongVideoPipeline.from_pretrained(home / "toy", savings=OPENVINO)
    engines._openvino()
    assert sys.modules.get("openvino_telemetry") is None


def test_torch_compile_gives_the_same_answers(monkeypatch):
    """All of torch.compile but its C++ compiler, which takes 20 seconds."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    network, given = Answers(), inputs()
    known = flat(network(*given))
    engines.take_over({"cam": network}, "compile")
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(flat(network(*given)), known, strict=True))


@pytest.mark.parametrize(
    ("savings", "device", "dtype", "fix"),
    [
        (Savings(engine="fast"), "cpu", "float32", "must be one of torch, compile, openvino"),  # type: ignore[arg-type]
        (OPENVINO, "cuda:1", "float32", "runs on the cpu only"),
        (OPENVINO, "cpu", "bfloat16", "in float32, not in bfloat16"),
        (Savings("model", engine="compile"), "cuda", "float32", "leave one of them out"),
    ],
)
def test_what_an_engine_cannot_do_is_told_before_any_weights_are_read(home, savings, device, dtype, fix):
    with pytest.raises(RequestError, match="engine=") as caught:
        savings.check(device, ModelConfig.load(home / "toy"), dtype)
    assert fix in str(caught.value)
    Savings(engine="compile").check("cuda", ModelConfig.load(home / "toy"), "float16")


def test_without_the_package_the_command_says_what_to_install(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("streamingt2v.config.runtime.find_spec", lambda _: None)
    words = [
        "generate",
        REQUEST.prompt,
        "--model",
        str(home / "toy"),
        "--engine",
        "openvino",
        "-o",
        str(tmp_path / "o.mp4"),
        "--json",
    ]
    assert main(words) == 2
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["argument"] == "engine" and "pip install 'streamingt2v[openvino]'" in said["fix"]


def test_a_service_hands_its_savings_to_its_workers(tmp_path):
    settings = Settings(tmp_path, savings=OPENVINO)
    assert Settings.from_json(settings.to_json()) == settings and settings.configs()
    with pytest.raises(RequestError, match="engine="):
        replace(settings, dtype="float16").configs()


def test_speed_is_measured_by_the_engine_that_was_asked_for(home):
    setting = speed.Setting(str(home / "toy"), steps=1, engine="openvino")
    pipe = setting.pipeline()
    forward = pipe.components.backbone.unet.forward
    assert isinstance(forward, engines.Converted)
    speed.warm(pipe, setting, 24, watched=True)
    assert pipe.components.backbone.unet.forward is forward
