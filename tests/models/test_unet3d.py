"""The base network: equal to the stock one where nothing is joined on, to the published one where it is."""

import pytest
import torch

from recorded import assert_near, config, golden, group, known
from streamingt2v.backbones.modelscope import ModelScopeBackbone
from streamingt2v.convert.streaming_t2v import load_part, split
from streamingt2v.models.apm import ImageTokens
from streamingt2v.models.cam import CamFeatures, ConditionalAttentionModule
from streamingt2v.models.context import sites
from streamingt2v.models.unet3d import StreamingUNet3D
from streamingt2v.samplers.guidance import Guidance
from streamingt2v.types import TextCond
from toy_networks import BASE, JOINT, cam, randn, stock, streaming

TEXT, IMAGE = randn(2, 5, 12, seed=1), randn(2, 3, 12, seed=2)


@pytest.fixture(autouse=True)
def _no_grad(request):
    with torch.set_grad_enabled("train" in request.node.name):
        yield


@pytest.mark.parametrize("frames, height, width", [(1, 4, 4), (5, 6, 7)])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {
            "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
            "up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D", "CrossAttnUpBlock3D"),
            "block_out_channels": (8, 16, 16),
            "layers_per_block": 2,
        },
    ],
)
def test_equals_stock_network(frames, height, width, shape):
    """Without CAM, and with alpha 0 for APM, this is diffusers' network."""
    theirs = stock(**shape)
    ours = StreamingUNet3D.from_base(theirs, **JOINT).eval()
    latents, timesteps = randn(2, 4, frames, height, width), torch.tensor([3, 900])
    expected = theirs(latents, timesteps, TEXT).sample
    assert_near(ours(latents, timesteps, TEXT), expected)
    assert_near(ours(latents, timesteps, TEXT, IMAGE), expected)


def test_merger_of_zeros_changes_nothing():
    """A new merger ends in zeros: then CAM is exactly without effect."""
    net = StreamingUNet3D.from_base(stock(), **JOINT).eval()
    latents = randn(2, 4, 6, 4, 4)
    features = cam()(latents, 7, TEXT, cam().encode_frames(randn(1, 3, 3, 8, 8)))
    assert torch.equal(net(latents, 7, TEXT, cam_features=features), net(latents, 7, TEXT))


def test_everything_joined_has_an_effect():
    net, latents = streaming(), randn(2, 4, 6, 4, 4)
    features = cam()(latents, 7, TEXT, cam().encode_frames(randn(1, 3, 3, 8, 8)))
    plain = net(latents, 7, TEXT)
    assert (net(latents, 7, TEXT, IMAGE) - plain).abs().max() > 1e-3
    for level in range(len(features.down)):
        down = tuple(feature + (k == level) for k, feature in enumerate(features.down))
        changed = net(latents, 7, TEXT, cam_features=CamFeatures(down, features.mid))
        assert (changed - net(latents, 7, TEXT, cam_features=features)).abs().max() > 1e-4, level


def test_contexts_made_beforehand_are_the_same():
    """Keys and values do not depend on latents or timestep, and one context serves a batch of the same
    text."""
    net, latents = streaming(), randn(2, 4, 3, 4, 4)
    contexts = net.contexts(TEXT, IMAGE)
    assert len(contexts) == len(list(sites(net))) == 4
    assert torch.equal(net(latents, 7, contexts), net(latents, 7, TEXT, IMAGE))
    shared = net(latents, 7, net.contexts(TEXT[:1], IMAGE[:1]))
    assert_near(shared, net(latents, 7, TEXT[:1].expand(2, -1, -1), IMAGE[:1].expand(2, -1, -1)))


def test_batch_elements_do_not_mix():
    net, latents = streaming(), randn(2, 4, 3, 4, 4)
    features = cam()(latents, 7, TEXT, cam().encode_frames(randn(2, 2, 3, 8, 8)))
    both = net(latents, 7, TEXT, IMAGE, features)
    second = CamFeatures(tuple(feature[2:] for feature in features.down), features.mid[2:])
    assert_near(both[1:], net(latents[1:], 7, TEXT[1:], IMAGE[1:], second))


def test_wrong_arguments_are_refused():
    net, latents = streaming(), randn(2, 4, 3, 4, 4)
    with pytest.raises(ValueError, match="tokens"):
        net(latents, 7, TEXT, IMAGE[:, :2])
    with pytest.raises(ValueError, match="twice"):
        net(latents, 7, net.contexts(TEXT), IMAGE)
    with pytest.raises(ValueError, match="merger_head_dim=3"):
        streaming(merger_head_dim=3)


