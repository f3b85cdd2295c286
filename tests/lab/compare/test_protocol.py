"""Intervals, and the protocol of judging."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.compare import protocol
from lab.compare.judge import Verdict, load_judge
from lab.compare.statistics import bootstrap, paired, share
from lab.world import clip, vocabulary

NOUNS = [noun.name for noun in vocabulary.NOUNS]


class OneTruth:
    """A judge who always says the same."""

    def judge(self, frames):
        assert frames.shape == (protocol.WINDOW, 64, 64, 3)
        return Verdict("cat", "snow", "run")


def test_wilsons_interval_by_hand():
    assert share(8, 10) == pytest.approx((0.8, 0.4902, 0.9433, 10), abs=1e-4)
    assert share(0, 20).low == 0 and share(20, 20).high == 1 and 0 < share(0, 20).high < 0.2
    assert math.isnan(share(0, 0).value)


@given(st.integers(1, 300), st.data())
def test_a_share_lies_in_its_interval(count, data):
    hit = data.draw(st.integers(0, count))
    part = share(hit, count)
    assert 0 <= part.low <= part.value <= part.high <= 1


def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        (e := bootstrap({i: [v] for i, v in enumerate(rng.normal(5, 2, 40))}, draws=400, seed=s)).low
        <= 5
        <= e.high
        for s in range(200)
    ]
    assert 0.88 < np.mean(covered) < 0.99


def test_videos_of_one_prompt_count_as_one():
    values = np.random.default_rng(1).normal(size=12)
    apart = bootstrap({i: [v] for i, v in enumerate(values)})
    tripled = bootstrap({i: [v] * 3 for i, v in enumerate(values)})
    assert (
        tripled.low == pytest.approx(apart.low)
        and tripled.high == pytest.approx(apart.high)
        and tripled.n == 36
    )
    assert bootstrap({0: [1.0, math.nan], 1: [math.inf, 3.0]}).value == 2 and math.isnan(
        bootstrap({0: [math.nan]}).value
    )


def test_pairs_tell_a_difference_that_means_hide():
    rng = np.random.default_rng(2)
    ours = {p: {s: float(10 * p + rng.normal()) for s in range(3)} for p in range(20)}
    theirs = {
        p: {s: v + 1 + 0.1 * float(rng.normal()) for s, v in row.items()} for p, row in ours.items()
    } | {99: {0: 1e6}}
    difference = paired(ours, theirs)
    assert difference.low > 0.9 and difference.high < 1.1 and difference.n == 60
    assert bootstrap({p: list(row.values()) for p, row in ours.items()}).high - 95 > 10


def test_accuracy_is_the_share_of_clips_that_are_named_rightly():
    specs = [clip.sample((protocol.TRUTH_SEED, i), ("cat", "bus")) for i in range(12)]
    rates = protocol.accuracy(OneTruth(), ("cat", "bus"), 12)
    for kind, name in (("noun", "cat"), ("scene", "snow"), ("motion", "run")):
        assert rates[kind].value == pytest.approx(np.mean([getattr(spec, kind) == name for spec in specs]))
        assert rates[kind].n == 12
    assert protocol.accuracy(load_judge(), ("cat", "bus"), 6)["scene"].value > 0.5


def test_prompts_cover_nouns_scenes_and_motions_in_words_not_trained_on():
    specs = protocol.prompts(NOUNS, 60)
    assert {spec.noun for spec in specs} == set(NOUNS)
    assert len({spec.scene for spec in specs}) == 8 and len({spec.motion for spec in specs}) == 7
    assert len({(spec.noun, spec.scene, spec.motion) for spec in specs}) == 60
    assert [spec.caption for spec in specs] == [spec.caption for spec in protocol.prompts(NOUNS, 60)]
    assert [s.caption for s in specs] != [s.caption for s in protocol.prompts(NOUNS, 60, held_out=False)]


@pytest.mark.parametrize("count", [1, 16, 40])
def test_windows_are_the_first_and_the_last_frames(count):
    windows, frames = protocol.Windows(), np.arange(count * 12, dtype=np.int64).reshape(count, 2, 2, 3)
    for frame in frames:
        windows.add(frame)
    np.testing.assert_array_equal(windows.first, frames[:16])
    np.testing.assert_array_equal(windows.last, frames[-16:])
