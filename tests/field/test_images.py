"""Images of every pixel type: right, or refused by name; none turns black or white silently."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms

from streamingt2v.errors import MediaError, RequestError
from streamingt2v.given import Given
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


def grey_profile():
    """Return an ICC profile of linear grey."""
    description = b"desc" + bytes(4) + (5).to_bytes(4, "big") + b"grey\0" + bytes(79)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, 256)
    tags = {b"desc": description, b"wtpt": white, b"kTRC": curve, b"cprt": b"text" + bytes(8)}
    index, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        index += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    size = struct.pack(">I", 128 + len(index) + len(body))
    head = size + b"lcms" + bytes([2, 0x40, 0, 0]) + b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    return (head + bytes(28) + white[8:]).ljust(128, b"\0") + index + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "I;16"])
def test_a_profile_is_applied(mode):
    image = Image.new("RGB", (8, 8), (128, 128, 128))
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 128 << 8, np.uint16))
    else:
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.info["icc_profile"] = grey_profile() if mode in ("L", "LA", "I;16") else gamma_profile(1.0)
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


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF", "ICO", "TGA"]
)
def test_files_that_end_anywhere_are_shown_or_refused(tmp_path, kind):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(data, kind)
    whole = data.getvalue()
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "a").write_bytes(whole[:end])
        with suppress(MediaError):
            list(stills.pictures(tmp_path / "a"))


@pytest.mark.parametrize("error", [TypeError, IndexError, RuntimeError, KeyError, struct.error])
def test_whatever_a_decoder_raises_it_is_damage(tmp_path, error):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="it is damaged"), stills.opened_image(tmp_path / "a.png"):
        raise error("somewhere inside")


def test_a_bomb_is_refused_in_our_words(tmp_path):
    head = struct.pack(">II5B", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(9))))
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(MediaError, match="the limit of 80 million pixels; scale it down"):
        read_image(tmp_path / "a.png", 8, 8)


def test_the_still_image_of_an_animation_is_no_frame(tmp_path):
    still, *frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    still.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True, duration=40)
    shown = [tuple(picture.pixels[0, 0]) for picture in stills.pictures(tmp_path / "a.png")]
    assert shown == [(0, 255, 0), (0, 0, 255)]


def test_images_in_memory_follow_the_same_rules():
    exif = Image.Exif()
    exif[0x112] = 6
    turned = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[0x112] = 6
    given = Given()
    wanted = [
        (Image.fromarray(np.full((8, 8), 30_000, np.uint16)), (8, 8), 117),
        (Image.new("RGBA", (8, 8), (255, 255, 255, 0)), (8, 8), 0),
        (turned, (8, 16), 0),
    ]
    for image, size, level in wanted:
        with Image.open(given.image(image)) as seen:
            assert seen.size == size and np.unique(np.asarray(seen)) == [level]
    with pytest.raises(RequestError, match="no known white"):
        given.image(Image.fromarray(np.full((8, 8), -3, np.float32)))
    given.close()
