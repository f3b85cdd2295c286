"""Request and response bodies: the fields that open video servers share, and this server's own."""

from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from ..config import Form, ModelConfig, Preset, Request
from ..errors import RequestError
from ..jobs.job import Job, Kind, Status
from ..video.rates import Rate, rate_as_number
from .asked import Asked

DEFAULT_FRAMES = 80
_PROMPT, _ID = "A cat running on the street", "video_0123456789abcdef01234567"
_SAME = "prompt seed negative_prompt num_inference_steps guidance_scale fps form strength".split()
_OF_JOB = "id kind model status progress frames_done stage step steps".split()
_OF_REQUEST = "prompt seed preset negative_prompt num_inference_steps guidance_scale".split()


def _encodable(text: str) -> str:
    """Refuse lone surrogates, which JSON can express but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character (a lone surrogate)") from error
    return text


def _as_text(value: Any) -> Any:
    """Return a number as the decimal it was written as."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, Field(max_length=100_000), AfterValidator(_encodable)]
Name = Annotated[str, Field(max_length=200), AfterValidator(_encodable)]
Seconds = Annotated[
    str,
    Field(
        pattern=r"^\d{1,6}(\.\d{1,6})?$",
        description="Length of the new part, as a decimal number or string.",
    ),
    BeforeValidator(
        _as_text, json_schema_input_type=float | Annotated[str, Field(pattern=r"^\d{1,6}(\.\d{1,6})?$")]
    ),
]
Count = Annotated[int, Field(ge=1, le=2**31)]


class ImageReference(Asked):
    """An image by its URL: `data:`, or https of a host that the server allows.

    Files come as multipart instead.
    """

    image_url: Annotated[str, Field(examples=["data:image/png;base64,iVBORw0KGgo..."])]


class VideoReference(Asked):
    """A video of this server."""

    id: Annotated[Name, Field(max_length=64, examples=[_ID])]


class _Length(Asked):
    """The length, in frames or seconds; both only if they agree."""

    seconds: Seconds | None = None
    num_frames: Annotated[Count | None, Field(description="Number of new frames.", examples=[40])] = None

    def frames(self, fps: Rate) -> int:
        """Return the number of frames at a rate.

        Raises RequestError if it is not whole, or the two lengths differ.
        """
        if self.seconds is None:
            return self.num_frames or DEFAULT_FRAMES
        exact = Fraction(self.seconds) * fps
        if exact.denominator != 1 or exact < 1:
            nearest = max(1, round(exact))
            fix = f"is no whole number of frames at {rate_as_number(fps)} a second; set num_frames={nearest}"
            raise RequestError("seconds", self.seconds, f"{fix}, or {nearest / float(fps):.6g}")
        if self.num_frames not in (None, int(exact)):
            fix = f"seconds={self.seconds!r} is {exact}; leave one of them out"
            raise RequestError("num_frames", self.num_frames, fix)
        return int(exact)


class VideoCreate(_Length):
    """A video to make. Fields left out are the model's own."""

    prompt: Text = Field(description="Text prompt.", examples=[_PROMPT])
    model: Name | None = Field(
        None, description="Model name; default: the server's first.", examples=["tiny"]
    )
    size: str | None = Field(
        None, pattern=r"^\d{1,5}x\d{1,5}$", description="Width x height; implies the preset."
    )
    input_reference: ImageReference | None = Field(
        None, description="An image to start from, or (as a file) a video to extend."
    )
    negative_prompt: Text = Field("", description="Negative text prompt.")
    seed: int = Field(33, ge=0, lt=2**63, description="Seed of the noise; repeats the video.")
    preset: Preset | None = Field(
        None, description="preview: stages 1 and 2; full: with stage 3. Default: by size, or preview."
    )
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps of a chunk.")
    guidance_scale: float | None = Field(
        None, ge=0, le=1e6, allow_inf_nan=False, description="Classifier-free guidance scale."
    )
    fps: int | None = Field(
        None, ge=1, le=1000, description="Playback rate; interpolates if above the model's."
    )
    width: Count | None = Field(None, description="Width in pixels.")
    height: Count | None = Field(None, description="Height in pixels.")
    form: Form | None = Field(None, description="How stage 3 joins its windows.")
    strength: float | None = Field(
        None, gt=0, le=1, description="Share of the denoising that stage 3 repeats."
    )
    schedule: list[tuple[Annotated[int, Field(ge=0, le=2**31)], Text]] = Field(
        [],
        max_length=10_000,
        description="(frame, prompt) pairs that replace the prompt from a frame on.",
        examples=[[[40, "A dog on the beach"]]],
    )

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt": _PROMPT, "num_frames": 40, "seed": 33}]}
    )

    def request(
        self, config: ModelConfig, image: str | None, video: str | None, rate: Rate | None = None
    ) -> Request:
        """Return the request for a model.

        Raises RequestError where length, size and preset do not fit together.

        rate: frames a second of the video to extend, used for `seconds`.
        """
        preset, width, height = self._sized(config)
        return Request(
            num_frames=self.frames(self.fps or rate or config.fps),
            image=image,
            video=video,
            schedule=tuple(self.schedule),
            preset=preset,
            width=width,
            height=height,
            **{name: getattr(self, name) for name in _SAME},
        )

    def _sized(self, config: ModelConfig) -> tuple[Preset, int | None, int | None]:
        """Return preset, width and height; `size` alone implies the preset that makes it."""
        if self.size is None:
            return self.preset or "preview", self.width, self.height
        width, height = map(int, self.size.split("x"))
        for name, value, side in (("width", self.width, width), ("height", self.height, height)):
            if value not in (None, side):
                raise RequestError(name, value, f"size is {self.size!r}; leave one of them out")
        makes = _sizes(config)
        fitting = [preset for preset, made in makes.items() if made == (width, height)]
        if config.extend_by is not None:  # width and height are those before stage 3
            if fitting and self.preset in (None, *fitting):
                return self.preset or fitting[0], config.width, config.height
            if config.extend_by.free_size and self.preset != "full":
                return "preview", width, height
        if (self.preset or (fitting or ["preview"])[0]) not in fitting:
            known = ", ".join(f"{w}x{h} (preset {preset})" for preset, (w, h) in makes.items())
            raise RequestError("size", self.size, f"model {config.name!r} makes {known}")
        return self.preset or fitting[0], width, height


