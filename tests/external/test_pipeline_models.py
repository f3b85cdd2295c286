"""A folder of a diffusers pipeline as a model: the whole trip with the real classes at toy size,
saved and loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy_bases
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.cli import main
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.external.as_model import pipeline_model, read_model
from streamingt2v.resolve import resolve, with_media
from streamingt2v.runs.state import pack_state, unpack_state
from streamingt2v.video.reader import read_video
from streamingt2v.video.writer import write_video
from toy import collect

PROMPT = "A cat running on the street"
NAMES = ("wan", "ltx", "wan_image", "anyflow", "cogvideox", "skyreels_df")
FRAMES = {"wan": 9, "ltx": 9, "wan_image": 9, "anyflow": 9, "cogvideox": 9, "skyreels_df": 9}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("pipelines")
    for name in NAMES:
        toy_bases.model_folder(name, home / name, (9, 5))
    from PIL import Image

    Image.new("RGB", (48, 32), (200, 90, 30)).save(home / "image.png")
    return home


def request_of(home: Path, name: str, frames: int, **more) -> Request:
    image = str(home / "image.png") if toy_bases.TOYS[name].image else None
    return Request(PROMPT, frames, image=image, **more)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", [1, 17, 30])
def test_exact_counts(home, name, frames):
    chunks = list(LongVideoPipeline.from_pretrained(home / name).stream(request_of(home, name, frames)))
    assert collect(chunks).shape == (frames, *toy_bases.TOYS[name].size, 3) and chunks[-1].final


@pytest.mark.parametrize("name", NAMES)
def test_resumed_after_every_chunk_the_frames_are_the_same(home, name):
    request = request_of(home, name, 17)
    chunks = list(LongVideoPipeline.from_pretrained(home / name).stream(request))
    whole = collect(chunks)
    for number, chunk in enumerate(chunks[:-1]):
        rest = LongVideoPipeline.from_pretrained(home / name).stream(
            request, unpack_state(pack_state(chunk.state))
        )
        assert np.array_equal(collect([*chunks[: number + 1], *rest]), whole)


def test_81_frames_in_a_state_that_does_not_grow(home):
    chunks = list(LongVideoPipeline.from_pretrained(home / "wan").stream(request_of(home, "wan", 81)))
    sizes = [len(pack_state(chunk.state)) for chunk in chunks[1:]]
    assert sum(len(chunk.frames) for chunk in chunks) == 81 and max(sizes) - min(sizes) < 64


def test_a_scheduled_prompt_changes_what_follows_and_nothing_before(home):
    pipe = LongVideoPipeline.from_pretrained(home / "cogvideox")
    plain = collect(pipe.stream(Request(PROMPT, 17, guidance_scale=4.0)))
    story = collect(
        pipe.stream(
            Request(PROMPT, 17, guidance_scale=4.0, schedule=((9, "A whale floating in the deep sea"),))
        )
    )
    assert np.array_equal(plain[:9], story[:9]) and not np.array_equal(plain[9:], story[9:])


def test_a_chunk_is_cancelled_within(home):
    seen: list[int] = []

    def stop(step: int, steps: int, stage: str) -> None:
        seen.append(step)
        if len(seen) == 3:  # of the second chunk's first step
            raise KeyboardInterrupt

    stream = LongVideoPipeline.from_pretrained(home / "wan").stream(Request(PROMPT, 17), on_step=stop)
    assert len(next(stream).frames)
    with pytest.raises(KeyboardInterrupt):
        next(stream)


def test_from_the_command_line_stopped_and_resumed_to_the_same_file(home, tmp_path, capsys, monkeypatch):
    whole, stopped = tmp_path / "whole.mp4", tmp_path / "stopped.mp4"
    command = ["generate", PROMPT, "--model", str(home / "wan"), "--frames", "21", "--quiet"]
    assert main([*command, "-o", str(whole)]) == 0
    from streamingt2v.stages.extend_by_pipeline import PipelineExtendStage

    made = PipelineExtendStage.next
    calls: list[int] = []

    def interrupted(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return made(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(PipelineExtendStage, "next", interrupted)
        assert main([*command, "-o", str(stopped)]) == 130
    assert main(["resume", str(tmp_path / "stopped.run"), "--quiet"]) == 0
    assert stopped.read_bytes() == whole.read_bytes()


def test_a_users_clip_is_extended(home, tmp_path):
    clip, longer = tmp_path / "clip.mp4", tmp_path / "longer.mp4"
    assert (
        main(["generate", PROMPT, "--model", str(home / "ltx"), "--frames", "12", "-o", str(clip), "--quiet"])
        == 0
    )
    assert (
        main(
            [
                "extend",
                str(clip),
                PROMPT,
                "--model",
                str(home / "ltx"),
                "--frames",
                "8",
                "-o",
                str(longer),
                "--quiet",
            ]
        )
        == 0
    )
    assert sum(1 for _ in read_video(longer)) == 20


def test_a_batch_makes_what_single_runs_make(home, tmp_path):
    table, model = tmp_path / "table.jsonl", str(home / "wan")
    rows = [{"name": name, "prompt": PROMPT, "frames": 12, "seed": seed} for seed, name in enumerate("ab")]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["batch", str(table), "-o", str(tmp_path / "out"), "--model", model, "--quiet"]) == 0
    single = ["generate", PROMPT, "--frames", "12", "--seed", "1", "--model", model, "--quiet"]
    assert main([*single, "-o", str(tmp_path / "b.mp4")]) == 0
    assert (tmp_path / "out" / "b.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "out" / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


@pytest.mark.slow
def test_a_server_makes_what_single_runs_make(home, tmp_path, service_of):
    with service_of(home / "wan") as service:
        job = service.wait(service.submit(Request(PROMPT, 12, seed=1)).id)
        single = [
            "generate",
            PROMPT,
            "--frames",
            "12",
            "--seed",
            "1",
            "--model",
            str(home / "wan"),
            "--quiet",
        ]
        assert main([*single, "-o", str(tmp_path / "b.mp4")]) == 0
        made = [list(read_video(path)) for path in (service.video(job.id), tmp_path / "b.mp4")]
        assert np.array_equal(*made) and len(made[0]) == 12


@pytest.fixture
def service_of(tmp_path):
    """Return a function: a service with one model and a real worker."""
    from contextlib import contextmanager

    from streamingt2v.jobs.service import JobService
    from streamingt2v.jobs.settings import Settings

    @contextmanager
    def start(model: Path):
        with JobService(Settings(tmp_path / "service", (str(model),))) as service:
            service.wait_until_ready()
            yield service

    return start


def test_a_pipelines_own_facts_make_its_configuration(tmp_path):
    folder = toy_bases.saved("wan", tmp_path / "wan")
    found, config = read_model(folder)
    assert found == folder and config.backbone == "pipeline"
    assert (config.height, config.width, config.fps) == (480, 832, 16)
    assert config.extend.frames == 81 and config.extend.overlap % 4 == 1 and config.extend.crossfade == 4
    assert (config.extend.overlap - config.extend.crossfade) % 4 == 1, "what is held is whole latents"


@pytest.mark.parametrize(
    ("kind", "network", "made"),
    [
        ("LTX2Pipeline", {}, (121, 512, 768, 24)),
        ("MochiPipeline", {}, (19, 480, 848, 30)),
        ("HunyuanVideo15Pipeline", {"target_size": 960}, (121, 720, 1280, 24)),
        (
            "CogVideoXPipeline",
            {"sample_frames": 49, "sample_height": 60, "sample_width": 90},
            (49, 480, 720, 8),
        ),
        ("TextToVideoSDPipeline", {"sample_size": 32}, (16, 256, 256, 8)),
    ],
)  # fmt: skip
def test_frames_size_and_rate_are_what_a_class_makes_by_itself(tmp_path, kind, network, made):
    """Where a signature says None, the class decides within its call."""
    for part, values in (("transformer", network), ("vae", {"block_out_channels": [8] * 4})):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(values))
    config = pipeline_model(toy_bases.folder_of(tmp_path, kind))
    assert (config.extend.frames, config.height, config.width, config.fps) == made


def test_sizes_are_free_within_what_networks_pack(home):
    config = read_model(home / "wan")[1]
    assert resolve(config, Request(PROMPT, 9, width=64, height=48)).output_size == (48, 64)
    with pytest.raises(RequestError, match="multiples of 16; set 48 or 64"):
        resolve(config, Request(PROMPT, 9, width=50, height=48))
    pipe = LongVideoPipeline.from_pretrained(home / "wan")
    assert collect(pipe.stream(Request(PROMPT, 9, width=48, height=32))).shape == (9, 32, 48, 3)


def test_a_clip_is_extended_in_its_own_shape_up_to_the_pipelines_area(home, tmp_path):
    config = replace(read_model(home / "wan")[1], height=64, width=64)

    def size_of(rows: int, columns: int, config=config, **more) -> tuple[int, int]:
        clip = str(tmp_path / "clip.mkv")
        write_video(clip, [np.full((rows, columns, 3), 9, np.uint8)] * 3, 8)
        asked = with_media(resolve(config, Request(PROMPT, 9, video=clip, **more)))
        assert resolve(config, asked.request).output_size == asked.output_size and asked.fps == 8
        return asked.output_size

    assert size_of(32, 96) == (32, 96) and size_of(40, 100) == (32, 96)
    assert size_of(128, 128) == (64, 64) and size_of(64, 256) == (32, 128)
    assert size_of(32, 96, width=48, height=64) == (64, 48), "as asked"
    own = replace(config, extend_by=replace(config.extend_by, free_size=False))
    assert size_of(32, 96, own) == (64, 64)
    with pytest.raises(RequestError, match=r"width=96.*makes 64"):
        resolve(own, Request(PROMPT, 9, width=96))


def test_the_way_to_go_on_is_chosen_told_and_overruled(home):
    config = read_model(home / "ltx")[1]
    assert resolve(config, Request(PROMPT, 9)).extend_by.how == "conditions"
    assert resolve(config, Request(PROMPT, 9, continue_by="overlap")).extend_by.how == "overlap"
    with pytest.raises(RequestError, match="cannot continue by 'mask'; it has conditions"):
        resolve(config, Request(PROMPT, 9, continue_by="mask"))
    with pytest.raises(RequestError, match="continues by its own network"):
        resolve(read_model("tiny")[1], Request(PROMPT, 9, continue_by="mask"))


def test_saved_and_loaded_it_is_the_same_model(home, tmp_path):
    pipe = LongVideoPipeline.from_pretrained(home / "wan")
    pipe.save_pretrained(tmp_path / "again")
    again = LongVideoPipeline.from_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "model.json").read_text())["extend_by"]["pipeline"].startswith(
        ".."
    )
    assert np.array_equal(
        collect(pipe.stream(Request(PROMPT, 12))), collect(again.stream(Request(PROMPT, 12)))
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("StableDiffusionPipeline", "makes images, not videos"),
        ("LucyEditPipeline", "edits a video"),
        ("WanAnimatePipeline", "animates a character"),
        ("ChronoEditPipeline", "edits an image"),
        ("AllegroPipeline", "cannot continue a video; use it for the first chunk with --base"),
        ("LTX2LatentUpsamplePipeline", "enlarges latents"),
        ("NoSuchPipeline", "diffusers has no pipeline"),
    ],
)
def test_what_cannot_be_a_model_is_refused_before_weights_load(tmp_path, kind, message):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    with pytest.raises(ModelError, match=message):
        pipeline_model(tmp_path)


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    from streamingt2v.external import families

    monkeypatch.setattr(families, "find_spec", lambda name: None)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline"}))
    with pytest.raises(ModelError, match=r"ftfy: pip install 'streamingt2v\[bases\]'"):
        pipeline_model(tmp_path)


def test_an_image_that_is_needed_is_asked_for(home):
    with pytest.raises(RequestError, match="made from an image; give one"):
        resolve(read_model(home / "wan_image")[1], Request(PROMPT, 9))


def test_a_negative_prompt_without_effect_is_refused(tmp_path):
    folder = toy_bases.saved("hunyuan", tmp_path / "hunyuan")
    with pytest.raises(RequestError, match="negative_prompt"):
        resolve(read_model(folder)[1], Request(PROMPT, 9, negative_prompt="a dog"))


def test_the_server_extends_a_clip_in_its_own_shape(home, tmp_path):
    """Through the API, without workers: by a file, by the id of a video, and again as a remix."""
    from starlette.testclient import TestClient

    from streamingt2v.api.app import create_app
    from streamingt2v.jobs.service import JobService
    from streamingt2v.jobs.settings import Settings

    clip = tmp_path / "clip.mkv"
    write_video(str(clip), [np.full((16, 48, 3), 9 * i, np.uint8) for i in range(9)], 8)
    wide = tmp_path / "wide"
    toy_bases.model_folder("wan", wide, (9, 5))
    config = read_model(wide)[1]
    replace(config, height=32, width=32).save(wide)
    service = JobService(Settings(tmp_path / "service", (str(wide),)))
    try:
        with TestClient(create_app(service), base_url="http://localhost") as client:
            asked = {"prompt": PROMPT, "num_frames": "4"}
            sent = {"video": ("clip.mkv", clip.read_bytes())}
            made = client.post("/v1/videos/extensions", data=asked, files=sent).json()
            assert made["size"] == "48x16" and service.get(made["id"]).request.width == 48
            again = client.post(f"/v1/videos/{made['id']}/remix", json={"prompt": "A dog"}).json()
            assert again["size"] == "48x16"
            sized = client.post(
                "/v1/videos", json={"prompt": PROMPT, "num_frames": 4, "size": "64x16"}
            ).json()
            assert sized["size"] == "64x16"
            start = {"input_reference": ("clip.mkv", clip.read_bytes())}
            given = client.post("/v1/videos", data={**asked, "size": "32x32"}, files=start).json()
            assert given["size"] == "32x32", "as asked"
    finally:
        service.__exit__()
