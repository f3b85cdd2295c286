"""The comparison's file of items: resumable, with settings that are not mixed."""

import math

import numpy as np
import pytest

from lab.compare import results
from lab.compare.results import Item, ItemFile
from streamingt2v.errors import RunError


def items(method: str, **values: float) -> list[Item]:
    """20 videos of a method whose numbers lie a little around the given ones,
    in the same way for every method."""
    around = np.random.default_rng(0).normal(0, 1e-3, 20)
    numbers = [{n: v + float(difference) for n, v in values.items()} for difference in around]
    return [Item("compared", method, i, 0, "a cat", 40, own, 1.0) for i, own in enumerate(numbers)]


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


def test_numbers_that_json_has_not_are_none():
    assert results.plain(math.nan) is results.plain(math.inf) is None and results.plain(1.2345678) == 1.2346


def test_rows_of_pixels_are_kept_without_loss(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (30, 16, 3), np.uint8)
    results.save_rows(rows, tmp_path / "deep" / "r.png")
    np.testing.assert_array_equal(results.load_rows(tmp_path / "deep" / "r.png"), rows)