def test_save_and_load(tmp_path):
    net, latents = streaming(), randn(1, 4, 2, 4, 4)
    net.save_pretrained(tmp_path)
    again = StreamingUNet3D.from_pretrained(tmp_path).eval()
    assert {**BASE, **JOINT}.items() <= {
        k: tuple(v) if isinstance(v, list) else v for k, v in again.config.items()
    }.items()
    assert torch.equal(again(latents, 7, TEXT[:1], IMAGE[:1]), net(latents, 7, TEXT[:1], IMAGE[:1]))


def test_a_shared_sample_is_predicted_as_its_copies_are():
    """Both halves of guidance begin alike: one sample for two contexts gives what two equal samples give."""
    net, module, one = streaming(), cam(), randn(1, 4, 6, 4, 4)
    embedding = module.encode_frames(randn(1, 3, 3, 8, 8))
    both = torch.cat([one, one])
    shared = net(one, 7, TEXT, IMAGE, module(one, 7, TEXT, embedding))
    copies = net(both, 7, TEXT, IMAGE, module(both, 7, TEXT, embedding))
    assert len(shared) == 2 and not torch.allclose(shared[0], shared[1])
    torch.testing.assert_close(shared, copies)


def test_guidance_of_one_is_the_positive_half(monkeypatch):
    backbone = ModelScopeBackbone(None, streaming(), cam(), None, ImageTokens(6, 8, 3, 12))
    monkeypatch.setattr(backbone, "_embed_image", lambda image_BCHW: image_BCHW.flatten(1)[:, :6])
    condition = backbone.condition(TextCond(TEXT[:1], TEXT[1:]), randn(3, 8, 8))
    latents, window = randn(1, 4, 6, 4, 4), randn(3, 3, 8, 8).clamp(-1, 1)
    alone, nearly = (
        backbone.predictor(condition, window, Guidance(scale, 0.5))(latents, torch.tensor(7))
        for scale in (1.0, 1.0 + 1e-6)
    )
    torch.testing.assert_close(alone, nearly, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_train_step_reaches_all_new_parts(autocast):
    """From a fresh network: the last layers of the mergers and every alpha get a gradient,
    also in bfloat16."""
    net = StreamingUNet3D.from_base(stock(), **JOINT).train()
    module = ConditionalAttentionModule.from_base(net, conditioning_channels=(4, 8)).train()
    latents = randn(2, 4, 6, 4, 4)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        features = module(latents, torch.tensor([5, 50]), TEXT, module.encode_frames(randn(2, 3, 3, 8, 8)))
        net(latents, torch.tensor([5, 50]), TEXT, IMAGE, features).float().square().mean().backward()
    new = {
        name: p
        for name, p in net.named_parameters()
        if name.endswith(("alpha", "temporal_transformer.proj_out.weight"))
    }
    assert len(new) == 4 + 5  # cross-attentions; skips and the middle
    for name, parameter in new.items():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_golden_pass():
    """The published network at recorded random weights, with APM, and with and without CAM's features."""
    sizes, recorded = config("g1"), golden("g1")
    net = StreamingUNet3D(
        **known(sizes["unet"], StreamingUNet3D), merger_head_dim=sizes["cam_merger_head_dim"]
    ).eval()
    load_part(net, split(group(recorded, "weights."))["unet"], "unet")
    given = group(recorded, "inputs.")
    features = CamFeatures(golden_down(sizes, recorded), recorded["outputs.cam_mid"])
    inputs = [given[name] for name in ("noisy_latents", "timestep", "text_embeds", "image_tokens")]
    assert_near(net(*inputs), recorded["outputs.eps_without_cam"])
    assert_near(net(*inputs, features), recorded["outputs.eps"])


def golden_down(sizes: dict, recorded: dict) -> tuple[torch.Tensor, ...]:
    """Recorded CAM features, those of the first level from CAM itself, which the recording holds so far."""
    channels = tuple(sizes["cam"]["conditioning_embedding_out_channels"])
    sizes_of_cam = known(sizes["unet"], ConditionalAttentionModule)
    module = ConditionalAttentionModule(**sizes_of_cam, conditioning_channels=channels).eval()
    module.load_state_dict(split(group(recorded, "weights."))["cam"], strict=False)
    embedding = module.encode_frames(recorded["inputs.controlnet_cond"][None])
    made = module(
        recorded["inputs.noisy_latents"],
        recorded["inputs.timestep"],
        recorded["inputs.text_embeds"],
        embedding,
    ).down
    assert_near(made[3], recorded["outputs.cam_down_3"], 1e-4)
    return tuple(recorded.get(f"outputs.cam_down_{level}", feature) for level, feature in enumerate(made))
