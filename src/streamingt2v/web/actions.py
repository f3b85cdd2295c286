"""What the page's buttons do: from the form to a job, and from a job or a file back to the form. Errors become sentences."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ..config import Preset
from ..errors import MediaError, RequestError, StreamingT2VError
from ..jobs.inspection import Kind, identify, inspect
from ..jobs.job import Job
from ..jobs.service import JobService
from ..jobs.store import NoSuchJob, QueueFull
from ..video.writer import read_metadata
from .examples import EXAMPLES
from .form import NAMES, Form, request_of_file

LABELS = {
    "prompt": "Prompt",
    "frames": "Length",
    "num_frames": "Length",
    "model": "Base model",
    "image": "Image prompt",
    "video": "Video to go on with",
    "negative_prompt": "Negative prompt",
    "seed": "Seed",
    "steps": "Steps",
    "num_inference_steps": "Steps",
    "guidance_scale": "Guidance",
    "schedule": "Prompts by frame",
    "preset": "Full video",
    "file": "That file",
}
"""What a field is called on the page, by the argument's name."""

Shown = tuple[Any, ...]
"""New values of components, in the order they are named in `page`."""


class Actions:
    """The actions on one job service. Each gives the new values of the components that `page` names as its outputs."""

    def __init__(self, service: JobService):
        self._service = service

    def preview(self, *values: Any) -> Shown:
        """*Faster preview*: stages 1 and 2."""
        return self._make("preview", *values)

    def full(self, *values: Any) -> Shown:
        """*Full video*: all stages."""
        return self._make("full", *values)

    def opened(self, event: gr.EventData) -> Shown:
        """The settings of the job that the page shows, when it was loaded with one."""
        try:
            job = self._service.get(str(event.id)[:64])
        except NoSuchJob:
            return (*_unchanged(), _notice("That video is gone; it was deleted, or kept long enough.", "calm"))
        return (*_values(Form.of(job.request, job.model)), "")

    def example(self, event: gr.EventData) -> Shown:
        """The settings of an example."""
        chosen = dict(zip((e.name for e in EXAMPLES), EXAMPLES, strict=True)).get(str(event.name))
        return (*(_unchanged() if chosen is None else _values(dataclasses.replace(chosen.form, model=self._service.default_model))), "")

    def restore(self, file: str) -> Shown:
        """The settings in a video that was made here; a video from elsewhere becomes the one to go on with."""
        try:
            with self._checked(file, "video", "file") as path:
                metadata = read_metadata(path or file)
            request = request_of_file(metadata)
        except (StreamingT2VError, OSError) as error:
            return (*_unchanged(), gr.skip(), _told(error))
        name = escape(Path(file).name)
        if request is None:
            told = _notice(f"{name} holds no settings, so it is now the video to go on with.", "calm")
            return (*_unchanged(), gr.update(value=file), told)
        model = metadata.get("model")
        known = model if model in self._service.configs else self._service.default_model
        return (*_values(Form.of(request, known)), gr.skip(), _notice(_restored(name, metadata, model == known), "calm"))

    def _make(self, preset: Preset, *values: Any) -> Shown:
        *fields, image, video = values
        try:
            return self._submit(Form(*fields), preset, image, video).id, ""
        except (StreamingT2VError, OSError) as error:
            return gr.skip(), _told(error)

    def _submit(self, form: Form, preset: Preset, image: str | None, video: str | None) -> Job:
        model = form.model or self._service.default_model
        if model not in self._service.configs:
            raise RequestError("model", model, "is not one of those offered")
        if image and video:
            raise RequestError("image", "a picture", "start from a picture or go on with a video, not both; take one of them out")
        config = self._service.configs[model]
        with self._checked(image, "image", "image") as picture, self._checked(video, "video", "video") as clip:
            request = form.request(preset, config, *(str(path) if path else None for path in (picture, clip)))
            return self._service.submit(request, model)

    @contextmanager
    def _checked(self, upload: str | None, kind: Kind, field: str) -> Iterator[Path | None]:
        """An upload under a name of ours, read to its end in a process of its own; None for none. RequestError if it is something else."""
        if not upload:
            yield None
            return
        path = self._service.files.uploads / secrets.token_hex(16)
        try:
            with Path(upload).open("rb") as file:
                found = identify(file.read(16))
            if found.kind != kind:
                raise RequestError(field, found.suffix, f"is a {found.kind}; a {kind} goes here")
            path = path.with_suffix(found.suffix)
            shutil.copyfile(upload, path)
            inspect(path, found, self._service.limits)
            yield path
        except MediaError as error:
            raise RequestError(field, "the file", str(error)) from error
        finally:
            path.unlink(missing_ok=True)


def _values(form: Form) -> Shown:
    return tuple(getattr(form, name) for name in NAMES)


def _unchanged() -> Shown:
    return tuple(gr.skip() for _ in NAMES)


def _restored(name: str, metadata: dict[str, Any], same_model: bool) -> str:
    text = f"The settings of {name} are back."
    for field, what in (("image", "a picture"), ("video", "a video")):
        if metadata.get(field):
            text += f" It began from {what}, which you have to choose again."
    return text if same_model else f"{text} Its model, {escape(str(metadata.get('model')))}, is not here."


def _told(error: Exception) -> str:
    """An error as a sentence for the page."""
    if isinstance(error, QueueFull):
        return _notice("Many videos are waiting already. Please try again in a moment.")
    if isinstance(error, RequestError):
        return _notice(f"<b>{escape(LABELS.get(error.argument, error.argument.replace('_', ' ')))}</b>: {escape(error.fix)}.")
    if isinstance(error, StreamingT2VError):
        return _notice(escape(str(error)))
    return _notice("That could not be kept on the server; its disk may be full.")


def _notice(html: str, kind: str = "wrong") -> str:
    return f'<p class="notice {kind}" role="alert">{html}</p>'
