"""Guidance."""

import torch

from recorded import assert_near
from streamingt2v.samplers.guidance import frames_alone, guide, guide_pair, match_spread, steadied
from toy_networks import randn

UNCOND, COND = randn(2, 3, 4), randn(2, 3, 4, seed=1) * 2


def test_scale_one_is_the_conditional_prediction():
    assert_near(guide(UNCOND, COND, 1.0), COND)
    assert_near(guide(UNCOND, COND, 0.0), UNCOND)


def test_pair_is_unconditional_first():
    assert torch.equal(guide_pair(torch.cat([UNCOND, COND]), 7.5), guide(UNCOND, COND, 7.5))


def test_rescale_pulls_each_element_to_the_conditional_spread():
    guided = guide(UNCOND, COND, 7.5)
    assert_near(guide(UNCOND, COND, 7.5, 1.0).std((1, 2)), COND.std((1, 2)))
    assert_near(match_spread(guided, COND, 0.0), guided)
    halfway = match_spread(guided, COND, 0.5).std((1, 2))
    assert_near(halfway, (COND.std((1, 2)) + guided.std((1, 2))) / 2)


def test_steadied_leads_away_from_what_frames_are_alone():
    whole, alone = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    torch.testing.assert_close(steadied(whole, alone, 0.5), 1.5 * whole - 0.5 * alone)


def test_frames_alone_are_asked_about_as_videos_of_one_frame():
    video = torch.randn(1, 2, 3, 4, 4)
    shapes = []

    def network(frames):
        shapes.append(frames.shape)
        return frames * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None, None]

    torch.testing.assert_close(
        frames_alone(network, video), video * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    )
    assert shapes == [(3, 2, 1, 4, 4)]
