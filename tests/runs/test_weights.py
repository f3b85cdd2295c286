"""Test that a run knows the files of every pipeline that makes its frames."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from streamingt2v.config import EMBEDDED, ModelConfig, RefineByConfig, Request, SeedConfig, find_model
from streamingt2v.config.runtime import PLAIN
from streamingt2v.external.as_model import pipeline_model
from streamingt2v.resolve import resolve_for
from streamingt2v.runs import render

TINY = replace(ModelConfig.load(find_model(EMBEDDED[0])), refine=None)


def pipeline(folder: Path, kind: str = "TextToVideoSDPipeline") -> Path:
    """Write as much of a pipeline's folder as is read before weights."""
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    (folder / "unet" / "config.json").write_text(json.dumps({"sample_size": 8}))
    return folder


def saved(config: ModelConfig, folder: Path) -> str:
    folder.mkdir()
    config.save(folder)
    return str(folder)


def test_a_changed_pipeline_is_noticed(tmp_path):
    maker, refiner = pipeline(tmp_path / "maker"), pipeline(tmp_path / "refiner", "VideoToVideoSDPipeline")
    seed, refine_by = SeedConfig(str(maker), frames=16), RefineByConfig(str(refiner), strength=1.0)
    image_maker = SeedConfig(picture=str(maker))
    for name, folder, config, more in (
        ("base", maker, TINY, {"base": str(maker)}),
        ("seed", maker, replace(TINY, seed=seed), {}),
        ("refine_by", refiner, replace(TINY, refine_by=refine_by), {"preset": "full"}),
        ("picture", maker, replace(TINY, backbone="svd", seed=image_maker), {}),
        ("extend_by", maker, pipeline_model(maker), {}),
    ):
        model, request = saved(config, tmp_path / name), Request("a cat", 40, **more)

        def now(model=model, request=request) -> str:
            return render._weights(model, resolve_for(model, request), PLAIN)

        before = now()
        assert now() == before, name
        file = folder / "unet" / "config.json"
        file.write_text(file.read_text() + "\n")
        assert now() != before, name


@pytest.mark.parametrize("way", ["maker", "../{}/maker"])
def test_a_pipeline_that_is_the_model_is_read_once(tmp_path, monkeypatch, way):
    folder = pipeline(tmp_path / "maker").parent / way.format(tmp_path.name)
    read = []
    monkeypatch.setattr(render, "fingerprint", lambda *folders: read.append(folders) or "")
    render._weights(str(folder), resolve_for(str(folder), Request("a cat", 40)), PLAIN)
    assert read == [(folder,)]


def test_what_makes_no_frame_does_not_count(tmp_path):
    """Whoever refines a file needs neither the base nor the pipeline of the chunks."""
    maker, refiner = pipeline(tmp_path / "maker"), pipeline(tmp_path / "refiner", "VideoToVideoSDPipeline")
    by = RefineByConfig(str(refiner), strength=1.0)
    seed = SeedConfig(str(maker), frames=16)
    clip = tmp_path / "clip.mp4"
    clip.touch()  # it is not opened
    for name, config in (
        ("own", replace(TINY, refine_by=by, seed=seed)),
        ("whole", replace(pipeline_model(maker), refine_by=by)),
    ):
        model = saved(config, tmp_path / name)
        asked = resolve_for(model, Request("a cat", 8, preset="full", refine=str(clip)))
        assert [folder.resolve() for folder in asked.pipeline_folders] == [refiner], name
