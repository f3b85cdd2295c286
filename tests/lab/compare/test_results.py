"""The comparison's file of items and its tables: resumable, and saying who wins and who does not."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lab.compare import results
from lab.compare.results import Item, ItemFile
from streamingt2v.errors import RunError

SEEN = {"noun": True, "scene": True, "motion": False}


def items(method: str, **values: float) -> list[Item]:
    """20 videos of a method whose numbers lie a little around the given ones,
    in the same way for every method."""
    around, curves = np.random.default_rng(0).normal(0, 1e-3, 20), {"anchor": [1.0, 0.5, None]}
    numbers = [{n: v + float(difference) for n, v in values.items()} for difference in around]
    return [
        Item("compared", method, i, 0, "a cat", 40, own, SEEN, SEEN, curves, 1.0)
        for i, own in enumerate(numbers)
    ]


def test_items_are_kept_line_by_line_and_a_torn_line_is_written_over(tmp_path):
    file = ItemFile(tmp_path, {"model": "m"})
    first, second, third = items("ours", mawe=1.0)[:3]
    file.add(first)
    file.add(second)
    with (tmp_path / "items.jsonl").open("ab") as torn:
        torn.write(b'{"method": "ou')
    again = ItemFile(tmp_path, {"model": "m"})
    assert again.items == [first, second] and first.key in again and third.key not in again
    again.add(third)
    assert ItemFile(tmp_path, {"model": "m"}).items == [first, second, third]
    with pytest.raises(RunError, match="was begun with another frames, model"):
        ItemFile(tmp_path, {"model": "other", "frames": 3})


def test_settings_of_what_comes_later_may_be_new_but_not_change(tmp_path):
    for later in ({}, {"rival a": "1"}, {"rival b": "2"}, {"rival a": "1", "rival b": "2"}):
        ItemFile(tmp_path, {"model": "m"}, later)
    with pytest.raises(RunError, match="another rival b"):
        ItemFile(tmp_path, {"model": "m"}, {"rival b": "3"})


def test_numbers_that_json_has_not_are_none():
    assert results.plain(math.nan) is results.plain(math.inf) is None and results.plain(1.2345678) == 1.2346
    assert results.binned(np.array([math.nan, 1, 2, 4, 6, 8]), 3) == [1, 3, 7]
    assert results.binned(np.array([math.nan, 1]), 2) == [None, 1]


def test_losses_follow_what_is_better_and_leave_the_reference_out():
    ours = items("ours", mawe=2.0, anchor=0.9, seam=1.1, flow_score=3.0, flicker=1.0)
    rival = items("rival", mawe=1.0, anchor=0.8, seam=0.95, flow_score=9.0, flicker=1.0)
    truth = items("truth", mawe=0.1, anchor=1.0, seam=1.0, flow_score=1.0, flicker=0.1)
    # mawe is better lower, seam nearer to 1, anchor higher; flow_score has no better side;
    # equal flicker is no loss
    assert results.losses([*ours, *rival, *truth], "ours", "truth") == ["`mawe`: rival", "`seam`: rival"]


def test_a_difference_is_bold_only_if_sure():
    ours = items("ours", mawe=2.0, flicker=1.0)
    rival = [
        replace(i, values=i.values | {"flicker": 1.0 + (-1) ** i.prompt}) for i in items("rival", mawe=1.5)
    ]
    lines = {
        line.split("|")[1].strip(): line
        for line in results.difference_table([*ours, *rival], "ours").splitlines()
    }
    assert "**-0.500 [-0.500, -0.500]**" in lines["mawe"] and "lower" in lines["mawe"]
    assert "**" not in lines["flicker"]


def test_mean_curves_stand_in_the_middle_of_their_stretches():
    curve = results.mean_curves(
        [*items("a")[:1], replace(items("a")[0], curves={"anchor": [0.0, 0.5, None]})]
    )["anchor"]
    assert len(curve) == 40 and np.flatnonzero(np.isfinite(curve)).tolist() == [6, 20]
    assert curve[[6, 20]].tolist() == [0.5, 0.5]


def test_rows_of_pixels_are_kept_without_loss(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (30, 16, 3), np.uint8)
    results.save_rows(rows, tmp_path / "deep" / "r.png")
    np.testing.assert_array_equal(results.load_rows(tmp_path / "deep" / "r.png"), rows)
