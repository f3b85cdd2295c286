"""Ways in which diffusers' pipelines continue a video: natively, from an image, or with a held overlap.

Each way is a row of `WAYS`, best first; a pipeline's class tells which it has. All of them take the last
frames of the video (the window) and return a clip whose first frames show the window again.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from ..errors import ModelError
from ..video.piece import to_uint8
from .families import needed, redraws_videos
from .latents import Moments, arrange, encode, temporal_ratio, time_axis, tokens_per_frame
from .steering import Hand, HeldOverlap

SIBLINGS = {
    "LTXPipeline": "LTXConditionPipeline",
    "LTXImageToVideoPipeline": "LTXConditionPipeline",
    "LTX2Pipeline": "LTX2ConditionPipeline",
    "LTX2ImageToVideoPipeline": "LTX2ConditionPipeline",
    "SkyReelsV2DiffusionForcingPipeline": "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
}
"""Classes that continue videos natively, by the class whose folder holds all that they need."""
REDRAWING = {
    "WanPipeline": "WanVideoToVideoPipeline",
    "CogVideoXPipeline": "CogVideoXVideoToVideoPipeline",
    "AnimateDiffPipeline": "AnimateDiffVideoToVideoPipeline",
    "TextToVideoSDPipeline": "VideoToVideoSDPipeline",
}
"""Video-to-video classes with a strength, by the class whose folder holds all that they need."""
UNSTEERED = (
    "SkyReelsV2DiffusionForcing", "HunyuanVideoFramepack", "CosmosTextToWorld", "CosmosVideoToWorld",
    "Helios", "AnyFlowFAR", "Allegro",
)  # fmt: skip
"""Families whose overlap cannot be held: they step on copies of their scheduler, lay out their latents in
their own way, or cannot encode a few frames.
"""


@dataclass(frozen=True)
class Window:
    """Input of the next chunk.

    frames_TCHW: last frames of the video in [-1, 1]; r m + 1 of them for an autoencoder that packs r. frames:
    length of the chunk, with the window. anchor_CHW: the frame that keeps the appearance. moments: of the
    first chunk's latents; share: how far the window's are pulled to them (0..1).
    """

    frames_TCHW: torch.Tensor
    frames: int
    anchor_CHW: torch.Tensor
    moments: Moments | None = None
    share: float = 0.5

    @property
    def images(self) -> list[Image.Image]:
        """The window's frames as pipelines take them."""
        return [Image.fromarray(frame) for frame in to_uint8(self.frames_TCHW)]

    @property
    def anchor(self) -> Image.Image:
        """The anchor frame as pipelines take it."""
        return Image.fromarray(to_uint8(self.anchor_CHW[None])[0])


@dataclass(frozen=True)
class Continuation:
    """Arguments and hand to make a chunk with.

    shown: number of first frames of the clip that show the window again.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    hand: Hand = field(default_factory=Hand)
    shown: int = 0


@dataclass(frozen=True)
class Way:
    """A way to continue. remembers: it takes the anchor frame, so appearance lasts longer than a window."""

    name: str
    help: str
    has: Callable[[type, Mapping[str, inspect.Parameter]], bool]
    prepare: Callable[[Any, Window], Continuation]
    remembers: bool = False


def ways(kind: type) -> tuple[str, ...]:
    """Return the ways that a pipeline's class has, best first; empty if it cannot continue a video."""
    takes = inspect.signature(kind.__call__).parameters
    return tuple(name for name, way in WAYS.items() if way.has(kind, takes))


def sibling(kind: type, scheduler: Mapping[str, Any]) -> type:
    """Return the class that continues videos natively with the components of `kind`, or `kind` itself.

    scheduler: its scheduler's configuration. The first LTX weights shift their schedule by the size, which
    only their own class does.
    """
    name = SIBLINGS.get(kind.__name__)
    if name is None or (name == "LTXConditionPipeline" and scheduler.get("use_dynamic_shifting")):
        return kind
    return getattr(importlib.import_module("diffusers"), name)


def redrawing_class(kind: type) -> type:
    """Return the video-to-video class with the components of `kind`, or `kind` itself."""
    name = REDRAWING.get(kind.__name__)
    return getattr(importlib.import_module("diffusers"), name) if name else kind


def redraws(kind: type) -> bool:
    """Tell whether stage 3 can use a class: by its strength, or from noised latents."""
    kind = redrawing_class(kind)
    takes = inspect.signature(kind.__call__).parameters
    return redraws_videos(kind) or ("overlap" in ways(kind) and "conditions" not in takes)


def as_sibling(pipe: Any, kind: type) -> Any:
    """Return a pipeline of class `kind` that shares this one's networks."""
    if type(pipe) is kind:
        return pipe
    takes = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    own = {**pipe.config, **pipe.components}
    made = kind(**{name: value for name, value in own.items() if name in takes})
    made.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return made


