"""Other ways to make a long video: what is taken away has no effect any more,
and the rivals keep to their papers."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

from lab.compare import apart, baselines, fifo, freenoise
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.errors import RequestError
from streamingt2v.samplers.guidance import Guidance
from toy import write_toy_model
from toy_networks import randn, streaming

REQUEST = Request("A cat running on the street", 24)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory) -> LongVideoPipeline:
    return LongVideoPipeline.from_pretrained(write_toy_model(tmp_path_factory.mktemp("toy") / "toy"))


@pytest.fixture(scope="module")
def videos(pipe) -> dict[str, np.ndarray]:
    chunked = [name for name, method in baselines.METHODS.items() if method.chunked]
    return {
        name: np.stack(list(baselines.METHODS[name].frames(pipe.components, REQUEST))) for name in chunked
    }


def test_methods_share_the_first_chunk_and_differ_after_it(videos):
    assert {video.shape for video in videos.values()} == {(24, 32, 32, 3)}
    full = videos["CAM and APM"]
    for video in (video for name, video in videos.items() if name != "CAM and APM"):
        np.testing.assert_array_equal(video[:16], full[:16])
        assert (video[16:] != full[16:]).any()


def test_the_full_method_is_the_pipeline(pipe, videos):
    frames = np.concatenate([chunk.frames for chunk in pipe.stream(REQUEST)])
    np.testing.assert_array_equal(videos["CAM and APM"], frames)


def test_without_apm_the_anchor_and_without_cam_the_window_are_not_seen(pipe):
    text = pipe.components.text("a cat")
    anchors, windows = randn(2, 3, 32, 32).clamp(-1, 1), randn(2, 8, 3, 32, 32).clamp(-1, 1)
    latents, timestep = randn(1, 16, 16, 4, 4), torch.tensor(500)

    def predicted(kind, anchor, window):
        backbone = baselines.with_backbone(pipe.components, kind).backbone
        return backbone.predictor(backbone.condition(text, anchor), window, Guidance(2.0))(
            latents[:, : backbone.latent_shape(32, 32)[0]], timestep
        )

    same = {
        kind: (
            torch.equal(predicted(kind, anchors[0], windows[0]), predicted(kind, anchors[1], windows[0])),
            torch.equal(predicted(kind, anchors[0], windows[0]), predicted(kind, anchors[0], windows[1])),
        )
        for kind in (
            baselines.ModelScopeBackbone,
            baselines.WithoutApm,
            baselines.WithoutCam,
            baselines.WithoutBoth,
        )
    }
    assert list(same.values()) == [(False, False), (True, False), (False, True), (True, True)]


def short_fifo(components, request):
    """The queue of the paper is four chunks long; here one, for the sake of time."""
    return fifo.fifo_diffusion(components, request, partitions=1)


@pytest.mark.parametrize(
    ("make", "frames"),
    [(freenoise.free_noise, 1), (freenoise.free_noise, 21), (short_fifo, 1), (short_fifo, 3)],
)
def test_rivals_make_exactly_so_many_frames_again_and_again(pipe, make, frames):
    request = Request("a cat", frames)
    first, second = (np.stack(list(make(pipe.components, request))) for _ in range(2))
    assert first.shape == (frames, 32, 32, 3) and first.std() > 5
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("change", [{"schedule": ((8, "a dog"),)}, {"preset": "full"}, {"num_frames": None}])
@pytest.mark.parametrize("name", ["FreeNoise", "FIFO-Diffusion"])
def test_rivals_refuse_what_they_cannot(pipe, name, change):
    with pytest.raises(RequestError, match=next(iter(change))):
        next(
            baselines.METHODS[name].frames(
                pipe.components, Request(**{"prompt": "a cat", "num_frames": 24, **change})
            )
        )


# --- FreeNoise ------------------------------------------------------------------------------------


def test_noise_repeats_in_shuffled_pieces():
    indices = freenoise.rescheduled(50, 16, seed=1)
    assert indices[:16] == list(range(16)) and len(indices) == 50
    for start in range(16, 48, 4):
        piece = start % 16
        assert sorted(indices[start : start + 4]) == list(range(piece, piece + 4))
    assert indices[16:32] != list(range(16)) and indices != freenoise.rescheduled(50, 16, seed=2)


def test_windows_change_nothing_where_one_is_enough():
    network, latents, text = streaming(), randn(1, 4, 8, 8, 8), randn(1, 5, 12)
    with torch.no_grad():
        plain = network(latents, 500, text)
        with freenoise.windowed_attention(network, 8, 4):
            assert torch.equal(network(latents, 500, text), plain)
        with freenoise.windowed_attention(network, 4, 2):
            assert not torch.allclose(network(latents, 500, text), plain)
        assert torch.equal(network(latents, 500, text), plain)  # and it is as it was again


def test_windows_are_blended_by_their_weights():
    def inner(attn, hidden_states):
        return torch.full_like(
            hidden_states, float(hidden_states[0, 0, 0])
        )  # each window gives out its first frame's number

    attention = freenoise.WindowedAttention(inner, window=4, stride=2)
    out = attention(torch.nn.Identity(), torch.arange(6.0).view(1, 6, 1))[0, :, 0]
    # windows begin at 0 and 2 with weights 1 2 2 1: frames 2 and 3 are in both
    np.testing.assert_allclose(out, [0, 0, (2 * 0 + 1 * 2) / 3, (1 * 0 + 2 * 2) / 3, 2, 2], rtol=1e-6)


def test_temporal_attention_is_where_it_is_looked_for():
    assert sum(isinstance(module, TransformerTemporalModel) for module in streaming().modules()) > 3


# --- FIFO-Diffusion -------------------------------------------------------------------------------


def test_frames_at_timesteps_of_their_own_are_those_of_a_batch():
    network, latents, text = streaming(), randn(2, 4, 3, 8, 8), randn(2, 5, 12)
    with torch.no_grad():
        same = network(latents, torch.tensor([[7, 7, 7], [300, 300, 300]]), text)
        torch.testing.assert_close(same, network(latents, torch.tensor([7, 300]), text))
        mixed = network(latents, torch.tensor([[7, 300, 900]]), text)
    assert not torch.allclose(mixed, network(latents, 7, text))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_levels_step_as_diffusers_ddim_does(kind):
    scheduler = DDIMScheduler(
        prediction_type=kind, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    scheduler.set_timesteps(20)
    levels = fifo.Levels(scheduler, 20, torch.device("cpu"))
    assert levels.timesteps.flip(0).tolist() == scheduler.timesteps.tolist()
    latents, prediction, at = randn(1, 4, 3, 8, 8), randn(1, 4, 3, 8, 8, seed=1), torch.tensor([0, 7, 19])
    moved = levels.step(latents, prediction, at)
    for frame, level in enumerate(at):
        expected = scheduler.step(
            prediction[:, :, frame], levels.timesteps[level], latents[:, :, frame]
        ).prev_sample
        torch.testing.assert_close(moved[:, :, frame], expected, atol=1e-4, rtol=1e-4)


def test_a_perfect_predictor_gives_out_the_first_chunk():
    """A network that knows the clean frames gets them out of the queue in order, whatever its noise."""
    scheduler = DDIMScheduler(prediction_type="epsilon", set_alpha_to_one=True, clip_sample=False)
    levels = fifo.Levels(scheduler, 8, torch.device("cpu"))
    chunk, noise = randn(1, 2, 4, 3, 3), randn(1, 2, 8, 3, 3, seed=1)
    seen = []

    def predict(latents, timesteps):
        alphas = scheduler.alphas_cumprod[timesteps[0]].view(1, 1, -1, 1, 1)
        seen.append(timesteps)
        return (latents - alphas.sqrt() * truth[:, :, len(seen) - 1]) / (1 - alphas).sqrt()

    # one step: 4 windows of 4, starting at 0, 2, 4, 6 of [2 that have left, 8 in the queue]
    frames = [0, 0, *(0, 0, 0, 0, 0, 1, 2, 3)]
    truth = torch.stack([chunk[:, :, frames[start : start + 4]] for start in range(0, 8, 2)], 2)
    queue = fifo._Queue(predict, levels, 4, chunk, noise)
    out = queue.step(randn(1, 2, 1, 3, 3, seed=2))
    torch.testing.assert_close(out[:, :, 0], chunk[:, :, 0], atol=1e-4, rtol=1e-4)
    # all that stay moved to the next cleaner level of the same frame and the same noise
    expected = levels.noised(
        torch.cat([chunk[:, :, [0, 0, 0, 0, 1, 2, 3]], chunk[:, :, :1]], 2),
        torch.cat([noise[:, :, 1:], noise[:, :, :1]], 2),
    )
    torch.testing.assert_close(queue.latents_BCTHW[:, :, :7], expected[:, :, :7], atol=1e-4, rtol=1e-4)
    assert [timesteps[0, -1] for timesteps in seen] == [levels.timesteps[i] for i in (1, 3, 5, 7)]


def test_chunks_with_noise_apart_repeat_exactly_and_keep_their_length(pipe):
    first, again, longer = (
        np.stack(list(apart.apart(pipe.components, Request("a cat", frames)))) for frames in (21, 21, 24)
    )
    assert first.shape[0] == 21
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, longer[:21])


def test_a_held_overlap_is_the_window_noised_to_the_step(pipe):
    components = baselines.with_held_overlap(pipe.components)
    backbone, window = components.backbone, randn(8, 3, 32, 32).clamp(-1, 1)
    seen = []
    backbone.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    try:
        predict = backbone.predictor(
            backbone.condition(components.text("a cat"), None), window, Guidance(2.0)
        )
        start, later = randn(1, *backbone.latent_shape(32, 32)[:1], 16, 4, 4), randn(1, 16, 16, 4, 4)
        for latents, t in ((start, 999), (later, 1)):
            predict(latents, torch.tensor(t))
    finally:
        backbone.unet._forward_pre_hooks.clear()
    clean = baselines.encode_frames(backbone.vae, window, backbone.device)
    for latents, shown, t in ((start, seen[0], 999), (later, seen[1], 1)):
        signal = backbone.alphas[t]
        held = signal.sqrt() * clean + (1 - signal).sqrt() * start[:, :, :8]
        torch.testing.assert_close(shown[:1, :, :8], held, atol=1e-5, rtol=1e-5)
        assert torch.equal(shown[:1, :, 8:], latents[:, :, 8:])
