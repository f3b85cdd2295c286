"""What goes over the wire, as OpenAPI tells it: the `/v1/videos` shape that open video servers share, and what this one adds to it."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)

from ..config import Form, ModelConfig, Preset, Request
from ..errors import RequestError
from ..jobs.job import Job, Kind, Status
from ..video.rates import Rate, rate_as_number

DEFAULT_FRAMES = 80
_PROMPT = "A cat running on the street"


def _encodable(text: str) -> str:
    """JSON can name halves of characters, which nothing can be done with."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character (a lone surrogate)") from error
    return text


def _as_text(value: Any) -> Any:
    """A number as the decimal it was written as."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, Field(max_length=100_000), AfterValidator(_encodable)]
Name = Annotated[str, Field(max_length=200), AfterValidator(_encodable)]
Seconds = Annotated[
    str,
    Field(
        pattern=r"^\d{1,6}(\.\d{1,6})?$",
        description="Length of the new part, a decimal number, or one as a string.",
    ),
    BeforeValidator(
        _as_text, json_schema_input_type=float | Annotated[str, Field(pattern=r"^\d{1,6}(\.\d{1,6})?$")]
    ),
]
Count = Annotated[int, Field(ge=1, le=2**31)]


class _Asked(BaseModel):
    """What clients send. Null is what is left out, for every field that may be."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in cls.model_fields or name in needed
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        plain = handler.resolve_ref_schema(schema)
        for name, field in plain.get("properties", {}).items():
            if name not in plain.get("required", ()) and "null" not in str(field.get("anyOf")):
                about = {
                    key: field.pop(key)
                    for key in ("title", "description", "default", "examples")
                    if key in field
                }
                plain["properties"][name] = {"anyOf": [dict(field), {"type": "null"}], **about}
        return schema


class ImageReference(_Asked):
    """A picture by its address: a `data:` URL, or one of a host that the server allows. Files come as multipart instead."""

    image_url: Annotated[str, Field(examples=["data:image/png;base64,iVBORw0KGgo..."])]


class VideoReference(_Asked):
    """A video of this server."""

    id: Annotated[Name, Field(max_length=64, examples=["video_0123456789abcdef01234567"])]


class _Length(_Asked):
    """How long: in frames or in seconds; both only if they agree."""

    seconds: Seconds | None = None
    num_frames: Annotated[Count | None, Field(description="How many new frames, exactly.", examples=[40])] = (
        None
    )

    def frames(self, fps: Rate) -> int:
        """How many frames that is at a rate. RequestError if it is no whole number, or the two differ."""
        if self.seconds is None:
            return self.num_frames or DEFAULT_FRAMES
        exact = Fraction(self.seconds) * fps
        if exact.denominator != 1 or exact < 1:
            nearest = max(1, round(exact))
            fix = f"is no whole number of frames at {rate_as_number(fps)} a second; set num_frames={nearest}, or {nearest / float(fps):.6g}"
            raise RequestError("seconds", self.seconds, fix)
        if self.num_frames not in (None, int(exact)):
            raise RequestError(
                "num_frames", self.num_frames, f"seconds={self.seconds!r} is {exact}; leave one of them out"
            )
        return int(exact)


