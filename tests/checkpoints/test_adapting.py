"""Test quantization and LoRA: refusals before work, and effects at toy size."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import toy_pipelines
from streamingt2v import LongVideoPipeline
from streamingt2v.checkpoints.fingerprint import fingerprint
from streamingt2v.checkpoints.opening import load_pipeline
from streamingt2v.checkpoints.packages import explained, tokenizer_packages
from streamingt2v.config import EMBEDDED, ModelConfig, find_model, runtime
from streamingt2v.config.runtime import Savings, parse_lora
from streamingt2v.errors import ModelError, RequestError

TINY = ModelConfig.load(find_model(EMBEDDED[0]))


def write_lora(network, prefix: str, path: Path) -> Path:
    """Write random rank-2 adapters of a network's attention, in diffusers' format."""
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    generator = torch.Generator().manual_seed(1)
    state = get_peft_model_state_dict(network)
    save_file(
        {f"{prefix}.{k}": torch.randn(x.shape, generator=generator) / 4 for k, x in state.items()}, path
    )
    return path


@pytest.fixture(scope="module")
def tiny_lora(tmp_path_factory) -> Path:
    pipe = LongVideoPipeline.from_pretrained("tiny", refiner=False)
    return write_lora(pipe.unet, "unet", tmp_path_factory.mktemp("lora") / "style.safetensors")


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Path:
    return toy_pipelines.wan(tmp_path_factory.mktemp("wan") / "wan")


def unet_of(*lora: str) -> torch.nn.Module:
    return LongVideoPipeline.from_pretrained("tiny", refiner=False, savings=Savings(lora=lora)).unet


def test_lora_adds_scaled_products_to_the_network_of_stage_2(tiny_lora):
    """The adapted layers equal W + scale B A; scale 0 changes nothing; scales of several files add up."""
    plain = dict(unet_of().named_modules())
    state = load_file(tiny_lora)
    name = next(key for key in state if key.endswith("to_q.lora_A.weight"))
    layer = name.removeprefix("unet.").removesuffix(".lora_A.weight")
    x = torch.randn(3, plain[layer].in_features, generator=torch.Generator().manual_seed(0))
    product = state[name.replace("lora_A", "lora_B")] @ state[name]
    for texts, scale in (
        ((f"{tiny_lora}",), 1.0),
        ((f"{tiny_lora}:0",), 0.0),
        ((f"{tiny_lora}:0.5", f"{tiny_lora}:-2"), -1.5),
    ):
        found = unet_of(*texts).get_submodule(layer)(x)
        assert torch.allclose(found, plain[layer](x) + scale * x @ product.T, atol=1e-5)
    assert torch.equal(unet_of(f"{tiny_lora}:0").get_submodule(layer)(x), plain[layer](x))


def test_a_model_with_lora_is_not_saved(tiny_lora, tmp_path):
    pipe = LongVideoPipeline.from_pretrained("tiny", refiner=False, savings=Savings(lora=(str(tiny_lora),)))
    pipe.config = pipe.components.config = TINY.__class__(**{**vars(TINY), "refine": None})
    with pytest.raises(RequestError, match=r"lora=.* is not saved"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_lora_for_a_pipeline(wan, tiny_lora, tmp_path):
    net = load_pipeline(wan, "cpu", torch.float32).transformer
    file = write_lora(net, "transformer", tmp_path / "wan.safetensors")
    pipe = load_pipeline(wan, "cpu", torch.float32, savings=Savings(lora=(f"{file}:0.5",)), lora="must")
    assert pipe.get_active_adapters() == ["lora_0"]
    scales = {
        module.scaling["lora_0"]
        for module in pipe.transformer.modules()
        if "lora_0" in getattr(module, "scaling", {})
    }
    assert scales == {0.5}
    strange = Savings(lora=(str(tiny_lora),))
    with pytest.raises(RequestError, match="has no weights for WanPipeline"):
        load_pipeline(wan, "cpu", torch.float32, savings=strange, lora="must")
    load_pipeline(wan, "cpu", torch.float32, savings=strange, lora="may")
    svd = toy_pipelines.svd(tmp_path / "svd")
    with pytest.raises(RequestError, match="StableVideoDiffusionPipeline takes no LoRA"):
        load_pipeline(svd, "cpu", torch.float32, savings=strange, lora="must")


def test_a_lora_that_fits_nothing_is_refused(wan, tmp_path):
    net = load_pipeline(wan, "cpu", torch.float32).transformer
    file = write_lora(net, "transformer", tmp_path / "wan.safetensors")
    pipe = LongVideoPipeline.from_pretrained("tiny", refiner=False, savings=Savings(lora=(str(file),)))
    with pytest.raises(RequestError, match=r"lora=.* does not fit model 'tiny'"):
        pipe("a cat", num_frames=1)


def test_added_files_count_for_the_fingerprint_and_are_absolute(tiny_lora, monkeypatch):
    monkeypatch.chdir(tiny_lora.parent)
    savings = Savings(lora=("style.safetensors:0.25",))
    assert savings.lora == (f"{tiny_lora}:0.25",) and savings.files == [tiny_lora]
    assert Savings(**json.loads(json.dumps(vars(savings)))) == savings
    folder = find_model("tiny")
    assert fingerprint(folder, tiny_lora) != fingerprint(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [("a.safetensors", ("a.safetensors", 1.0)), ("a:0.5", ("a", 0.5)), ("C:\\a", ("C:\\a", 1.0))],
)
def test_parse_lora(text, found):
    path, scale = parse_lora(text)
    assert (str(path), scale) == found
    with pytest.raises(RequestError, match="finite"):
        parse_lora("a:nan")


REFUSED = [
    ({"quantize": "2bit"}, "cpu", True, "must be 8bit, 4bit or a file"),
    ({"quantize": "none.gguf"}, "cpu", True, "no such file"),
    ({"quantize": "8bit"}, "cpu", False, "this request uses none; leave it out, or give a --base"),
    ({"quantize": "4bit"}, "cpu", True, "needs a GPU"),
    ({"quantize": "8bit"}, "cpu", True, r"needs the package torchao: pip install 'streamingt2v\[quantize\]'"),
    ({"quantize": "4bit"}, "cuda", True, "needs the package bitsandbytes: pip install"),
    ({"quantize": "8bit", "offload": "group"}, "cuda", True, "cannot be combined with --offload group"),
    ({"lora": ("none.safetensors",)}, "cpu", True, "no such file; give a .safetensors file"),
]


@pytest.mark.parametrize(("options", "device", "pipelines", "message"), REFUSED)
def test_refusals_before_work(monkeypatch, options, device, pipelines, message):
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=message):
        Savings(**options).check(device, TINY, "float32", pipelines)


def test_lora_without_peft_names_its_command(monkeypatch, tiny_lora):
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"needs the package peft: pip install 'streamingt2v\[bases\]'"):
        Savings(lora=(str(tiny_lora),)).check("cpu", TINY)


def test_eight_bits_on_a_cpu(wan):
    pytest.importorskip("torchao")
    pipe = load_pipeline(wan, "cpu", torch.float32, savings=Savings(quantize="8bit"))
    for network in (pipe.transformer, pipe.text_encoder):
        assert any("Int8" in type(weight.data).__name__ for weight in network.parameters())
    assert {type(weight.data) for weight in pipe.vae.parameters()} == {torch.Tensor}


def test_a_gguf_file(wan, tmp_path):
    """A file with the pipeline's own weights gives the pipeline's own video."""
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "wan.gguf"
    writer = gguf.GGUFWriter(file, "wan")
    for name, x in load_file(wan / "transformer" / "diffusion_pytorch_model.safetensors").items():
        writer.add_tensor(name, x.numpy())
    for write in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, write)()
    options = {"num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 1, "output_type": "pt"}
    made = [
        load_pipeline(wan, "cpu", torch.float32, savings=savings, lora="must")(
            "a cat", generator=torch.Generator().manual_seed(0), **options
        ).frames
        for savings in (Savings(), Savings(quantize=str(file)))
    ]
    assert torch.equal(*made)
    svd = toy_pipelines.svd(tmp_path / "svd")
    with pytest.raises(RequestError, match="has no network that diffusers loads from GGUF"):
        load_pipeline(svd, "cpu", torch.float32, savings=Savings(quantize=str(file)), lora="must")


# ---------------------------------------------------------------- missing packages


@pytest.mark.parametrize(
    "error",
    [
        ImportError(
            "T5Tokenizer requires the SentencePiece library but it was not found in your environment"
        ),
        ValueError(
            "`tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`."
        ),
        ImportError("requires the protobuf library but it was not found"),
    ],
)
def test_an_error_of_a_tokenizer_names_the_package_that_is_missing(monkeypatch, error):
    from streamingt2v.checkpoints import packages

    monkeypatch.setattr(packages, "installed", lambda name: name not in ("sentencepiece", "google.protobuf"))
    found = explained(error)
    assert found == "needs the package sentencepiece, google.protobuf: pip install 'streamingt2v[bases]'"


def test_other_missing_packages_and_other_errors():
    assert explained(ModuleNotFoundError("No module named 'nowhere'", name="nowhere")).endswith(
        "needs the package nowhere: pip install nowhere"
    )
    assert explained(NameError("name 'unheard' is not defined")).endswith("pip install unheard")
    assert explained(ValueError("a shape does not fit")) == "a shape does not fit"


def test_sentencepiece_is_asked_for_before_weights_load(wan, tmp_path, monkeypatch):
    from streamingt2v.checkpoints import packages
    from streamingt2v.external.abilities import check_class, pipeline_class

    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"x")
    (tmp_path / "model_index.json").write_bytes((wan / "model_index.json").read_bytes())
    assert tokenizer_packages(tmp_path) == [] and tokenizer_packages(wan) == []
    monkeypatch.setattr(packages, "installed", lambda name: name != "sentencepiece")
    with pytest.raises(
        ModelError, match=r"needs the package sentencepiece: pip install 'streamingt2v\[bases"
    ):
        check_class(pipeline_class(tmp_path), tmp_path)