class VideoExtension(_Length):
    """A video to extend."""

    prompt: Text = Field(
        description="Text prompt of the new part.", examples=["A cat sleeping on the street"]
    )
    video: VideoReference | None = Field(
        None, description="The video to extend; a file comes as multipart under this name."
    )
    model: Name | None = Field(None, description="Only with a file; else the video's own.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Default: the video's seed + 1.")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"prompt": "A cat sleeping", "seconds": "4", "video": {"id": _ID}}]},
    )


class NewPrompt(Asked):
    """A new prompt."""

    prompt: Text = Field(examples=["A dog running on the street"])


class Remix(Asked):
    """The changes; everything else stays as in the original video."""

    prompt: Text | None = Field(
        None, description="For the whole video. Default: all prompts of the original.", examples=["A dog"]
    )
    seed: int | None = Field(None, ge=0, lt=2**63)
    preset: Preset | None = None


class Problem(BaseModel):
    """The reason for an error. param: the wrong argument."""

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: Problem


class JobError(BaseModel):
    """The reason why a job failed."""

    code: str
    message: str


class Video(BaseModel):
    """A job: the shared fields, then this server's own."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int = Field(ge=0, le=100, description="Percent of the frames done.")
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    remixed_from_video_id: str | None
    seconds: str = Field(description="Length of the whole video, including the source of an extension.")
    size: str
    error: JobError | None

    kind: Kind
    extended_from_video_id: str | None
    refined_from_video_id: str | None
    num_frames: int = Field(description="Frames of the whole video.")
    frames_done: int = Field(description="Frames playable now.")
    fps: int | float
    seed: int
    preset: Preset
    negative_prompt: str
    num_inference_steps: int | None
    guidance_scale: float | None
    stage: str | None = Field(description="Stage of a job in progress: first_chunk, extend or refine.")
    step: int = Field(description="Denoising steps done of the current chunk or window.")
    steps: int
    cancelling: bool = Field(description="Told to stop; does so within one denoising step.")
    first_frame_seconds: float | None = Field(description="From the request to the first playable frames.")
    frames_per_second: float | None = Field(description="New frames per second of work.")
    seconds_left: float | None = Field(description="Estimated time to completion.")
    notes: list[str] = Field(description="Parts of the request without effect, or with an unexpected one.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the job as clients see it."""
        return cls(
            **{name: getattr(job, name) for name in _OF_JOB},
            **{name: getattr(job.request, name) for name in _OF_REQUEST},
            created_at=int(job.created_at),
            completed_at=_whole(job.completed_at),
            expires_at=_whole(job.expires_at),
            remixed_from_video_id=job.source if job.kind == "remix" else None,
            extended_from_video_id=job.source if job.kind == "extension" else None,
            refined_from_video_id=job.source if job.kind == "refinement" else None,
            seconds=f"{float(job.frames_total / job.fps):.6g}",
            size=f"{job.width}x{job.height}",
            error=JobError(code=job.error_code, message=job.error_message or "") if job.error_code else None,
            num_frames=job.frames_total,
            fps=rate_as_number(job.fps),
            cancelling=job.cancelling and not job.ended,
            first_frame_seconds=_rounded(job.first_seconds),
            frames_per_second=_rounded(job.frames_per_second),
            seconds_left=_rounded(job.seconds_left),
            notes=list(job.notes),
        )


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """The video is deleted."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class PromptChanged(BaseModel):
    """The change is stored and holds from the next chunk on. number: of the change, from 1."""

    id: str
    object: Literal["video.prompt"] = "video.prompt"
    number: int
    prompt: str


class Model(BaseModel):
    """A model's sizes, rate and chunks."""

    id: str
    object: Literal["model"] = "model"
    sizes: dict[Preset, str]
    fps: int
    chunk_frames: int
    overlap_frames: int

    @classmethod
    def of(cls, name: str, config: ModelConfig) -> Self:
        """Return the model that clients call `name`."""
        sizes = {preset: f"{w}x{h}" for preset, (w, h) in _sizes(config).items()}
        return cls(
            id=name,
            sizes=sizes,
            fps=config.fps,
            chunk_frames=config.extend.frames,
            overlap_frames=config.extend.overlap,
        )


class ModelList(BaseModel):
    """The models of this server, the default first."""

    object: Literal["list"] = "list"
    data: list[Model]


class State(BaseModel):
    """The server's readiness."""

    status: Literal["ok", "starting"]
    version: str


def _sizes(config: ModelConfig) -> dict[Preset, tuple[int, int]]:
    """Return (width, height) by preset."""
    presets: list[Preset] = ["preview", "full"] if config.refines else ["preview"]
    made = {preset: config.size(preset) for preset in presets}
    return {preset: (width, height) for preset, (height, width) in made.items()}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