class VideoCreate(_Length):
    """A video to make. What is left out is the model's own."""

    prompt: Annotated[Text, Field(description="What is to be seen.", examples=[_PROMPT])]
    model: Annotated[
        Name | None, Field(description="One of those the server has; default: its first.", examples=["tiny"])
    ] = None
    size: Annotated[
        str | None,
        Field(
            pattern=r"^\d{1,5}x\d{1,5}$",
            description="Width x height; chooses the preset if that is left out.",
        ),
    ] = None
    input_reference: Annotated[
        ImageReference | None,
        Field(description="A picture to start from, or (as a file) a video to go on with."),
    ] = None
    negative_prompt: Annotated[Text, Field(description="What is not to be seen.")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63, description="The same seed gives the same video.")] = 33
    preset: Annotated[
        Preset | None,
        Field(description="preview: stages 1 and 2; full: refined as well. Default: by size, or preview."),
    ] = None
    num_inference_steps: Annotated[
        int | None, Field(ge=1, le=1000, description="Denoising steps of a chunk.")
    ] = None
    guidance_scale: Annotated[
        float | None, Field(ge=0, le=1e6, allow_inf_nan=False, description="How strongly the prompt pulls.")
    ] = None
    fps: Annotated[
        int | None, Field(ge=1, le=1000, description="Playback rate; above the model's it interpolates.")
    ] = None
    width: Annotated[Count | None, Field(description="In pixels.")] = None
    height: Annotated[Count | None, Field(description="In pixels.")] = None
    form: Annotated[Form | None, Field(description="How refined windows are joined.")] = None
    strength: Annotated[float | None, Field(gt=0, le=1, description="How much refining redraws.")] = None
    schedule: Annotated[
        list[tuple[Annotated[int, Field(ge=0, le=2**31)], Text]],
        Field(
            max_length=10_000,
            description="(frame, prompt) pairs that take over from the prompt.",
            examples=[[[40, "A dog on the beach"]]],
        ),
    ] = []

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt": _PROMPT, "num_frames": 40, "seed": 33}]}
    )

    def request(
        self, config: ModelConfig, image: str | None, video: str | None, rate: Rate | None = None
    ) -> Request:
        """What is asked for of a model. RequestError where length, size and preset do not fit together.

        rate: of the video to go on with, in which seconds are counted.
        """
        preset, width, height = self._sized(config)
        return Request(
            prompt=self.prompt,
            num_frames=self.frames(self.fps or rate or config.fps),
            seed=self.seed,
            image=image,
            video=video,
            negative_prompt=self.negative_prompt,
            schedule=tuple((frame, prompt) for frame, prompt in self.schedule),
            preset=preset,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            width=width,
            height=height,
            fps=self.fps,
            form=self.form,
            strength=self.strength,
        )

    def _sized(self, config: ModelConfig) -> tuple[Preset, int | None, int | None]:
        """Preset, width and height. The preset is the one that makes the size, where only that is given."""
        if self.size is None:
            return self.preset or "preview", self.width, self.height
        width, height = map(int, self.size.split("x"))
        for name, value, side in (("width", self.width, width), ("height", self.height, height)):
            if value not in (None, side):
                raise RequestError(name, value, f"size is {self.size!r}; leave one of them out")
        makes = _sizes(config)
        fitting = [preset for preset, made in makes.items() if made == (width, height)]
        if (self.preset or (fitting or ["preview"])[0]) not in fitting:
            known = ", ".join(f"{w}x{h} (preset {preset})" for preset, (w, h) in makes.items())
            raise RequestError("size", self.size, f"model {config.name!r} makes {known}")
        return self.preset or fitting[0], width, height


class VideoExtension(_Length):
    """A video to go on with."""

    prompt: Annotated[
        Text,
        Field(description="What is to be seen in the new part.", examples=["A cat sleeping on the street"]),
    ]
    video: Annotated[
        VideoReference | None,
        Field(description="The video to go on with; a file comes as multipart under this name."),
    ] = None
    model: Annotated[Name | None, Field(description="For a file only; else it is that of the video.")] = None
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**63, description="Default: the video's and one, so that the noise is another."),
    ] = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "prompt": "A cat sleeping",
                    "seconds": "4",
                    "video": {"id": "video_0123456789abcdef01234567"},
                }
            ]
        },
    )


class NewPrompt(_Asked):
    """A prompt to change to."""

    prompt: Annotated[Text, Field(examples=["A dog running on the street"])]


