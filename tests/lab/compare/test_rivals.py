"""Rivals that are trained: without effect at first, then learning,
and told of a window what their kind is told, no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lab.compare import rivals
from lab.compare.baselines import METHODS, trained_rivals
from lab.tiny.rival import RivalConfig, RivalTask
from streamingt2v import LongVideoPipeline, Request
from streamingt2v.errors import ModelError, RequestError
from streamingt2v.train.draws import Noise, generators
from toy import SIZE, write_toy_model
from toy_networks import randn

KINDS = tuple(rivals.NAMES)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_toy_model(tmp_path_factory.mktemp("toy") / "toy", refiner=False)


def task_of(kind: str, model: Path) -> RivalTask:
    torch.manual_seed(0)
    task = RivalTask(RivalConfig(base=model, text=model, vae=model, kind=kind, size=SIZE, encoder_steps=0))
    task.module.eval()  # as the loop does
    return task


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory) -> dict[str, tuple[float, float, Path]]:
    """Loss of each kind on one batch and its noise before and after a few steps on it, and the export."""
    found = {}
    for kind in KINDS:
        task = task_of(kind, model)
        batch = task.batch(generators(0, 0, range(2)), 0)
        optimizer = torch.optim.AdamW([p for p in task.module.parameters() if p.requires_grad], lr=3e-3)
        losses = []
        for _ in range(9):
            noise = Noise(generators(0, 1, range(2)))
            loss = task.module({**batch, "noise": noise})["loss"].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        folder = tmp_path_factory.mktemp(kind)
        task.export(folder)
        found[kind] = losses[0], losses[-1], folder
    return found


def predicted(task: RivalTask, window: torch.Tensor) -> torch.Tensor:
    ids = task.batch(generators(0, 0, range(1)), 0)["ids"]
    with torch.no_grad():
        return task.module.predictor(ids, window, 16)(randn(1, 16, 16, 4, 4), torch.tensor(500))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_rival_is_the_base(kind, model):
    task = task_of(kind, model)
    batch = task.batch(generators(0, 0, range(1)), 0)
    with torch.no_grad():
        text = task.module.frozen["text"](batch["ids"]).last_hidden_state
        base = task.module.unet(randn(1, 16, 16, 4, 4), torch.tensor(500), text)
    torch.testing.assert_close(predicted(task, randn(1, 8, 3, SIZE, SIZE).clamp(-1, 1)), base)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_rival_is_trained_and_it_learns(kind, trained, model):
    before, after, _ = trained[kind]
    assert after < 0.97 * before
    task = task_of(kind, model)
    names = {
        name.split(".")[0] for name, parameter in task.module.named_parameters() if parameter.requires_grad
    }
    assert names == {"rival"}


@pytest.mark.parametrize("kind", KINDS)
def test_of_the_window_it_sees_what_its_kind_is_told(kind, trained, model):
    task = task_of(kind, model)
    task.module.rival = rivals.load_rival(trained[kind][2], task.module.unet)
    window = randn(1, 8, 3, SIZE, SIZE).clamp(-1, 1)
    other_first, other_last = window.clone(), window.clone()
    other_first[:, 0], other_last[:, -1] = 0.5, 0.5
    plain = predicted(task, window)
    assert torch.equal(predicted(task, other_first), plain) == (kind == "last-frame")
    assert not torch.equal(predicted(task, other_last), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rival_makes_videos_of_exactly_so_many_frames(kind, trained, model):
    pipe = LongVideoPipeline.from_pretrained(model)
    ((name, method),) = trained_rivals([trained[kind][2]], pipe.components).items()
    assert name == rivals.NAMES[kind] and method.chunked and name not in METHODS
    request = Request("A cat running on the street", 21)
    video, forgetful = (
        np.stack(list(m.frames(pipe.components, request))) for m in (method, METHODS["nothing"])
    )
    assert video.shape == (21, SIZE, SIZE, 3)
    np.testing.assert_array_equal(video[:16], forgetful[:16])
    assert (video[16:] != forgetful[16:]).any()


def test_what_is_written_is_what_is_read(trained, model):
    for kind in KINDS:
        unet = task_of(kind, model).module.unet
        once = rivals.load_rival(trained[kind][2], unet)
        assert rivals.kind_of(once) == kind
        once.save_pretrained(trained[kind][2] / "again" / "rival")
        again = rivals.load_rival(trained[kind][2] / "again", unet)
        assert all(
            torch.equal(a, b)
            for a, b in zip(once.state_dict().values(), again.state_dict().values(), strict=True)
        )


def test_a_rival_of_another_base_is_refused(trained, model, tmp_path):
    unet = task_of("additive", model).module.unet
    with pytest.raises(ModelError, match="holds no rival"):
        rivals.load_rival(tmp_path, unet)
    with torch.no_grad():
        unet.conv_out.weight += 0.1
    with pytest.raises(ModelError, match="another base"):
        rivals.load_rival(trained["additive"][2], unet)


def test_two_rivals_of_a_kind_are_refused(trained, model):
    folder = trained["additive"][2]
    with pytest.raises(RequestError, match="second of kind 'additive'"):
        trained_rivals([folder, folder], LongVideoPipeline.from_pretrained(model).components)


def test_an_unknown_kind_is_a_wrong_request(model):
    with pytest.raises(RequestError, match="kind"):
        RivalConfig(base=model, text=model, vae=model, kind="average")
