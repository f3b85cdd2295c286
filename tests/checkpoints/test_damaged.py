"""Caches and folders that a full disk, a kill or another program left damaged."""

import json
import threading
import time
from pathlib import Path

import pytest

import published_hub
from commands import run
from hub_server import Hub
from streamingt2v.checkpoints import hub as ours
from streamingt2v.checkpoints.find import find_model
from streamingt2v.config.runtime import parse_lora
from streamingt2v.convert import kinds
from streamingt2v.convert.kinds import STREAMING_T2V
from streamingt2v.convert.obtain import order
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.external.as_model import read_model

PIPELINE = {
    "model_index.json": json.dumps(
        {"_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]}
    ).encode(),
    "unet/config.json": b'{"sample_size": 8}',
    "unet/diffusion_pytorch_model.safetensors": bytes(20_000),
}


@pytest.mark.parametrize("left", [b"", b"{}", bytes(100)])
@pytest.mark.parametrize("name", list(PIPELINE))
@pytest.mark.parametrize("copied", [False, True])
def test_a_file_cut_short_is_missing_and_fetched_again(hub: Hub, tmp_path, capsys, name, left, copied):
    """The cache holds links to contents, or copies where the system has no links."""
    hub.put("owner/name", PIPELINE)
    assert run(capsys, "get", "owner/name", "--yes")[0] == 0
    folder = find_model("owner/name")
    if copied:
        (folder / name).unlink()
    (folder / name).write_bytes(left)
    with pytest.raises(ModelError, match="is not on this machine; get it by: streamingt2v get owner/name"):
        find_model("owner/name")
    with pytest.raises(ModelError, match="is downloaded in part"):
        ours.find("owner/name")
    assert ours.look_up("owner/name").missing([name]) <= len(PIPELINE[name])
    code, _, err = run(capsys, "get", "owner/name", "--yes")
    assert code == 0 and (folder / name).read_bytes() == PIPELINE[name], err


@pytest.mark.parametrize("index", [b"", b"[]", b"nonsense", b"3"])
def test_a_damaged_index_on_the_hub_is_one_line(hub: Hub, capsys, index):
    hub.put("owner/name", PIPELINE | {"model_index.json": index})
    code, _, err = run(capsys, "get", "owner/name", "--yes")
    assert code == 1 and "model_index.json is damaged" in err and "Traceback" not in err


def converting(monkeypatch, seconds: float) -> list[Path]:
    """Put a quick stand-in in the place of the conversion; return the list of what it converts."""
    made: list[Path] = []

    def convert(kind, source, target, **options):
        made.append(target)
        time.sleep(seconds)
        target.mkdir(parents=True)
        STREAMING_T2V.save(target)

    monkeypatch.setattr(kinds, "convert", convert)
    return made


def put(hub: Hub) -> None:
    hub.put("PAIR/StreamingT2V", {"streaming_t2v.ckpt": bytes(20_000)})
    hub.put(published_hub.MODELSCOPE, {"tokenizer/vocab.json": b"{}"})


def test_two_who_get_a_model_at_once_convert_it_once(hub: Hub, monkeypatch):
    put(hub)
    made = converting(monkeypatch, 0.3)
    orders, failures = [order("streaming-t2v") for _ in range(2)], []

    def carry_out(one):
        try:
            one.carry_out()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=carry_out, args=(one,)) for one in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(made) == 1 and order("streaming-t2v") is None


def test_what_a_killed_conversion_left_is_removed(hub: Hub, tmp_path, monkeypatch):
    put(hub)
    models = tmp_path / "home" / "models"
    for name in (".streaming-t2v-abcdefg/whole/unet", ".other-abcdefg/whole"):
        (models / name).mkdir(parents=True)
    converting(monkeypatch, 0)
    order("streaming-t2v").carry_out()
    folders = {path.name for path in models.iterdir() if path.is_dir()}
    assert folders == {"streaming-t2v", ".other-abcdefg"}


def test_a_broken_model_is_not_planned_as_a_missing_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STREAMINGT2V_HOME", str(tmp_path))
    folder = tmp_path / "models" / "streaming-t2v"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text("{")
    code, out, err = run(capsys, "plan", "--model", "streaming-t2v", "--memory", "24GB")
    assert (code, out) == (2, "") and "cannot be read as JSON" in err


def test_a_pipeline_is_called_by_the_name_it_was_asked_for(hub: Hub, capsys):
    hub.put("owner/name", PIPELINE)
    assert run(capsys, "get", "owner/name", "--yes")[0] == 0
    folder, config = read_model("owner/name")
    assert config.name == "owner/name" and read_model(folder)[1].name == folder.name


@pytest.mark.parametrize("text", ["", ":1"])
def test_a_lora_without_a_file_names_none(text):
    with pytest.raises(RequestError, match="names no file"):
        parse_lora(text)