class Remix(_Asked):
    """What is to be another; all else is as in the video that is made again."""

    prompt: Annotated[
        Text | None,
        Field(description="For the whole video. Default: all prompts that it had.", examples=["A dog"]),
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    preset: Preset | None = None


class Problem(BaseModel):
    """Why it was refused or failed. param: the argument that is wrong."""

    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str


class ErrorBody(BaseModel):
    """The body of every error."""

    error: Problem


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Video(BaseModel):
    """A job: the fields of the shared shape, then this server's."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: Annotated[int, Field(ge=0, le=100, description="Percent of the frames that are done.")]
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    remixed_from_video_id: str | None
    seconds: Annotated[str, Field(description="Of the whole video; of an extension its source included.")]
    size: str
    error: JobError | None

    kind: Kind
    extended_from_video_id: str | None
    refined_from_video_id: str | None
    num_frames: Annotated[int, Field(description="Of the whole video.")]
    frames_done: Annotated[int, Field(description="That can be watched now.")]
    fps: int | float
    seed: int
    preset: Preset
    negative_prompt: str
    num_inference_steps: int | None
    guidance_scale: float | None
    step: Annotated[int, Field(description="Denoising steps that are done of the chunk in the making.")]
    steps: int
    cancelling: Annotated[bool, Field(description="It was told to stop, and will within one denoising step.")]
    first_frame_seconds: Annotated[
        float | None, Field(description="From the request to the first frames that could be watched.")
    ]
    frames_per_second: Annotated[float | None, Field(description="Made, for each second of work.")]
    seconds_left: Annotated[float | None, Field(description="Until it is done, estimated.")]
    notes: Annotated[
        list[str], Field(description="What of the prompts has no effect, or another than the words say.")
    ]

    @classmethod
    def of(cls, job: Job) -> Video:
        """The job as clients see it."""
        asked = job.request
        return cls(
            id=job.id,
            model=job.model,
            status=job.status,
            progress=job.progress,
            created_at=int(job.created_at),
            completed_at=_whole(job.completed_at),
            expires_at=_whole(job.expires_at),
            prompt=asked.prompt,
            remixed_from_video_id=job.source if job.kind == "remix" else None,
            seconds=f"{float(job.frames_total / job.fps):.6g}",
            size=f"{job.width}x{job.height}",
            error=JobError(code=job.error_code, message=job.error_message or "") if job.error_code else None,
            kind=job.kind,
            extended_from_video_id=job.source if job.kind == "extension" else None,
            refined_from_video_id=job.source if job.kind == "refinement" else None,
            num_frames=job.frames_total,
            frames_done=job.frames_done,
            fps=rate_as_number(job.fps),
            seed=asked.seed,
            preset=asked.preset,
            negative_prompt=asked.negative_prompt,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            step=job.step,
            steps=job.steps,
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
    """It is gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


class PromptChanged(BaseModel):
    """The change is kept, and takes effect with the next chunk. number: of the change, from 1."""

    id: str
    object: Literal["video.prompt"] = "video.prompt"
    number: int
    prompt: str


class Model(BaseModel):
    """What a model makes."""

    id: str
    object: Literal["model"] = "model"
    sizes: dict[Preset, str]
    fps: int
    chunk_frames: int
    overlap_frames: int

    @classmethod
    def of(cls, name: str, config: ModelConfig) -> Model:
        """The model that clients call `name`."""
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
    """Whether the server can do its work."""

    status: Literal["ok", "starting"]
    version: str


class SessionStart(VideoCreate):
    """The first message of a WebSocket session: `type`, and what a video is created with."""

    type: Literal["session.start"]
    format: Literal["m4s"] = "m4s"
    idempotency_key: Name | None = None


class SessionResume(_Asked):
    """The first message of a connection that goes on with a session: its video, and how many segments of it have come."""

    type: Literal["session.resume"]
    video_id: Annotated[Name, Field(max_length=64)]
    chunks: Annotated[int, Field(ge=0)]
    format: Literal["m4s"] = "m4s"


class Event(_Asked):
    prompt: Text


class Interaction(_Asked):
    """A change of the prompt; it takes effect with the next chunk, at once and not over several."""

    event: Event
    event_id: Name | None = None
    transition_chunks: Annotated[int, Field(ge=0, le=1)] = 0


class SessionInteraction(_Asked):
    """A change of the prompt in a WebSocket session."""

    type: Literal["session.interaction"]
    interaction: Interaction


def from_form(values: list[tuple[str, str]]) -> dict[str, Any]:
    """The fields of a form as those of JSON: `a[b]` is b of the object a. RequestError for one that is given twice, or as both."""
    fields: dict[str, Any] = {}
    for name, value in values:
        outer, bracket, inner = name.partition("[")
        is_part = bool(bracket) and inner.endswith("]")
        into, key = (fields.setdefault(outer, {}), inner[:-1]) if is_part else (fields, name)
        if not isinstance(into, dict) or key in into:
            raise RequestError(name[:200], value[:40], "is given twice; leave one of them out")
        into[key] = value
    return fields


def _sizes(config: ModelConfig) -> dict[Preset, tuple[int, int]]:
    """(width, height) by preset."""
    presets: list[Preset] = (
        ["preview"] if config.refine is None and config.refine_by is None else ["preview", "full"]
    )
    made = {preset: config.size(preset) for preset in presets}
    return {preset: (width, height) for preset, (height, width) in made.items()}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
