"""The denoising loop, over several of diffusers' schedulers."""

import copy

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from recorded import assert_near, config, golden
from streamingt2v.samplers.denoise import denoise, final
from streamingt2v.samplers.guidance import guide_pair
from streamingt2v.samplers.noise import frame_noise
from toy_networks import randn

SCHEDULERS = {
    "ddim": (DDIMScheduler(clip_sample=False), 0.0),
    "ddim eta": (DDIMScheduler(clip_sample=False), 1.0),
    "ddpm": (DDPMScheduler(), 0.0),
    "dpm++": (DPMSolverMultistepScheduler(), 0.0),
    "dpm++ sde": (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), 0.0),
    "euler": (EulerDiscreteScheduler(), 0.0),
    "euler a": (EulerAncestralDiscreteScheduler(), 0.0),
    "heun": (HeunDiscreteScheduler(), 0.0),
    "unipc": (UniPCMultistepScheduler(), 0.0),
}
START = randn(1, 4, 3, 2, 2)


def predict(latents, timestep):
    return torch.tanh(latents) * (0.5 + float(timestep) / 2000)


def step_noise(index):
    return frame_noise(1, "test", range(3), index, (4, 2, 2)).transpose(0, 1)[None]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_repeats_itself_and_leaves_the_scheduler_alone(name):
    """The result depends on the arguments only: neither on a global generator nor on what a scheduler did
    before."""
    scheduler, eta = SCHEDULERS[name]
    before = copy.deepcopy(vars(scheduler))
    torch.manual_seed(1)
    first = final(denoise(predict, START, scheduler, 4, eta=eta, step_noise=step_noise))
    scheduler_used = copy.deepcopy(scheduler)
    scheduler_used.set_timesteps(7)
    torch.manual_seed(2)
    assert torch.equal(
        final(denoise(predict, START, scheduler_used, 4, eta=eta, step_noise=step_noise)), first
    )
    assert first.isfinite().all() and first.dtype == torch.float32
    assert {
        k: v for k, v in vars(scheduler).items() if not isinstance(v, torch.Tensor)
    }.keys() <= before.keys()
    assert getattr(scheduler, "_step_index", None) is None


@pytest.mark.parametrize("name", ["ddim eta", "dpm++ sde", "euler a", "ddpm"])
def test_step_noise_matters_where_steps_are_stochastic(name):
    scheduler, eta = SCHEDULERS[name]
    one = final(denoise(predict, START, scheduler, 4, eta=eta, step_noise=step_noise))
    other = final(
        denoise(predict, START, scheduler, 4, eta=eta, step_noise=lambda index: step_noise(index + 100))
    )
    assert (one - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match="step_noise"):
        final(denoise(predict, START, scheduler, 4, eta=eta))


def test_deterministic_steps_draw_nothing():
    for name in ("ddim", "dpm++", "unipc", "heun"):
        scheduler, eta = SCHEDULERS[name]
        if name != "heun":  # Heun's takes a generator for its churn
            final(denoise(predict, START, scheduler, 4, eta=eta))


def test_eta_is_never_ignored():
    with pytest.raises(ValueError, match=r"eta=1\.0: UniPC"):
        final(denoise(predict, START, UniPCMultistepScheduler(), 4, eta=1.0))


def test_golden_first_step():
    """A guided DDIM step of the published pipeline, without noise and with the recorded noise."""
    recorded, settings = golden("g3"), config("g3")
    scheduler = DDIMScheduler(**settings["scheduler"])
    noise = recorded["noise"].unflatten(0, (1, -1)).transpose(1, 2)
    for name, eta in (("eta0", 0.0), ("eta", settings["eta_run"])):
        step = next(
            denoise(
                lambda latents, timestep: guide_pair(recorded["eps_pair"], settings["guidance_scale"]),
                recorded["initial_latents"],
                scheduler,
                settings["num_inference_steps"],
                eta=eta,
                step_noise=lambda index: noise,
            )
        )
        assert step.timestep == recorded["timesteps"][0] and step.total == len(recorded["timesteps"])
        assert_near(step.latents_BCTHW, recorded[name])


def test_can_be_stopped_and_watched():
    calls = []
    trajectory = denoise(lambda x, t: calls.append(int(t)) or predict(x, t), START, DDIMScheduler(), 5)
    assert [next(trajectory).index for _ in range(2)] == [0, 1]
    trajectory.close()
    assert len(calls) == 2


def test_no_gradients_are_kept():
    weight = torch.ones((), requires_grad=True)
    step = next(denoise(lambda x, t: x * weight, START, DDIMScheduler(), 2))
    assert not step.latents_BCTHW.requires_grad
    assert torch.is_grad_enabled()
