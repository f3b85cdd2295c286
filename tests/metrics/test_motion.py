"""Metrics of motion on constructed videos."""

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from constructed import constant_flow, flat, moving, result_of, texture
from streamingt2v.errors import MediaError, RequestError
from streamingt2v.metrics import flow
from streamingt2v.metrics.metric import Tools
from streamingt2v.metrics.motion import FlowScore, Mawe, Seam, Stagnation, WarpError


def test_known_motion_is_measured_and_predicts_the_next_frame():
    pytest.importorskip("cv2")
    tools = Tools(flow.dis())
    assert result_of(FlowScore(), moving(4), tools).values["flow_score"] == pytest.approx(
        math.sqrt(5), rel=0.05
    )
    moved, jumping = (
        result_of(WarpError(), frames, tools).values["warp_error"]
        for frames in (moving(4), np.stack([texture(), texture(seed=1)]))
    )
    assert moved < 60 < 600 < jumping


def test_flow_is_the_same_for_any_number_of_threads():
    cv2 = pytest.importorskip("cv2")
    before, after = texture(256, 256), np.roll(texture(256, 256), 3, 1)
    estimates, threads = [], cv2.getNumThreads()
    try:
        for count in (1, 2, 4):
            cv2.setNumThreads(count)
            estimates.append(flow.dis().estimate(before, after))
            assert cv2.getNumThreads() == count  # what others set is left as it was
    finally:
        cv2.setNumThreads(threads)
    assert all(np.array_equal(estimates[0], other) for other in estimates[1:])


def test_errors_over_motion_by_hand():
    # moved by (3, 4), so by 5 pixels a frame; two pairs whose levels differ by 10 and 20
    tools, frames = Tools(constant_flow(3, 4)), flat(100, 110, 130)
    assert result_of(WarpError(), frames, tools).values["warp_error"] == (100 + 400) / 2
    values = result_of(Mawe(), frames, tools).values
    assert values["mawe"] == pytest.approx(250 / (9.5 * 5)) and values["mawe_published"] == pytest.approx(
        (100 + 400) / 2 / (9.5 * 5)
    )
    np.testing.assert_equal(result_of(FlowScore(), frames, tools).curves["motion"], [np.nan, 5, 5])


def test_a_still_pair_spoils_the_published_mawe_alone():
    motions = iter([4.0, 0.0])
    tools = Tools(
        flow.Flow("next", lambda a, b: np.full((2, 32, 32), next(motions)) * np.array([1, 0])[:, None, None])
    )
    values = result_of(Mawe(), flat(100, 110, 120), tools).values
    assert values["mawe_published"] == math.inf and values["mawe"] == pytest.approx(100 / (9.5 * 2))


def test_a_freeze_is_seen():
    motions = iter([2.0] * 10 + [0.5] * 9)
    tools = Tools(
        flow.Flow("next", lambda a, b: np.full((2, 64, 64), next(motions)) * np.array([1, 0])[:, None, None])
    )
    frames = np.concatenate([moving(11), np.repeat(moving(11)[-1:], 9, 0)])
    values = result_of(Stagnation(), frames, tools).values
    assert values["motion_kept"] == pytest.approx(0.25) and values["still"] == pytest.approx(9 / 19)
    assert result_of(Stagnation(window=2), frames[:5], Tools(constant_flow(1, 0))).values == {
        "motion_kept": 1,
        "still": 0,
    }


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_are_not_a_number(frames):
    tools = Tools(constant_flow(1, 0))
    assert math.isnan(result_of(Stagnation(), flat(*range(frames)), tools).values["motion_kept"])
    assert math.isnan(result_of(Mawe(), flat(*range(frames)), tools).values["mawe"]) == (frames == 1)


def test_a_seam_is_its_change_over_that_beside_it():
    steps = np.full(40, 2)
    steps[[16, 24, 32]] = 6  # what begins a chunk changes three times as much
    frames, borders = flat(*np.cumsum(steps)), lambda count: range(16, count, 8)
    assert result_of(Seam(borders), frames).values["seam"] == pytest.approx(3)
    assert result_of(Seam(lambda count: range(17, count, 8)), frames).values["seam"] < 1
    steady = flat(*np.arange(40) * 3)
    assert result_of(Seam(borders), steady).values["seam"] == 1
    assert math.isnan(result_of(Seam(borders), flat(*[7] * 40)).values["seam"])
    assert math.isnan(result_of(Seam(borders), frames[:10]).values["seam"])  # no border in it


def test_a_seam_does_not_depend_on_how_much_moves_where():
    steps = np.concatenate([np.full(20, 1), np.full(20, 5)])
    assert result_of(Seam(lambda count: [8, 32]), flat(*np.cumsum(steps))).values["seam"] == 1


def test_frames_too_small_for_flow_are_refused_with_the_way_out():
    pytest.importorskip("cv2")
    with pytest.raises(MediaError, match=r"16x16 is too small for optical flow.*--flow-size"):
        result_of(FlowScore(), flat(1, 2, size=16), Tools(flow.dis()))
    assert result_of(FlowScore(), flat(1, 2, size=16), Tools(flow.dis(size=64))).values["flow_score"] < 0.01
    with pytest.raises(RequestError, match="flow_size=8: must be 32 or more"):
        flow.best_flow(8)


def test_flow_is_measured_at_the_size_that_is_asked_for():
    pytest.importorskip("cv2")
    assert result_of(FlowScore(), moving(3), Tools(flow.dis(128))).values["flow_score"] == pytest.approx(
        2 * math.sqrt(5), rel=0.05
    )


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """Fake torchvision: its RAFT sees everything move by (8, 4) pixels of its input."""

    class Network(torch.nn.Module):
        def forward(self, before, after):
            assert before.min() >= -1 and before.max() <= 1 and before.shape[-1] % 8 == 0
            return [
                torch.zeros(1, 2, *before.shape[2:]),
                torch.tensor([8.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, *before.shape[2:]),
            ]

    module = ModuleType("torchvision.models.optical_flow")
    module.Raft_Large_Weights = SimpleNamespace(DEFAULT=SimpleNamespace(url="https://example.org/raft.pth"))
    module.raft_large = lambda weights: Network()
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    yield tmp_path / "checkpoints" / "raft.pth"
    flow._raft_network.cache_clear()


def test_raft_is_taken_only_where_its_weights_are(torchvision):
    pytest.importorskip("cv2")
    assert flow.best_flow().name.startswith("OpenCV")
    with pytest.raises(RequestError, match="weights of raft_large"):
        flow.raft()
    torchvision.parent.mkdir()
    torch.save({}, torchvision)
    estimator = flow.best_flow()
    # 32 x 64 pixels are enlarged to 128 x 128 for it, and its vectors scaled back
    np.testing.assert_allclose(
        estimator.estimate(*np.zeros((2, 32, 64, 3), np.uint8)).mean((1, 2)), [8 * 64 / 128, 4 * 32 / 128]
    )
    assert estimator.name == "torchvision RAFT-large"
