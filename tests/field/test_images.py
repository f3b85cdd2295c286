"""Images of every pixel type: right, or refused by name; none turns black or white silently."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from streamingt2v.errors import MediaError
from streamingt2v.video import stills
from streamingt2v.video.reader import read_image

COLOUR = (200, 100, 50)
GREY = round(np.dot(COLOUR, (0.299, 0.587, 0.114)))
MODES = {
    "1": (255, 255, 255), "L": (GREY,) * 3, "LA": (GREY,) * 3, "La": (GREY,) * 3, "P": COLOUR,
    "RGB": COLOUR, "RGBA": COLOUR,
    "RGBa": COLOUR, "RGBX": COLOUR, "CMYK": COLOUR, "YCbCr": COLOUR, "HSV": COLOUR,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_eight_bits(mode):
    image = Image.new("RGB", (8, 8), COLOUR)
    if mode == "P":
        image = image.quantize(4)
    elif mode in ("RGBa", "La"):
        image = image.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)
    elif mode == "1":
        image = Image.new("1", (8, 8), 1)
    else:
        image = image.convert(mode)
    assert np.abs(np.asarray(stills.as_rgb(image)).astype(int) - MODES[mode]).max() <= 3


def test_lab_is_converted():
    grey = Image.fromarray(np.full((8, 8, 3), (137, 0, 0), np.uint8), "LAB")
    assert np.abs(np.asarray(stills.as_rgb(grey)).astype(int) - 129).max() <= 4


@pytest.mark.parametrize(
    "values, level",
    [
        (np.full((8, 8), 30_000, np.uint16), 117),
        (np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), None),
        (np.linspace(0, 65_535, 64, dtype=np.int32).reshape(8, 8), None),
    ],
)
def test_grey_of_many_levels(values, level):
    seen = np.asarray(stills.as_rgb(Image.fromarray(values)))
    assert (seen == level).all() if level is not None else (seen.min(), seen.max()) == (0, 255)


@pytest.mark.parametrize("value, kind", [(-3, np.float32), (500, np.float32), (2**20, np.int32)])
def test_numbers_that_do_not_say_which_is_white_are_refused(tmp_path, value, kind):
    Image.fromarray(np.full((8, 8), value, kind)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match=r"mode [FI]\)"):
        read_image(tmp_path / "a.tif", 8, 8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_transparency_is_laid_over_black(tmp_path, kind):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 4, 8, 8))
    image.save(tmp_path / "a", kind, **({"lossless": True} if kind == "WEBP" else {}))
    seen = read_image(tmp_path / "a", 8, 8)
    assert seen[:4].max() == 0 and (seen[4:] == [255, 0, 0]).all()


def gamma_profile(gamma):
    """Return an ICC profile with sRGB's primaries and another curve."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        entry = profile.index(name)
        place = int.from_bytes(profile[entry + 4 : entry + 8], "big")
        profile[place : place + 16] = (
            b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big") + bytes(2)
        )
        profile[entry + 8 : entry + 12] = (14).to_bytes(4, "big")
    return (
        bytes(profile)
        .replace("sRGB".encode("utf-16-be"), "gamm".encode("utf-16-be"))
        .replace(b"sRGB built", b"gamm built")
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_is_applied(mode):
    image = Image.new("RGB", (8, 8), (128, 128, 128))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.info["icc_profile"] = gamma_profile(1.0)
    assert np.abs(np.asarray(stills.as_rgb(image)).astype(int) - 188).max() <= 2  # linear light of a half


def test_srgb_and_broken_profiles_change_nothing():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile at all"):
        image.info["icc_profile"] = profile
        assert np.array_equal(np.asarray(stills.as_rgb(image)), np.asarray(image))


def test_programs_in_pictures_are_not_run(tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "EPS")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    with pytest.raises(MediaError, match="cannot be read as an image"):
        read_image(tmp_path / "a.png", 8, 8)
