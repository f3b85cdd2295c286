"""Contact sheets and slices through time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from streamingt2v.errors import MediaError, RequestError, RunError
from streamingt2v.video.images import contact_sheet, xt_slice


def test_the_sheet_shows_every_nth_frame_row_by_row(tmp_path, moving):
    frames = moving(21)
    contact_sheet(iter(frames), tmp_path / "sheet.png", columns=4, every=4)  # frames 0, 4 .. 20: two rows
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 16, 4 * 32, 3)
    for place, frame in enumerate(range(0, 21, 4)):
        y, x = place // 4 * 16, place % 4 * 32
        assert np.array_equal(sheet[y : y + 16, x : x + 32], frames[frame])
    assert not sheet[16:, 64:].any()


def test_a_sheet_of_few_frames_is_no_wider_than_they(tmp_path, moving):
    contact_sheet(moving(2), tmp_path / "sheet.png", every=1)
    assert Image.open(tmp_path / "sheet.png").size == (64, 16)


def test_the_slice_has_the_middle_row_of_every_frame(tmp_path, moving):
    xt_slice(iter(moving(10)), tmp_path / "xt.png")
    image = np.asarray(Image.open(tmp_path / "xt.png"))
    assert image.shape == (160, 512, 3)  # enlarged 16 times
    assert np.array_equal(image[::16, ::16], moving(10)[:, 8])
    assert np.array_equal(image, image[::16, ::16].repeat(16, 0).repeat(16, 1))


def test_wrong_wishes(tmp_path, moving):
    for wrong in ({"columns": 0}, {"every": 0}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            contact_sheet(moving(1), tmp_path / "a.png", **wrong)
    for draw in (contact_sheet, xt_slice):
        with pytest.raises(MediaError, match="no frames"):
            draw(iter(()), tmp_path / "a.png")
        with pytest.raises(RequestError, match="image format"):
            draw(moving(1), tmp_path / "a.xyz")
        with pytest.raises(RunError, match="cannot be written"):
            draw(moving(1), tmp_path / "missing" / "a.png")
    assert list(tmp_path.iterdir()) == []
