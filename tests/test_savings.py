"""Half precision, slices and tiles of the autoencoder, and weights off the device while they rest."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

import toy_pipelines
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.backbones.modelscope import decode_frames, encode_frames, vae_factor
from streamingt2v.checkpoints import placing
from streamingt2v.checkpoints.load import load, networks_of
from streamingt2v.checkpoints.opening import opened
from streamingt2v.cli import main
from streamingt2v.config import ModelConfig, find_model
from streamingt2v.config.runtime import Savings
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.runs.render import create_run, reload_pipeline
from streamingt2v.runs.run import RunFolder
from toy import write_toy_model

PROMPT = "A cat running on the street"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("models")
    write_toy_model(home / "toy")
    toy_pipelines.streaming_svd(home / "svd")
    toy_pipelines.modelscope(home / "base")
    Image.new("RGB", (40, 32), (200, 30, 30)).save(home / "red.png")
    return home


def request_of(home: Path, model: str) -> Request:
    """Frames of every stage that the model has."""
    return (
        Request(PROMPT, 17, preset="full", num_inference_steps=1)
        if model == "toy"
        else Request(PROMPT, 9, image=str(home / "red.png"))
    )


def video(pipe: LongVideoPipeline, request: Request) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in pipe.stream(request)]).astype(int)


@pytest.fixture(scope="module")
def plain(home) -> dict[str, np.ndarray]:
    toy, svd = (LongVideoPipeline.from_pretrained(home / name) for name in ("toy", "svd"))
    request = request_of(home, "toy")
    made = {
        name: video(toy, replace(request, num_frames=2, preset=preset))
        for name, preset in (("short", "full"), ("preview", "preview"))
    }
    return made | {"toy": video(toy, request), "svd": video(svd, request_of(home, "svd"))}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_the_whole_trip(home, plain, dtype):
    """All networks but the autoencoder are in it, also with a base; frames are close to those in float32."""
    pipe = LongVideoPipeline.from_pretrained(home / "toy", dtype=dtype)
    held = {name: {x.dtype for x in part.parameters()} for name, part in networks_of(pipe.components).items()}
    assert held.pop("vae") == {torch.float32} and all(kinds == {dtype} for kinds in held.values())
    assert 0 < np.abs(video(pipe, request_of(home, "toy")) - plain["toy"]).mean() < 8
    based = Request(PROMPT, 2, base=str(home / "base"), num_inference_steps=1)
    assert (
        0
        < np.abs(video(pipe, based) - video(LongVideoPipeline.from_pretrained(home / "toy"), based)).mean()
        < 8
    )


def test_half_precision_on_stable_video_diffusions_network(home, plain):
    pipe = LongVideoPipeline.from_pretrained(home / "svd", dtype=torch.bfloat16)
    made = video(pipe, request_of(home, "svd"))
    assert (
        made.shape == plain["svd"].shape
        and made.std() > 1
        and np.corrcoef(made.ravel(), plain["svd"].ravel())[0, 1] > 0.8
    )


def test_a_network_that_overflows_is_told(home):
    """The weights of this toy are too large for float16."""
    with pytest.raises(
        ModelError, match=r"contain NaN or infinity: the dtype overflows; use bfloat16 or float32"
    ):
        video(LongVideoPipeline.from_pretrained(home / "svd", dtype=torch.float16), request_of(home, "svd"))


def test_sliced_is_whole(home, plain, monkeypatch):
    counts = []
    decode = AutoencoderKL._decode
    monkeypatch.setattr(
        AutoencoderKL,
        "_decode",
        lambda vae, z, *more, **named: counts.append(len(z)) or decode(vae, z, *more, **named),
    )
    sliced = video(
        LongVideoPipeline.from_pretrained(home / "toy", savings=Savings(vae_slicing=True)),
        request_of(home, "toy"),
    )
    assert set(counts) == {1} and np.abs(sliced - plain["toy"]).max() <= 1


def test_tiled_is_close():
    """With the included autoencoder, a picture of two tiles a side."""
    vae = AutoencoderKL.from_pretrained(find_model("tiny") / "vae").eval()
    rows, columns = torch.linspace(-1, 1, 128)[:, None], torch.linspace(-1, 1, 128)[None]
    picture_TCHW = torch.stack([rows.expand(128, 128), columns.expand(128, 128), (rows * columns * 9).sin()])[
        None
    ]
    latents_BCTHW = encode_frames(vae, picture_TCHW, CPU)
    whole_TCHW = decode_frames(vae, latents_BCTHW, CPU)
    vae.tile_sample_min_size, vae.tile_latent_min_size = 64, 64 // vae_factor(vae)
    assert torch.equal(decode_frames(vae, latents_BCTHW, CPU), whole_TCHW), (
        "tiles are asked for, not a matter of size"
    )
    placing.save_in_vae(vae, Savings(vae_tiling=True))
    tiled_TCHW = decode_frames(vae, latents_BCTHW, CPU)
    errors = [float((frames_TCHW - picture_TCHW).abs().mean()) for frames_TCHW in (whole_TCHW, tiled_TCHW)]
    assert tiled_TCHW.shape == whole_TCHW.shape and errors[0] != errors[1] < 0.12
    assert (
        encode_frames(vae, picture_TCHW, CPU) - latents_BCTHW
    ).abs().mean() < 0.1 * latents_BCTHW.abs().mean()


def test_tiles_are_for_frames_larger_than_one(home, plain):
    """As refined ones are here."""
    pipe = LongVideoPipeline.from_pretrained(home / "toy", savings=Savings(vae_tiling=True))
    vae = pipe.components.backbone.vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 4
    request = request_of(home, "toy")
    refined, preview = (
        video(pipe, replace(request, num_frames=2, preset=preset)) for preset in ("full", "preview")
    )
    assert refined.shape == (2, 64, 64, 3) and not np.array_equal(refined, plain["short"])
    assert np.array_equal(preview, plain["preview"])


def test_a_pipeline_without_its_refiner(home, tmp_path):
    """It makes the same bytes; what needs the refiner is refused, and nothing is saved."""
    request = Request(PROMPT, 17, num_inference_steps=1)
    whole, pipe = (
        LongVideoPipeline.from_pretrained(home / "toy", refiner=refiner) for refiner in (True, False)
    )
    assert np.array_equal(video(pipe, request), video(whole, request))
    assert len(networks_of(pipe.components)) == 6 and "refiner" not in networks_of(pipe.components)
    with pytest.raises(RequestError, match="loaded without its refiner"):
        pipe.stream(replace(request, preset="full"))
    with pytest.raises(ModelError, match="loaded without its refiner"):
        pipe.save_pretrained(tmp_path / "again")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["preview", "full"])
def test_a_run_loads_what_its_preset_needs(home, tmp_path, preset):
    whole, request = (
        LongVideoPipeline.from_pretrained(home / "toy"),
        replace(request_of(home, "toy"), preset=preset),
    )
    with create_run(whole, whole.resolve(request), tmp_path / "run", str(home / "toy")) as run:
        assert (reload_pipeline(run)[0].components.refiner is not None) == (preset == "full")


def test_a_base_gets_the_same_savings(home):
    with opened(
        str(home / "base"), "cpu", torch.float32, savings=Savings(vae_slicing=True, vae_tiling=True)
    ) as pipe:
        assert pipe.vae.use_slicing and pipe.vae.use_tiling
    with opened(str(home / "base"), "cpu", torch.float32) as pipe:
        assert not pipe.vae.use_slicing and not pipe.vae.use_tiling


@pytest.mark.parametrize("model", ["toy", "svd"])
def test_layer_by_layer_every_weight_is_brought_in_time(home, plain, tmp_path, monkeypatch, model):
    """With idle weights on the disk, a weight that no hook loads would be random memory."""
    made, apply = load(home / model), placing.apply_group_offloading
    for name, network in networks_of(
        made
    ).items():  # files are named by layers, so each network needs a folder
        monkeypatch.setattr(
            placing, "apply_group_offloading", partial(apply, offload_to_disk_path=str(tmp_path / name))
        )
        placing.offload({name: network}, CPU, Savings("group"))
    assert any(tmp_path.iterdir())
    # weights mapped from these files begin at odd addresses, see `placing.align`: the last bits may differ
    difference = video(LongVideoPipeline(made), request_of(home, model)).astype(int) - plain[model]
    assert np.abs(difference).max() <= 1 and np.abs(difference).mean() < 0.01


@pytest.mark.parametrize("model", ["toy", "svd"])
def test_network_by_network_those_that_work_are_there_and_no_others(home, plain, monkeypatch, model):
    made = load(home / model)
    networks = networks_of(made)
    together = offloaded(networks, monkeypatch)
    assert np.array_equal(video(LongVideoPipeline(made), request_of(home, model)), plain[model])
    assert {name for group in together for name in group} == set(networks), "all of them have worked"
    assert {group for group in together if len(group) > 1} == {frozenset({"unet", "cam"})}


def offloaded(networks: dict[str, torch.nn.Module], monkeypatch) -> set[frozenset[str]]:
    """Offloads them, network by network, and tells which were there at the same time, as soon as they work.

    Moves are recorded instead of a second device; layers of a network that is not there may not compute.
    """
    device, there, most = torch.device("meta"), set(), set()

    def move(network: torch.nn.Module, place: torch.device) -> None:
        name = next(name for name, other in networks.items() if other is network)
        there.add(name) if place == device else there.discard(name)
        most.add(frozenset(there))

    def check(name: str) -> None:
        assert name in there, f"{name} works and is not on the device"

    monkeypatch.setattr(placing, "move", move)
    placing.offload(networks, device, Savings("model"))
    for name, network in networks.items():
        for layer in list(network.modules())[1:]:
            layer.register_forward_pre_hook(lambda module, arguments, name=name: check(name))
    return most


def test_a_base_is_offloaded_by_diffusers_own_hooks(home):
    with opened(str(home / "base"), "cpu", torch.float32) as pipe:
        plain = pipe(
            "a cat",
            num_frames=2,
            num_inference_steps=1,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).frames
    with opened(str(home / "base"), "cpu", torch.float32, savings=Savings("group")) as pipe:
        assert hasattr(pipe.unet, "_diffusers_hook") or any(
            hasattr(m, "_diffusers_hook") for m in pipe.unet.modules()
        )
        saved = pipe(
            "a cat",
            num_frames=2,
            num_inference_steps=1,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).frames
    assert np.array_equal(plain, saved)


def test_an_offloaded_model_is_saved_whole(home, plain, tmp_path):
    made = load(home / "toy")
    placing.offload(networks_of(made), CPU, Savings("group"))
    LongVideoPipeline(made).save_pretrained(tmp_path / "again", torch.float32)
    again = LongVideoPipeline.from_pretrained(tmp_path / "again")
    assert np.array_equal(video(again, replace(request_of(home, "toy"), num_frames=2)), plain["short"])


def test_a_run_goes_on_with_the_savings_it_began_with(home, tmp_path):
    pipe = LongVideoPipeline.from_pretrained(home / "toy", savings=Savings(vae_tiling=True))
    with create_run(pipe, pipe.resolve(Request(PROMPT, 17)), tmp_path / "run", str(home / "toy")) as run:
        assert run.header.savings == Savings(vae_tiling=True)
    with RunFolder.open(tmp_path / "run") as run:
        assert reload_pipeline(run)[0].components.backbone.vae.use_tiling
    head = json.loads((tmp_path / "run" / "request.json").read_text())
    del head["savings"]  # as runs had it before
    (tmp_path / "run" / "request.json").write_text(json.dumps(head))
    with RunFolder.open(tmp_path / "run") as run:
        assert run.header.savings == Savings()


@pytest.mark.parametrize("savings", [Savings("model"), Savings("group"), Savings("disk")])  # type: ignore[arg-type]
def test_offloading_needs_a_device_to_be_off(home, savings):
    with pytest.raises(RequestError, match="offload="):
        load(home / "toy", savings=savings)
    if savings.offload != "disk":
        savings.check("cuda:1", ModelConfig.load(home / "toy"))


def test_the_command_line_refuses_what_has_no_effect_and_uses_the_rest(home, tmp_path, capsys):
    def run(*words: str) -> int:
        return main(
            [
                "generate",
                PROMPT,
                "-o",
                str(tmp_path / "o.mp4"),
                "--frames",
                "2",
                "--json",
                "--quiet",
                "--overwrite",
                *words,
            ]
        )

    for words, argument in (
        (("--offload", "group"), "offload"),
        (("--model", str(home / "svd"), "--vae-tiling"), "vae_tiling"),
    ):
        assert run("--image", str(home / "red.png"), *words) == 2
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["argument"] == argument
    assert run("--model", str(home / "toy"), "--vae-slicing", "--dtype", "bfloat16", "--steps", "1") == 0
