"""Decode images, still or moving, to opaque upright sRGB. MediaError with the reason for all others."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import MediaError
from .kinds import PICTURES
from .pixels import Frame, flattened

MAX_PIXELS = 80_000_000
"""Limit of images and frames: a few kilobytes of file can unpack to many gigabytes."""

_LIMIT = f"the limit of {MAX_PIXELS // 1_000_000} million pixels"
_MOVING = {"GIF", "WEBP", "PNG", "AVIF"}  # other types use several images for pages, sizes or layers
_SHORTEST, _USUAL = (
    Fraction(2, 100),
    Fraction(10, 100),
)  # seconds; browsers replace shorter durations by 0.1 s
_READABLE = {"1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBX", "La", "RGBa"}


@dataclass(frozen=True)
class Picture:
    """A frame of a moving image. pixels: uint8 (H, W, 3). time: shown at. seconds: shown for."""

    pixels: Frame
    time: Fraction
    seconds: Fraction


@contextmanager
def opened_image(path: str | PathLike[str]) -> Iterator[Image.Image]:
    """Open an image without decoding it. MediaError if it is none, or if decoding fails within the block."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd metadata; and the limit below is stricter than Pillow's
            image: Image.Image = Image.open(path, formats=PICTURES)
        with image:
            check_pixels(path, image.width, image.height)
            yield image
    except (MediaError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # Pillow's decoders raise whatever damage leads them to: struct.error, TypeError
        raise MediaError(f"{path}: cannot be read as an image: {reason(error)}") from error


def pictures(path: str | PathLike[str]) -> Iterator[Picture]:
    """Yield the frames of a moving image. MediaError where it is damaged."""
    time = Fraction(0)
    with opened_image(path) as image:
        aside = bool(image.info.get("default_image"))  # an APNG's image for viewers that cannot play it
        for number in range(aside, getattr(image, "n_frames", 1)):
            image.seek(number)
            pixels = np.array(as_rgb(image))
            seconds = Fraction(image.info.get("duration") or 0).limit_denominator(1000) / 1000
            seconds = _USUAL if seconds < _SHORTEST else seconds
            yield Picture(pixels, time, seconds)
            time += seconds


def is_moving(path: str | PathLike[str]) -> bool:
    """Tell whether the file is an image of more than one frame. MediaError if it is no image."""
    with opened_image(path) as image:
        return image.format in _MOVING and getattr(image, "n_frames", 1) > 1


def as_rgb(image: Image.Image) -> Image.Image:
    """Return opaque upright RGB in sRGB. ValueError for pixels whose meaning is unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on odd metadata
        image = ImageOps.exif_transpose(image)
        opaque = _without_transparency(_in_eight_bits(image))
        return opaque if opaque.mode == "RGB" else opaque.convert("RGB")


def check_pixels(path: str | PathLike[str], width: int, height: int) -> None:
    """Raise MediaError for more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: {width}x{height} is more than {_LIMIT}; scale it down")


def reason(error: BaseException) -> str:
    """Return an error's text without the path, which our messages name already."""
    if isinstance(error, UnidentifiedImageError):  # e.g. HEIC
        return "it is no image of a supported type; convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {_LIMIT}; scale it down"
    if not isinstance(error, OSError | ValueError | SyntaxError):  # their texts speak of the decoder
        return "it is damaged"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Convert to an 8-bit mode in sRGB."""
    if image.mode == "LAB":
        return _transformed(image, ImageCms.createProfile("LAB"), "LAB")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _in_srgb(_from_numbers(image))
    if image.mode not in _READABLE:
        raise ValueError(f"its pixel type ({image.mode}) is not supported; save it as 8-bit RGB")
    return _in_srgb(image)


def _from_numbers(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey, or 32-bit numbers whose range shows that white is 65535 or 1.0, to 8 bits."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        levels = values.astype(np.uint16) >> 8
    elif image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535:
        levels = values >> 8
    elif image.mode == "F" and values.min() >= 0 and 0 < values.max() <= 1:
        levels = np.rint(values * 255)
    else:
        span = f"{values.min():g} to {values.max():g}"
        raise ValueError(
            f"its pixels (mode {image.mode}) go from {span}, with no known white; save it as 8-bit"
        )
    grey = Image.fromarray(levels.astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    grey.info["icc_profile"] = image.info.get("icc_profile")
    return grey


_SRGB = ImageCms.createProfile("sRGB")
_PROFILED = {"L": "L", "LA": "L", "CMYK": "CMYK"} | dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBX"), "RGB")
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert from the ICC profile to sRGB; unchanged without one, or if it is sRGB's or unusable."""
    data, mode = image.info.get("icc_profile"), _PROFILED.get(image.mode)
    if not data or mode is None:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        is_srgb = "srgb" in (ImageCms.getProfileDescription(profile) or "").lower()
        if is_srgb or _SPACES[mode] != profile.profile.xcolor_space.strip():
            return image
        through_rgba = mode == "RGB" and image.mode != "RGB"
        colours = image.convert("RGBA").convert("RGB") if through_rgba else image.convert(mode)
        converted = _transformed(colours, profile, mode)
        if image.has_transparency_data:
            converted.putalpha(image.convert("RGBA").getchannel("A"))
        return converted
    except (OSError, ImageCms.PyCMSError):  # the profile is damaged
        return image


def _transformed(
    image: Image.Image, profile: ImageCms.ImageCmsProfile | ImageCms.core.CmsProfile, mode: str
) -> Image.Image:
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(profile, _SRGB, mode, "RGB"))
    assert converted is not None, "None only where the image is changed in place"
    return converted


def _without_transparency(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "RGBa" or image.has_transparency_data:
        rgba: NDArray[np.uint8] = np.asarray(image.convert("RGBA"))
        return Image.fromarray(flattened(rgba))
    return image
