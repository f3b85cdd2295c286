"""Images of curves and slices: elements are in their places."""

import numpy as np
import pytest
from PIL import Image

from constructed import moving
from streamingt2v.errors import MissingExtra, RequestError
from streamingt2v.metrics import chart
from streamingt2v.metrics.chart import (
    MiddleRows,
    Track,
    curves_figure,
    draw_curves,
    draw_slices,
    slices_figure,
)


def lines(panel) -> dict:
    return {line.get_label(): line for line in panel.get_lines() if not line.get_label().startswith("_")}


def test_a_line_has_the_values_of_its_curve_at_the_middle_of_its_frames():
    curve = np.array([0.0, 2.0, np.nan, 1.0])
    (panel,) = curves_figure([Track("a", {"change": curve})]).axes
    x, y = lines(panel)["a"].get_data()
    np.testing.assert_array_equal(x, [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_array_equal(y, curve)
    assert panel.get_xlim() == (0, 4) and "levels" in panel.get_title(loc="left")


def test_every_track_has_its_colour_and_gaps_do_no_harm(tmp_path):
    gaps = np.array([np.nan, 1, np.inf, 1, 1])
    curves = [
        Track("a", {"change": gaps}),
        Track("b", {"change": gaps + 1}),
        Track("c", {"anchor": np.full(5, np.nan)}),
    ]
    first, second = curves_figure(curves).axes
    assert [lines(first)[name].get_color() for name in "ab"] == list(chart.COLOURS[:2]) and "c" not in lines(
        first
    )
    assert lines(second)["c"].get_color() == chart.COLOURS[2]
    draw_curves(curves, tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").width == chart.WIDTH * chart.DPI


@pytest.mark.parametrize(("frames", "through"), [(100, True), (3000, False)])
def test_seams_are_lines_or_where_too_close_marks(frames, through):
    borders = range(8, frames, 8)
    (panel,) = curves_figure([Track("a", {"change": np.zeros(frames)}, borders=borders)]).axes
    assert list(panel.get_xticks(minor=True)) == list(borders)
    assert len([line for line in panel.get_lines() if line.get_linestyle() == ":"]) == (
        len(borders) if through else 0
    )


def test_a_slice_shows_the_middle_row_of_every_frame_in_order(tmp_path):
    frames = np.zeros((40, 9, 16, 3), np.uint8)
    frames[20:, 4] = (255, 0, 0)
    rows = MiddleRows()
    for frame in frames:
        rows.add(frame)
    tracks = [
        Track("a", row_TWC=rows.row_TWC, borders=range(16, 40, 8)),
        Track("b", row_TWC=rows.row_TWC[:20]),
        Track("no rows"),
    ]
    first, second = slices_figure(tracks).axes
    np.testing.assert_array_equal(first.get_images()[0].get_array(), rows.row_TWC.transpose(1, 0, 2))
    assert second.get_images()[0].get_extent() == [0, 20, 0, 1] and second.get_xlim() == (0, 40), (
        "at one scale"
    )
    draw_slices(tracks, tmp_path / "s.png")
    red = (np.array(Image.open(tmp_path / "s.png").convert("RGB")) == (255, 0, 0)).all(-1)
    assert red.any() and np.flatnonzero(red.any(0)).min() > chart.WIDTH * chart.DPI / 3


def test_rows_are_copies():
    rows, frame = MiddleRows(), moving(1)[0]
    rows.add(frame)
    before = rows.row_TWC.copy()
    frame[:] = 0
    np.testing.assert_array_equal(rows.row_TWC, before)


def test_an_unknown_kind_of_image_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"must end in \.png"):
        draw_curves([Track("a", {"change": np.zeros(3)})], tmp_path / "c.xyz")


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(chart, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"streamingt2v\[eval\]"):
        chart.check_installed("slice")


def test_slices_of_long_videos_are_thinned_at_their_scale(monkeypatch):
    monkeypatch.setattr(chart, "MOST_ROWS", 8)
    rows = MiddleRows()
    for number in range(40):
        rows.add(np.full((4, 6, 3), number, np.uint8))
    assert rows.row_TWC[:, 0, 0].tolist() == [0, 8, 16, 24, 32]
    figure = slices_figure([Track("long", row_TWC=rows.row_TWC, frames=40)])
    assert figure.axes[0].get_images()[0].get_extent() == [0, 40, 0, 1] and figure.axes[0].get_xlim() == (
        0,
        40,
    )
