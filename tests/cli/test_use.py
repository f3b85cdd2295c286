"""Names of another role and options of `get` without effect are refused before any download."""

import pytest
import torch
from safetensors.torch import save_file

from commands import PROMPT, run
from hub_server import Hub
from published_hub import put_pipeline
from streamingt2v.config import Request
from streamingt2v.convert.kinds import STREAMING_T2V
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.external import abilities
from streamingt2v.external.as_model import read_model
from streamingt2v.resolve import resolve_for


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("model", "vid2vid", "is an enhancer, so it cannot be the model; use it by: --model streaming-t2v"),
        ("model", "ali-vilab/MS-Vid2Vid-XL", "is an enhancer"),
        ("model", "animatediff", "is a base, so it cannot be the model; use it by: --base animatediff"),
        ("model", "svd-sdxl", "is a base"),
        (
            "base",
            "streaming-t2v",
            "is a whole model, so it cannot be the base; use it by: --model streaming-t2v",
        ),
        ("base", "PAIR/StreamingT2V@main", "is a whole model"),
        ("base", "streaming-svd", "is a whole model"),
        ("base", "vid2vid", "is an enhancer, so it cannot be the base"),
    ],
)
def test_a_name_of_another_role_is_refused_before_the_download(
    hub: Hub, tmp_path, capsys, option, name, words
):
    line = ["generate", PROMPT, f"--{option}", name, "--frames", "8", "--yes", "-o", tmp_path / "a.mp4"]
    code, _, err = run(capsys, *line)
    assert code == 2 and f"--{option} {name!r}: {words}" in err and hub.asked == []
    with pytest.raises((ModelError, RequestError), match=words):  # as the server, batch and Python ask
        if option == "model":
            read_model(name)
        else:
            resolve_for("tiny", Request(PROMPT, 8, base=name))


def test_a_third_stage_that_does_not_exist_is_not_got(hub: Hub, tmp_path, capsys):
    put_pipeline(hub, "owner/name", "modelscope", tmp_path)
    for name in ("owner/name", "wan-1.3b", "vid2vid"):
        code, _, err = run(capsys, "get", name, "--preset", "full", "--yes")
        assert code == 2 and f"--preset 'full': {name} has no third stage; leave it out" in err
    assert hub.asked == [] and run(capsys, "get", "tiny", "--preset", "full")[0] == 0


def test_another_data_type_than_the_folder_has_is_told(hub: Hub, tmp_path, capsys):
    folder = tmp_path / "home" / "models" / "streaming-t2v"
    (folder / "unet").mkdir(parents=True)
    STREAMING_T2V.save(folder)
    save_file({"x": torch.zeros(2, dtype=torch.float16)}, folder / "unet" / "x.safetensors")
    code, _, err = run(capsys, "get", "streaming-t2v", "--dtype", "float32", "--yes")
    assert code == 2 and "--dtype 'float32': " in err and "has another (F16)" in err
    for line in (["--dtype", "float16"], []):
        assert run(capsys, "get", "streaming-t2v", "--yes", *line)[0] == 0


@pytest.mark.parametrize("name", ["", " ", "nothing", "owner/", "owner/name@", "@main", "hf://owner/name"])
def test_what_is_no_name_is_not_called_downloaded(hub: Hub, capsys, name):
    code, out, err = run(capsys, "get", name, "--yes")
    assert (code, out) == (2, "") and "already downloaded" not in err and f"no model {name!r}" in err


@pytest.mark.parametrize("there", [False, True])
def test_kept_off_the_network_get_uses_what_is_there(hub: Hub, tmp_path, capsys, monkeypatch, there):
    put_pipeline(hub, "owner/name", "modelscope", tmp_path)
    if there:
        assert run(capsys, "get", "owner/name", "--yes")[0] == 0
    asked = len(hub.asked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("owner/name", "owner/name@main"):
        code, _, err = run(capsys, "get", name, "--yes")
        assert code == (0 if there else 1) and len(hub.asked) == asked
        assert there or "HF_HUB_OFFLINE=1 keeps this process off the network; unset it to download" in err


def test_a_missing_refiner_names_the_command_that_gets_it(tmp_path):
    STREAMING_T2V.save(tmp_path)
    with pytest.raises(
        RequestError, match="no refiner; get it by: streamingt2v get streaming-t2v --preset full"
    ):
        resolve_for(str(tmp_path), Request(PROMPT, 8, preset="full"))


def test_classes_that_refuse_to_run_without_an_image_need_one():
    import diffusers

    for name in ("I2VGenXLPipeline", "Cosmos2VideoToWorldPipeline", "CosmosVideoToWorldPipeline"):
        assert abilities.abilities(getattr(diffusers, name)).image == "needed"
    for name in ("Cosmos2_5_PredictBasePipeline", "LTXConditionPipeline", "HeliosPipeline"):
        assert abilities.abilities(getattr(diffusers, name)).image == "optional"
