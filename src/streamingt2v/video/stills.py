"""Images of every kind that Pillow decodes, still or moving, as opaque RGB in sRGB, upright. MediaError with the reason for all others."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from ..errors import MediaError
from .kinds import PICTURES
from .pixels import Frame, flattened

MAX_PIXELS = 80_000_000
"""Larger images and frames are refused: a few kilobytes of file can unpack to many gigabytes."""

_MOVING = {"GIF", "WEBP", "PNG", "AVIF"}  # others have pages, sizes or layers
_SHORTEST, _USUAL = (
    Fraction(2, 100),
    Fraction(10, 100),
)  # seconds: what moves faster than any screen is shown at the usual pace
_READABLE = {"1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBX", "La", "RGBa"}


@dataclass(frozen=True)
class Picture:
    """A frame of a moving image. pixels: uint8 (H, W, 3). time, seconds: when it is shown, and how long."""

    pixels: Frame
    time: Fraction
    seconds: Fraction


@contextmanager
def opened_image(path: str | PathLike[str]) -> Iterator[Image.Image]:
    """The image, not decoded yet. MediaError if it is none, or if decoding fails within the block."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image: Image.Image = Image.open(path, formats=PICTURES)
        with image:
            check_pixels(path, image.width, image.height)
            yield image
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        Image.DecompressionBombError,
        ImageCms.PyCMSError,
    ) as error:
        raise MediaError(f"{path}: cannot be read as a picture: {_reason(error)}") from error


def pictures(path: str | PathLike[str]) -> Iterator[Picture]:
    """The frames of a moving image, one at a time. MediaError where it is damaged, or has no frame."""
    time = Fraction(0)
    with opened_image(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            pixels = np.array(as_rgb(image))
            seconds = Fraction(image.info.get("duration") or 0).limit_denominator(1000) / 1000
            seconds = _USUAL if seconds < _SHORTEST else seconds
            yield Picture(pixels, time, seconds)
            time += seconds


def is_moving(path: str | PathLike[str]) -> bool:
    """Whether the file is an image of more than one frame. MediaError if it is no image."""
    with opened_image(path) as image:
        return image.format in _MOVING and getattr(image, "n_frames", 1) > 1


def as_rgb(image: Image.Image) -> Image.Image:
    """Opaque RGB in the colours of sRGB, upright. MediaError for a kind of pixel that cannot be told."""
    image = ImageOps.exif_transpose(image)
    opaque = _without_transparency(_in_eight_bits(image))
    return opaque if opaque.mode == "RGB" else opaque.convert("RGB")


def check_pixels(path: str | PathLike[str], width: int, height: int) -> None:
    """MediaError for more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{path}: {width}x{height} is more than the {MAX_PIXELS // 1_000_000} million pixels that are read; scale it down"
        )


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """The same in a mode of 8 bits whose colours are those of sRGB."""
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
        return ImageCms.applyTransform(image, transform)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_numbers(image)
    if image.mode not in _READABLE:
        raise MediaError(
            f"its pixels are of a kind that is not read ({image.mode}); save it as an 8-bit RGB picture"
        )
    return _in_srgb(image)


def _from_numbers(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or of numbers that tell by themselves what white is: 65535, or 1.0."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = values.astype(np.uint16) >> 8
    elif image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535:
        levels = values >> 8
    elif image.mode == "F" and values.min() >= 0 and 0 < values.max() <= 1:
        levels = np.rint(values * 255)
    else:
        raise MediaError(
            f"its pixels are numbers from {values.min():g} to {values.max():g} (mode {image.mode}), and nothing says which is white; "
            "save it as an 8-bit picture"
        )
    grey = Image.fromarray(levels.astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


_SRGB = ImageCms.createProfile("sRGB")
_PROFILES = {
    "1": None,
    "L": "L",
    "P": "RGB",
    "LA": "L",
    "PA": "RGB",
    "RGB": "RGB",
    "RGBA": "RGB",
    "RGBX": "RGB",
    "CMYK": "CMYK",
}


def _in_srgb(image: Image.Image) -> Image.Image:
    """Its colours from its own profile's to sRGB's; unchanged without a profile, with sRGB's own, or with one that cannot be used."""
    data, mode = image.info.get("icc_profile"), _PROFILES.get(image.mode)
    if not data or mode is None:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        if (
            "srgb" in (ImageCms.getProfileDescription(profile) or "").lower()
            or {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[mode] != space
        ):
            return image
        has_alpha = image.has_transparency_data
        colours = (
            image.convert("RGBA").convert("RGB")
            if mode == "RGB" and image.mode != "RGB"
            else image.convert(mode)
        )
        converted = ImageCms.applyTransform(colours, ImageCms.buildTransform(profile, _SRGB, mode, "RGB"))
        if has_alpha:
            converted.putalpha(image.convert("RGBA").getchannel("A"))
        return converted
    except (OSError, ImageCms.PyCMSError):  # a profile that is damaged says nothing
        return image


def _without_transparency(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "RGBa" or image.has_transparency_data:
        rgba: NDArray[np.uint8] = np.asarray(image.convert("RGBA"))
        return Image.fromarray(flattened(rgba))
    return image


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
