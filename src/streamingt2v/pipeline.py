"""`LongVideoPipeline`, with diffusers' names: loading, placing, components, streaming, calling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from PIL import Image

from .checkpoints.load import Components, best_device, load, move, offload_models, save, set_in_vaes
from .config import ModelConfig, Request
from .config.runtime import PLAIN, Savings
from .config.values import reject_unknown
from .errors import RequestError
from .external.as_model import read_model
from .given import Given
from .ray_backend import Crew
from .resolve import ResolvedRequest, at_clip_size, counted, resolve
from .stages.protocols import OnStageStep, PromptAt, Stage
from .trip import trip
from .types import Chunk, State
from .video.reader import count_frames

OutputType = Literal["np", "pil", "pt"]
StepEnd = Callable[..., Any]
"""Called with (pipeline, step, timestep, {}) after every denoising step; `step` counts from 0 within a chunk
or window.

timestep is None, because each stage has its own schedule. Raising in it cancels. It must return {} or None:
latents cannot be changed.
"""


@dataclass(frozen=True)
class PipelineOutput:
    """One video. frames: in the form of `output_type`.

    "np": uint8 array (T, H, W, 3); "pt": float32 tensor (T, 3, H, W) in [0, 1]; "pil": list of T images.
    """

    frames: np.ndarray | torch.Tensor | list[Image.Image]


def _part(owner: str, name: str, about: str) -> Any:
    """Return a property for a component of the backbone, of the text encoder, or of the components."""

    def holder(pipe: LongVideoPipeline) -> Any:
        parts = pipe.components
        found = parts if owner == "components" else getattr(parts, owner)
        if parts.backbone is None:  # a pipeline of diffusers holds all parts
            found = parts.pipeline
        if found is None or not hasattr(found, name):
            raise AttributeError(f"model {pipe.name!r} has no {name} of its own")
        return found

    def get(pipe: LongVideoPipeline) -> Any:
        return getattr(holder(pipe), name)

    def put(pipe: LongVideoPipeline, value: Any) -> None:
        setattr(holder(pipe), name, value)

    return property(get, put, doc=about)


class LongVideoPipeline:
    """Make long videos from text, an image or a video, as a stream. Load one with `from_pretrained`.

    refiners: workers of stage 3; None for this process alone.
    """

    unet = _part("backbone", "unet", "Denoising network of stages 1 and 2.")
    cam = _part("backbone", "cam", "Conditional attention module: short-term memory.")
    image_encoder = _part("backbone", "image_encoder", "CLIP image encoder of the anchor frame.")
    scheduler = _part("components", "scheduler", "Scheduler of stages 1 and 2, any of diffusers'.")
    text_encoder = _part("text", "text_encoder", "Text encoder.")
    tokenizer = _part("text", "tokenizer", "Tokenizer.")

    def __init__(self, components: Components, name: str = "custom", refiners: Crew | None = None):
        self.components, self.name, self.refiners = components, name, refiners
        self.config: ModelConfig = components.config

    def __repr__(self) -> str:
        c = self.config
        return (
            f"{type(self).__name__}({self.name!r}, {c.width}x{c.height} at {c.fps} fps, "
            f"chunks of {c.extend.frames} frames, on {self.components.device})"
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path = "tiny",
        device: str | None = None,
        dtype: torch.dtype | None = None,
        savings: Savings = PLAIN,
        refiner: bool = True,
        *,
        torch_dtype: torch.dtype | None = None,
        device_map: str | None = None,
    ) -> Self:
        """Load a model by its name, hub id or folder. ModelError if it is missing or incomplete.

        dtype: of weights and computation, default float32; the autoencoder stays in float32. torch_dtype: its
        older name. device, device_map: default "cpu"; "auto" or "balanced" choose the accelerator if there is
        one. savings: options for less memory and time. refiner: False does not load the network of stage 3.
        RequestError for options that do not exist or do not fit.
        """
        if dtype is not None and torch_dtype not in (None, dtype):
            raise RequestError("torch_dtype", torch_dtype, f"dtype is {dtype}; give one of them")
        if device is not None and device_map not in (None, device):
            raise RequestError("device_map", device_map, f"device is {device!r}; give one of them")
        place, kind = best_device(device or device_map or "cpu"), dtype or torch_dtype or torch.float32
        folder, config = read_model(name_or_folder)
        return cls(load(folder, place, kind, savings, refiner, config), str(name_or_folder))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a model folder with weights in `dtype`. A save that fails leaves nothing."""
        save(self.components, Path(folder), dtype)

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.components.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the networks."""
        return self.components.dtype

    @property
    def vae(self) -> Any:
        """Autoencoder."""
        parts: Any = self.components
        return (parts.backbone or parts.pipeline).vae

    @vae.setter
    def vae(self, value: Any) -> None:
        parts: Any = self.components
        backbone, refiner = parts.backbone or parts.pipeline, parts.refiner
        if refiner is not None and refiner.vae is backbone.vae:
            refiner.vae = value
        backbone.vae = value

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the networks to a device or dtype (the autoencoder keeps float32) and return the pipeline.

        RequestError for a missing device, and with offloading or an engine, which place weights themselves.
        """
        if isinstance(device, torch.dtype):  # to(torch.float16)
            device, dtype = None, device
        move(self.components, None if device is None else best_device(str(device)), dtype)
        return self

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Keep networks in main memory, and move each to the device for its work.

        device: default the accelerator. RequestError if there is none.
        """
        place = torch.device(best_device("auto") if device is None else device)
        offload_models(self.components, place if gpu_id is None else torch.device(place.type, gpu_id))

    def enable_vae_tiling(self) -> None:
        """Encode and decode large frames in overlapping tiles, for less memory.

        RequestError if the autoencoder cannot.
        """
        set_in_vaes(self.components, "vae_tiling", True)

    def disable_vae_tiling(self) -> None:
        """Encode and decode frames as a whole."""
        set_in_vaes(self.components, "vae_tiling", False)

    def enable_vae_slicing(self) -> None:
        """Encode and decode frames one by one, for less memory. RequestError if the autoencoder cannot."""
        set_in_vaes(self.components, "vae_slicing", True)

    def disable_vae_slicing(self) -> None:
        """Encode and decode several frames at once."""
        set_in_vaes(self.components, "vae_slicing", False)

    def resolve(self, request: Request | ResolvedRequest) -> ResolvedRequest:
        """Decide every option of a request. RequestError if it is wrong or the model cannot do it."""
        asked = resolve(self.config, request) if isinstance(request, Request) else request
        if asked.refine is not None and self.components.refiner is None and self.refiners is None:
            raise RequestError(
                "preset", "full", "this pipeline was loaded without its refiner; load it with refiner=True"
            )
        parts = self.components
        if parts.savings.lora and not parts.adapted and not asked.uses_pipelines:
            raise RequestError(
                "lora", parts.savings.lora[0], f"does not fit model {self.name!r}; leave it out"
            )
        return asked

    def stream(
        self,
        prompt: str | Request | ResolvedRequest,
        state: State | None = None,
        on_step: OnStageStep | None = None,
        prompt_at: PromptAt | None = None,
        *,
        image: Any = None,
        video: Any = None,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        callback_on_step_end: StepEnd | None = None,
        **options: Any,
    ) -> Iterator[Chunk]:
        """Yield the video chunk by chunk, exactly `num_frames` frames; with `video` only the new ones.

        prompt: text, with the fields of `Request` as options, or a request. image: path, PIL image, array (H,
        W, 3) or tensor (3, H, W) to start from. video: path, list of images, array (T, H, W, 3) or tensor (T,
        3, H, W) to extend. Integers are 0 to 255, floats 0 to 1. seed: default 33. generator: draws the seed,
        so that every call makes another video. callback_on_step_end: see `StepEnd`. state: of the last chunk
        kept; the stream continues after it with the same bytes as if never stopped. on_step: called with
        (step, steps, stage) after every denoising step; raising in it cancels. prompt_at: replaces the
        request's prompts; called with a chunk's first frame when the chunk starts, and must always return the
        same for it.

        RequestError at once if the model cannot do it; with `refine`, MediaError if the file has too few
        frames. Memory does not grow with the length.
        """
        given_too = {"image": image, "video": video, "generator": generator, "seed": seed, **options}
        given = Given()
        try:
            if isinstance(prompt, str):
                reject_unknown(Request, options, "arguments")
                files = {"image": given.image(image), "video": given.video(video)}
                prompt = Request(prompt, **{"seed": _seed(seed, generator), **files, **options})
            elif not isinstance(prompt, Request | ResolvedRequest):
                fix = "give one prompt as text, or a Request: one video is made"
                raise RequestError("prompt", type(prompt).__name__, fix)
            elif beside := [name for name, value in given_too.items() if value is not None]:
                fix = "a request holds all of it; give a prompt as text, or change the request"
                raise RequestError(beside[0], "beside a request", fix)
            asked = at_clip_size(self.resolve(prompt)) if state is None else self.resolve(prompt)
            if asked.request.refine is not None and asked.num_frames is None:
                asked = counted(asked, count_frames(asked.request.refine))
        except BaseException:
            given.close()
            raise
        return self._streamed(asked, state, self._combined(on_step, callback_on_step_end), prompt_at, given)

    def __call__(
        self,
        prompt: str | Request | ResolvedRequest,
        num_frames: int | None = None,
        *,
        output_type: OutputType = "np",
        **options: Any,
    ) -> PipelineOutput:
        """Make a whole video, 80 frames by default, that fits into memory. Arguments as for `stream`."""
        if output_type not in get_args(OutputType):
            raise RequestError(
                "output_type", output_type, f"must be one of {', '.join(get_args(OutputType))}"
            )
        if num_frames is not None:
            options["num_frames"] = num_frames
        elif options.get("num_frames", 0) is None:
            raise RequestError("num_frames", None, "a video without end cannot be collected; use stream")
        frames = np.concatenate([chunk.frames for chunk in self.stream(prompt, **options)])
        return PipelineOutput(_as(frames, output_type))

    def unknown_words(self, prompt: str) -> dict[str, str | None]:
        """Return the words of a prompt that the model does not know, with their replacement or None."""
        return self.components.text.unknown_words(prompt)

    def surplus_tokens(self, prompt: str) -> int:
        """Return how many tokens of a prompt exceed what the model reads."""
        return self.components.text.surplus_tokens(prompt)

    def _streamed(
        self,
        asked: ResolvedRequest,
        state: State | None,
        on_step: OnStageStep | None,
        prompt_at: PromptAt | None,
        given: Given,
    ) -> Iterator[Chunk]:
        try:
            yield from trip(self.components, asked, state, on_step, prompt_at, self.refiners)
        finally:
            given.close()

    def _combined(self, on_step: OnStageStep | None, step_end: StepEnd | None) -> OnStageStep | None:
        """Combine both callbacks."""
        if step_end is None:
            return on_step

        def report(step: int, steps: int, stage: Stage) -> None:
            if on_step is not None:
                on_step(step, steps, stage)
            if step_end(self, step - 1, None, {}):
                fix = "latents cannot be changed here; return {} or nothing"
                raise RequestError("callback_on_step_end", "what it returned", fix)

        return report


def _seed(seed: int | None, generator: torch.Generator | None) -> int:
    if generator is None:
        return 33 if seed is None else seed
    if seed is not None:
        raise RequestError("seed", seed, "give a seed or a generator, not both")
    if not isinstance(generator, torch.Generator):
        raise RequestError(
            "generator", type(generator).__name__, "give one torch.Generator: one video is made"
        )
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def _as(frames_THWC: np.ndarray, output_type: OutputType) -> np.ndarray | torch.Tensor | list[Image.Image]:
    if output_type == "pil":
        return [Image.fromarray(frame) for frame in frames_THWC]
    if output_type == "pt":
        return torch.from_numpy(frames_THWC).movedim(-1, 1).float() / 255
    return frames_THWC