def window_length(pipe: Any, frames: int) -> int:
    """Round a window's length down to one that the pipeline's autoencoder can pack, at least 1."""
    ratio = temporal_ratio(pipe)
    return max(1, (frames - 1) // ratio * ratio + 1)


def held_overlap(pipe: Any, window: Window) -> Continuation:
    """Hold the window's latents at every step (`steering.HeldOverlap`)."""
    latents = encode(pipe, window.frames_TCHW)
    if window.moments is not None:
        latents = window.moments.pull(latents, window.share)
    places = tokens_per_frame(pipe, latents)
    total = ((window.frames - 1) // temporal_ratio(pipe) + 1) * places
    hand = HeldOverlap(arrange(pipe, latents), time_axis(pipe), total)
    return Continuation({}, hand, len(window.frames_TCHW))


def _image(pipe: Any, window: Window) -> Continuation:
    """Start from the window's first frame and hold the overlap; if it cannot be held, from the last."""
    image = {"image": window.images[0]}
    if unsteered(type(pipe)):
        return Continuation({"image": window.images[-1]}, Hand(), 1)
    held = held_overlap(pipe, window)
    return Continuation(image, held.hand, held.shown)


def _conditions(pipe: Any, window: Window) -> Continuation:
    module = importlib.import_module(type(pipe).__module__)
    if hasattr(module, "LTX2VideoCondition"):
        condition = module.LTX2VideoCondition(frames=window.images, index=0, strength=1.0)
    elif hasattr(module, "LTXVideoCondition"):
        condition = module.LTXVideoCondition(video=window.images, frame_index=0, strength=1.0)
    else:
        raise ModelError(f"{type(pipe).__name__}: its conditions are of an unknown kind; choose another way")
    return Continuation({"conditions": [condition]}, Hand(), len(window.frames_TCHW))


def _mask(pipe: Any, window: Window) -> Continuation:
    """Pass the window as known pixels (black in the mask) and the anchor as a reference."""
    size, missing = window.images[0].size, window.frames - len(window.frames_TCHW)
    video = [*window.images, *[Image.new("RGB", size, (128, 128, 128))] * missing]
    known, unknown = Image.new("L", size, 0), Image.new("L", size, 255)
    mask = [*[known] * len(window.frames_TCHW), *[unknown] * missing]
    arguments = {"video": video, "mask": mask, "reference_images": [window.anchor]}
    return Continuation(arguments, Hand(), len(window.frames_TCHW))


def _context(pipe: Any, window: Window) -> Continuation:
    return Continuation({"video": window.images}, Hand(), len(window.frames_TCHW))


def _clean(pipe: Any, window: Window) -> Continuation:
    video_BTCHW = (window.frames_TCHW[None] + 1) / 2
    return Continuation({"video": video_BTCHW}, Hand(), len(window.frames_TCHW))


def _history(pipe: Any, window: Window) -> Continuation:
    """Pass anchor and window as history, whose first frame stays in view; the clip has new frames only."""
    chunk = 33
    images = [window.anchor, *window.images[-(chunk - 1) :]]
    images = [*images[:1] * (chunk - len(images)), *images]
    new = window.frames - len(window.frames_TCHW)
    return Continuation({"video": images, "num_frames": -(-new // chunk) * chunk}, Hand(), 0)


def _forcing(pipe: Any, window: Window) -> Continuation:
    """Diffusion forcing: the clip is the window as given, the window again, and then new frames."""
    count = len(window.frames_TCHW)
    arguments = {"video": window.images, "overlap_history": count, "base_num_frames": window.frames}
    return Continuation(arguments, Hand(), 2 * count)


def unsteered(kind: type) -> bool:
    """Tell whether no hand can steer a class."""
    return kind.__name__.startswith(UNSTEERED)


def _names(*names: str) -> Callable[[type, Mapping[str, inspect.Parameter]], bool]:
    return lambda kind, takes: set(names) <= takes.keys()


def _starts_from_image(kind: type, takes: Mapping[str, inspect.Parameter]) -> bool:
    return (
        "image" in takes
        and not {"conditions", "sigma_conditioning", "num_latent_conditional_frames"} & takes.keys()
    )


def _needs_nothing(kind: type, takes: Mapping[str, inspect.Parameter]) -> bool:
    """A text-to-video pipeline whose overlap can be held."""
    return (
        not unsteered(kind)
        and not needed(kind).keys() & {"image", "video"}
        and "ImageToVideo" not in kind.__name__
    )


WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        Way("conditions", "the window as a condition on the first frames", _names("conditions"), _conditions),
        Way("mask", "the window as known pixels of a masked video",
            _names("video", "mask", "reference_images"), _mask, True),
        Way("history", "the window as the pipeline's own history",
            _names("video", "history_sizes"), _history, True),
        Way("forcing", "the window as the clean past of diffusion forcing",
            _names("video", "overlap_history"), _forcing),
        Way("context", "the window as clean context",
            _names("video", "video_latents", "use_mean_velocity"), _clean),
        Way("world", "the window as the video to predict from",
            _names("video", "image", "sigma_conditioning"), _context),
        Way("predict", "the window's end as the video to predict from",
            _names("video", "image", "num_latent_conditional_frames"), _context),
        Way("image", "an image to start from, and the overlap held", _starts_from_image, _image),
        Way("overlap", "the overlap held at every step", _needs_nothing, held_overlap),
    )
}  # fmt: skip
