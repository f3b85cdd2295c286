"""The page: the form is Gradio's, the stage beside it (`static/stage.js`) plays the job that the form has started.

The stage follows a job by the public HTTP API, so a reload, another tab or a restarted server change nothing for it. The form's handlers
give it a job's id as its value.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.components.base import Component

from ..jobs.service import JobService
from .actions import Actions
from .examples import EXAMPLES
from .form import EXAMPLE_LINE, FULL_FRAMES, Form, default_frames

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "Consolas", "monospace")
_CLEANING = (3600, 24 * 3600)  # seconds: how often uploads are looked through, and how old they may get


def picture(**options: Any) -> gr.Image:
    """A picture that the browser shows and this process never opens: strangers' files are read behind limits, in `server.inspection`.

    A class of its own would do too, but Gradio writes a file of types beside the module of every such class.
    """
    made = gr.Image(type="filepath", **options)
    made.preprocess = lambda payload: None if payload is None else payload.path
    return made


def build_page(service: JobService) -> gr.Blocks:
    """The page on a job service."""
    actions = Actions(service)
    with gr.Blocks(title="StreamingT2V", analytics_enabled=False, fill_width=True, delete_cache=_CLEANING) as page:
        gr.HTML(_static("header.html"), apply_default_css=False, elem_id="head")
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="ask"):
                prompt = gr.Textbox(
                    label="Prompt",
                    placeholder="A cat running on the street",
                    lines=2,
                    max_lines=6,
                    elem_id="prompt",
                    max_length=service.limits.prompt,
                )
                with gr.Row(elem_id="go"):
                    preview = gr.Button("Faster preview", variant="secondary", elem_id="preview")
                    full = gr.Button("Full video", variant="primary", elem_id="full")
                notice = gr.HTML("", apply_default_css=False, elem_id="notice")
                fields, image, video, settings = _options(service)
                gallery = gr.HTML(_gallery(), apply_default_css=False, elem_id="gallery", js_on_load=_CHOOSE)
            with gr.Column(elem_id="see"):
                stage = gr.HTML(
                    "",
                    html_template=_static("stage.html"),
                    js_on_load=_static("stage.js"),
                    head='<script src="/static/hls.light.min.js"></script>',
                    apply_default_css=False,
                    elem_id="stage",
                )
        form: list[Component] = [prompt, *fields]
        start = {"inputs": [*form, image, video], "outputs": [stage, notice], "queue": False, "api_visibility": "private"}
        preview.click(actions.preview, **start)
        full.click(actions.full, **start)
        fill = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        stage.opened(actions.opened, outputs=[*form, notice], **fill)
        gallery.chosen(actions.example, outputs=[*form, notice], **fill)
        settings.upload(actions.restore, inputs=settings, outputs=[*form, video, notice], **fill)
    return page


def make_theme() -> gr.themes.Base:
    """Colours, type and corners that Gradio's own parts take; `static/demo.css` does the rest. All fonts are the reader's own."""
    coral = gr.themes.Color(
        "#fff3ef", "#ffe2d9", "#ffc5b4", "#ff9f84", "#f97a57", "#e8572f", "#c94320", "#a2351a", "#7d2b18", "#5a2014", "#35120b"
    )
    clay = gr.themes.Color(
        "#faf8f5", "#f3efe9", "#e6e0d8", "#d2cac0", "#a39a90", "#7b736b", "#5b544e", "#433e39", "#2a2724", "#1d1b19", "#131211"
    )
    theme = gr.themes.Base(primary_hue=coral, secondary_hue=coral, neutral_hue=clay, radius_size="lg", font=_FONTS, font_mono=_MONO)
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
    )


def _options(service: JobService) -> tuple[list[Component], Component, Component, gr.UploadButton]:
    """The fields after the prompt in the order of `Form`, the picture, the video, and the button for a video's settings."""
    config, defaults = service.configs[service.default_model], Form()
    short = default_frames("preview", config)
    with gr.Row(elem_id="first"):
        frames = gr.Textbox(
            label="Length in frames",
            placeholder=f"{short}, full {FULL_FRAMES}",
            info=f"{config.fps} frames are a second",
            elem_id="frames",
            min_width=140,
        )
        model = gr.Dropdown(
            list(service.configs),
            value=service.default_model,
            label="Base model",
            info="of those on this server",
            min_width=140,
            elem_id="model",
        )
    with gr.Accordion("Advanced options", open=False, elem_id="advanced"):
        image = picture(label="Image prompt: the video starts from it", sources=["upload", "clipboard"], height=210, elem_id="image")
        negative = gr.Textbox(label="Negative prompt", placeholder="What is not to be seen", elem_id="negative")
        with gr.Row():
            seed = gr.Textbox(defaults.seed, label="Seed", elem_id="seed", min_width=90)
            steps = gr.Textbox(label="Steps", placeholder="the model's", elem_id="steps", min_width=90)
            guidance = gr.Textbox(label="Guidance", placeholder="the model's", elem_id="guidance", min_width=90)
        schedule = gr.Textbox(
            label="Prompts by frame",
            placeholder=EXAMPLE_LINE,
            lines=2,
            info="One a line: the frame from which it takes over, a colon, the prompt",
            elem_id="schedule",
        )
    with gr.Accordion("Use your own video", open=False, elem_id="own"):
        video = gr.File(label="Video to go on with: both buttons add new frames to it", file_types=["video"], height=150, elem_id="video")
        settings = gr.UploadButton("Get settings back from a video made here", file_types=["video"], size="sm", elem_id="settings")
        gr.HTML('<p class="hint">Or drop it anywhere on this page.</p>', apply_default_css=False)
    return [frames, model, negative, seed, steps, guidance, schedule], image, video, settings


_CHOOSE = """element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-name]');
  if (card) trigger('chosen', { name: card.dataset.name });
});"""


def _gallery() -> str:
    cards = "".join(
        f'<li><button type="button" data-name="{escape(e.name)}" title="{escape(e.form.prompt or "")}">'
        f'<img src="/page/static/examples/{escape(e.name)}.webp" alt="" width="64" height="64">{escape(e.title)}</button></li>'
        for e in EXAMPLES
    )
    return f"<h2>Try one of these</h2><ul>{cards}</ul>"


def _static(name: str) -> str:
    return (files("streamingt2v.web") / "static" / name).read_text(encoding="utf-8")
