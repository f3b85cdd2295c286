"""The enhancer's schedule and solver."""

import math

import pytest
import torch
import torch.nn.functional as F

from lab.compare.whole import plan_seams, solve
from recorded import assert_near, config, golden
from streamingt2v.samplers import blend
from streamingt2v.samplers.blend import assemble
from streamingt2v.samplers.guidance import guide
from streamingt2v.samplers.sdedit import logsnr_cosine_interp, trailing_nodes
from toy_networks import randn


def test_schedule_has_the_published_values():
    """Values of the published schedule."""
    schedule = logsnr_cosine_interp()
    places = {
        0: 0.001106,
        1: 0.004252,
        100: 0.32262,
        300: 0.782569,
        500: 0.94301,
        599: 0.972363,
        700: 0.987988,
        900: 0.999113,
        999: 1.0,
    }
    for index, sigma in places.items():
        assert float(schedule.sigmas[index]) == pytest.approx(sigma, abs=1e-6)
    assert float(schedule.alphas[599]) == pytest.approx(0.233473, abs=1e-6)
    sigmas = [node.sigma for node in trailing_nodes(schedule, 30)]
    assert sigmas[:5] == pytest.approx([4.1648, 3.857, 3.5755, 3.317, 3.0786], abs=1e-4)
    assert sigmas[-5:] == pytest.approx([0.4723, 0.3975, 0.3253, 0.2556, 0.1882, 0.1229][1:], abs=1e-4)


def test_golden_randomized_blending():
    """Schedule, start, guidance and rescale by window, blending with recorded offsets,
    and the SDE solver (golden g4)."""
    made, settings = golden("g4"), config("g4")
    schedule = logsnr_cosine_interp()
    nodes = trailing_nodes(schedule, settings["steps"], settings["total_noise_levels"])
    assert_near(schedule.sigmas, made["outputs.schedule_sigmas_vp"])
    assert_near(torch.tensor([node.sigma for node in nodes] + [0.0]), made["outputs.solver_sigmas_ve"])
    assert [node.timestep for node in nodes] == made["outputs.timesteps"].tolist()
    noised = schedule.diffuse(
        made["inputs.video_latents"], made["inputs.noise"], settings["total_noise_levels"] - 1
    )
    assert_near(noised, made["outputs.noised_latents"])
    windows = tuple(blend.windows(settings["frames"], settings["chunk_size"], settings["overlap_size"]))
    seen = []

    def predict_clean(x, timestep):
        offsets = made["inputs.offsets"][len(seen)].tolist()
        seen.append(
            [_toy_clean(schedule, x[:, :, window.start : window.stop], timestep) for window in windows]
        )
        return assemble(seen[-1], windows, plan_seams(windows, "code", lambda number, high: offsets[number]))

    steps = list(
        solve(predict_clean, noised, nodes, lambda index: made["inputs.sde_noise"][index], exact_start=False)
    )
    assert_near(torch.stack(seen[0]), made["outputs.chunk_x0_first_step"])
    for kept, index in enumerate((0, 1, -1)):
        assert_near(steps[index].model_input_BCTHW, made["outputs.model_input_per_kept_step"][kept])
        assert_near(steps[index].clean_BCTHW, made["outputs.blended_x0_per_kept_step"][kept])
    assert_near(steps[-1].latents_BCTHW, made["outputs.final_latents"])


def _toy_clean(schedule, x, timestep):
    """The recording's toy network: a convolution, so that window borders matter."""
    made, settings = golden("g4"), config("g4")
    predictions = []
    for name in ("text_neg", "text_pos"):
        shift = (
            timestep / 1000 * made["weights.time_weight"]
            + made[f"inputs.{name}"].mean() * made["weights.text_weight"]
        )
        hidden = F.conv3d(x, made["weights.conv_weight"], made["weights.conv_bias"], padding=1)
        predictions.append(torch.tanh(hidden + shift[:, None, None, None]))
    return schedule.clean_from_v(
        x, guide(*predictions, settings["guide_scale"], settings["guide_rescale"]), timestep
    )


@pytest.mark.parametrize("exact_start", [True, False])
def test_a_perfect_network_gets_the_clean_latents(exact_start):
    schedule, clean = logsnr_cosine_interp(), randn(1, 4, 3, 2, 2)
    nodes = trailing_nodes(schedule, 5)
    noised = schedule.diffuse(clean, randn(1, 4, 3, 2, 2, seed=1), 599)
    steps = list(
        solve(
            lambda x, t: clean,
            noised,
            nodes,
            lambda index: randn(1, 4, 3, 2, 2, seed=index),
            exact_start=exact_start,
        )
    )
    assert torch.equal(steps[-1].latents_BCTHW, clean)
    first = noised if exact_start else noised * float(schedule.sigmas[599])
    assert_near(steps[0].model_input_BCTHW, first)


def test_noise_level_follows_the_nodes():
    """With a network that always answers 0, what is left is noise of the node's own strength."""
    nodes = trailing_nodes(logsnr_cosine_interp(), 6)
    steps = solve(
        lambda x, t: torch.zeros_like(x),
        randn(1, 1, 1, 200, 200),
        nodes,
        lambda index: randn(1, 1, 1, 200, 200, seed=index + 9),
    )
    for node, step in zip(nodes[1:], list(steps)[:-1], strict=True):
        assert float(step.latents_BCTHW.std()) == pytest.approx(node.sigma, rel=0.05)


def test_velocity_and_diffusion_agree():
    schedule, clean, noise = logsnr_cosine_interp(), randn(2, 3), randn(2, 3, seed=1)
    alpha, sigma = float(schedule.alphas[400]), float(schedule.sigmas[400])
    assert math.hypot(alpha, sigma) == pytest.approx(1)
    noised = schedule.diffuse(clean, noise, 400)
    assert_near(schedule.clean_from_v(noised, alpha * noise - sigma * clean, 400), clean)
