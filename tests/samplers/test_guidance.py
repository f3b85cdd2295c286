"""Guidance."""

import torch

from recorded import assert_near
from streamingt2v.samplers.guidance import guide, guide_pair, match_spread
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
