"""The pictures of curves and of slices through time: what is drawn is where it should be."""

import numpy as np
import pytest
from PIL import Image

from constructed import moving
from streamingt2v.errors import RequestError
from streamingt2v.metrics import chart
from streamingt2v.metrics.chart import MiddleRows, Track, draw_curves, draw_slices


def is_near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(pixels.astype(int) - colour).sum(-1) < 60


def drawn(path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def test_a_line_is_as_high_as_its_values(tmp_path):
    curve = np.array([0.0] * 50 + [1.0] * 50)
    draw_curves([Track("a", {"change": curve})], tmp_path / "c.png")
    pixels = drawn(tmp_path / "c.png")[chart.TOP :]  # without the legend
    line = is_near(pixels, chart.COLOURS[0])
    middle = chart.LEFT + (chart.WIDTH - chart.LEFT - chart.RIGHT) // 2
    low, high = (np.flatnonzero(line[:, columns].any(1)).mean() for columns in (slice(0, middle - 9), slice(middle + 9, None)))
    assert low - high == pytest.approx(chart.PANEL, abs=3)


def test_every_track_has_its_colour_and_gaps_do_no_harm(tmp_path):
    gaps = np.array([np.nan, 1, np.inf, 1, 1])
    curves = [Track("a", {"change": gaps}), Track("b", {"change": gaps + 1}), Track("c", {"anchor": np.full(5, np.nan)})]
    draw_curves(curves, tmp_path / "c.png")
    pixels = drawn(tmp_path / "c.png")
    assert all(is_near(pixels[chart.TOP :], colour).any() for colour in chart.COLOURS[:2])


@pytest.mark.parametrize(("frames", "through"), [(100, True), (3000, False)])
def test_seams_are_lines_or_where_too_close_marks(tmp_path, frames, through):
    draw_curves([Track("a", {"change": np.zeros(frames)}, borders=range(8, frames, 8))], tmp_path / "c.png")
    panel = drawn(tmp_path / "c.png")[chart.TOP + chart.GAP : chart.TOP + chart.PANEL - 20, chart.LEFT : -chart.RIGHT]
    assert is_near(panel, chart.FAINT).any() == through


def test_a_slice_shows_the_middle_row_of_every_frame_in_order(tmp_path):
    frames = np.zeros((40, 9, 16, 3), np.uint8)
    frames[20:, 4] = (255, 0, 0)
    rows = MiddleRows()
    for frame in frames:
        rows.add(frame)
    draw_slices([Track("a", row_TWC=rows.row_TWC, borders=range(16, 40, 8)), Track("b", row_TWC=rows.row_TWC[:20])], tmp_path / "s.png")
    red = is_near(drawn(tmp_path / "s.png"), (255, 0, 0)).any(0)
    middle = chart.LEFT + (chart.WIDTH - chart.LEFT - chart.RIGHT) / 2
    assert np.flatnonzero(red).min() == pytest.approx(middle, abs=2) and np.flatnonzero(red).max() == pytest.approx(
        chart.WIDTH - chart.RIGHT, abs=2
    )


def test_rows_are_copies(tmp_path):
    rows, frame = MiddleRows(), moving(1)[0]
    rows.add(frame)
    before = rows.row_TWC.copy()
    frame[:] = 0
    np.testing.assert_array_equal(rows.row_TWC, before)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.5, 1]), (0.993, 1.002, [0.99, 0.995, 1, 1.005]), (-3, 41, [-20, 0, 20, 40, 60]), (0, 1200, [0, 500, 1000, 1500])],
)
def test_scales_are_round_numbers_around_the_values(low, high, ticks):
    bottom, top, found = chart._scale(np.array([low, np.nan, high]))
    assert (bottom, top) == (found[0], found[-1]) and bottom <= low and top >= high
    assert found == pytest.approx(ticks)


def test_an_unknown_kind_of_picture_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"must end in \.png"):
        draw_curves([Track("a", {"change": np.zeros(3)})], tmp_path / "c.xyz")
