"""Test names and hub ids of pipelines within `model.json`, and faces that meet a model that is not here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from commands import PROMPT, run
from hub_server import Hub
from published_hub import put_pipeline
from streamingt2v import LongVideoPipeline
from streamingt2v.checkpoints.find import missing_parts
from streamingt2v.config import EMBEDDED, ModelConfig, RefineByConfig, Request, SeedConfig, find_model
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.external.as_model import read_model
from streamingt2v.jobs.settings import Settings
from streamingt2v.resolve import resolve_for

TINY = ModelConfig.load(find_model(EMBEDDED[0]))


@pytest.fixture
def model(tmp_path) -> Path:
    """Return a model folder, without weights, that names a base and a refiner of the hub."""
    seed, refine_by = SeedConfig("owner/base", frames=16), RefineByConfig("owner/refiner", strength=1.0)
    folder = tmp_path / "model"
    folder.mkdir()
    replace(TINY, refine=None, seed=seed, refine_by=refine_by).save(folder)
    return folder


def test_ids_are_kept_until_they_are_downloaded(hub: Hub, tmp_path, model, capsys):
    put_pipeline(hub, "owner/base", "modelscope", tmp_path)
    put_pipeline(hub, "owner/refiner", "modelscope_video_to_video", tmp_path)
    written = json.loads((model / "model.json").read_text())
    assert (written["seed"]["pipeline"], written["refine_by"]["pipeline"]) == ("owner/base", "owner/refiner")
    assert missing_parts(ModelConfig.load(model)) == ["owner/base", "owner/refiner"]
    with pytest.raises(
        RequestError, match=r"owner/base is not on this machine; .* streamingt2v get owner/base"
    ):
        resolve_for(str(model), Request("a cat", 16))
    for name in ("owner/base", "owner/refiner"):
        assert run(capsys, "get", name, "--yes")[0] == 0
    config = read_model(model)[1]
    for settings in (config.seed, config.refine_by):
        assert settings is not None and Path(str(settings.pipeline), "model_index.json").is_file()
    assert missing_parts(config) == []
    asked = resolve_for(str(model), Request("a cat", 16, preset="full"))
    assert asked.uses_pipelines and asked.refine_by is not None
    ModelConfig.load(model).save(model)
    assert json.loads((model / "model.json").read_text()) == written


def test_generate_downloads_what_a_model_names(hub: Hub, tmp_path, model, capsys):
    put_pipeline(hub, "owner/base", "modelscope", tmp_path)
    command = ["generate", PROMPT, "--model", model, "--frames", "16", "-o", tmp_path / "a.mp4"]
    code, _, err = run(capsys, *command)
    assert code == 2 and "--model 'owner/base': is a download of" in err
    code, _, err = run(capsys, *command, "--yes")  # the folder has no weights of its own
    assert (code, "is incomplete" in err, "owner/base: " in err, "refiner" in err) == (
        1,
        True,
        True,
        False,
    ), err


def test_every_face_names_the_command_that_gets_a_missing_model(hub: Hub, tmp_path, capsys):
    missing = r"owner/name is not on this machine; get it by: streamingt2v get owner/name"
    with pytest.raises(ModelError, match=missing):
        LongVideoPipeline.from_pretrained("owner/name")
    with pytest.raises(RequestError, match=missing):
        Settings(folder=tmp_path, models=("owner/name",)).configs()
    with pytest.raises(RequestError, match=missing):
        resolve_for("tiny", Request("a cat", 16, base="owner/name"))
