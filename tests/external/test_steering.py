"""A pipeline's loop steered through its scheduler: nothing changes unasked,
and what is held stays on the solver's own path."""

from __future__ import annotations

import copy
import inspect

import diffusers
import pytest
import torch

from streamingt2v.external.steering import Hand, Hands, HeldOverlap, SplicedWindow, Watch, noised, steered

STEPS = 6
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULES = {
    "flow euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
    "flow euler, inverted": lambda: diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "unipc flow": lambda: diffusers.UniPCMultistepScheduler(**FLOW),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(),
    "dpm++ flow": lambda: diffusers.DPMSolverMultistepScheduler(**FLOW),
    "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(),
    "dpm++ karras": lambda: diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True),
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "ddim v": lambda: diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "cogvideox ddim": lambda: diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction"),
    "euler": lambda: diffusers.EulerDiscreteScheduler(),
    "deis": lambda: diffusers.DEISMultistepScheduler(),
}


def answer(scheduler, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
    """Return what a network that knows the clean latents predicts at a step."""
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[index])]
        return alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean
    return clean - noise if scheduler.config.get("invert_sigmas") else noise - clean


def loop(scheduler, clean: torch.Tensor, noise: torch.Tensor, predict=answer) -> list[torch.Tensor]:
    """The latents before the first and after every step, as any pipeline makes them."""
    scheduler.set_timesteps(STEPS)
    latents = [noised(scheduler, clean, noise, 0)]
    for index, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(latents[-1], timestep) if hasattr(
            scheduler, "scale_model_input"
        ) else None
        latents.append(
            scheduler.step(predict(scheduler, clean, noise, index), timestep, latents[-1], return_dict=False)[
                0
            ]
        )
    return latents


@pytest.fixture
def clean() -> torch.Tensor:
    return torch.randn(1, 4, 5, 2, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(1, 4, 5, 2, 3, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_network_that_knows_the_answer_is_where_fixed_noise_puts_it(name, clean, noise):
    scheduler = SCHEDULES[name]()
    for index, latents in enumerate(loop(scheduler, clean, noise)[1:-1]):
        assert torch.allclose(latents, noised(scheduler, clean, noise, index + 1), atol=1e-4), index


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_idle_hand_changes_no_bit(name, clean, noise):
    plain = loop(SCHEDULES[name](), clean, noise)
    shown = loop(steered(SCHEDULES[name](), Hand()), clean, noise)
    assert all(torch.equal(a, b) for a, b in zip(plain, shown, strict=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_overlap_is_held_at_every_step(name, clean, noise):
    """Whatever the network says, the known frames are the known ones, and the others are left to it."""
    scheduler = steered(SCHEDULES[name](), HeldOverlap(clean[:, :, :2], axis=2, total=5))

    def wrong(scheduler, clean, noise, index):
        return -0.3 * answer(scheduler, clean, noise, index)

    held = loop(scheduler, clean, noise, wrong)
    free = loop(SCHEDULES[name](), clean, noise, wrong)
    assert torch.equal(held[-1][:, :, :2], clean[:, :, :2])
    assert torch.equal(held[-1][:, :, 2:], free[-1][:, :, 2:])
    assert not torch.equal(held[-1][:, :, :2], free[-1][:, :, :2])


def test_a_loop_that_keeps_its_first_latent_to_itself_is_held_from_the_end(clean, noise):
    """Some image-to-video pipelines step on all latents but the first."""
    hand = HeldOverlap(clean[:, :, :3], axis=2, total=5)
    made = loop(
        steered(diffusers.DDIMScheduler(), hand), clean[:, :, 1:], noise[:, :, 1:], lambda *a: -answer(*a)
    )
    assert torch.equal(made[-1][:, :, :2], clean[:, :, 1:3])


def test_another_modality_on_the_same_scheduler_is_left_alone(clean, noise):
    hand = HeldOverlap(clean[:, :, :3], axis=2, total=5)
    sound = loop(steered(diffusers.DDIMScheduler(), hand), clean[0, 0], noise[0, 0])
    assert torch.equal(sound[-1], loop(diffusers.DDIMScheduler(), clean[0, 0], noise[0, 0])[-1])


def test_steps_are_reported_and_cancelled(clean, noise):
    seen = []

    def on_step(step: int, steps: int) -> None:
        seen.append((step, steps))
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(steered(diffusers.DDIMScheduler(), Hands((Watch(on_step),))), clean, noise)
    assert seen == [(1, STEPS), (2, STEPS), (3, STEPS)]


def test_a_window_shows_its_neighbour_up_to_the_cut(clean, noise):
    first = SplicedWindow(2, lambda shape: noise, {}, lambda step: 0)
    loop(steered(diffusers.DDIMScheduler(), first), clean, noise)
    left = {index: latents[:, :, 3:] for index, latents in first.made.items()}
    second = SplicedWindow(2, lambda shape: noise, left, lambda step: step % 3, skip=1)
    loop(steered(diffusers.DDIMScheduler(), second), -clean, noise)
    for index, latents in second.made.items():
        same = [torch.equal(latents[:, :, i], left[index][:, :, i]) for i in range(2)]
        assert same == [False, index % 3 == 2]


def test_noise_that_a_pipeline_adds_is_the_hands(clean, noise):
    hand = SplicedWindow(2, lambda shape: noise, {}, lambda step: 0)
    for kind in (diffusers.DDIMScheduler, diffusers.UniPCMultistepScheduler):
        scheduler = steered(kind(), hand)
        scheduler.set_timesteps(STEPS)
        timesteps = scheduler.timesteps[2:3]
        assert torch.equal(scheduler.add_noise(clean, -noise, timesteps), noised(scheduler, clean, noise, 2))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_steered_scheduler_passes_for_the_pipelines_own(name):
    plain = SCHEDULES[name]()
    made = steered(plain, Hand())
    assert (
        isinstance(made, type(plain))
        and type(made).__name__ == type(plain).__name__
        and made.config == plain.config
    )
    for method in ("step", "set_timesteps"):
        assert inspect.signature(getattr(made, method)) == inspect.signature(getattr(plain, method))
    assert type(copy.deepcopy(made)) is type(plain)
