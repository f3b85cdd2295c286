"""`bench`: measure how fast this machine makes videos, and compare two settings in turn."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer import Option

from ..config import Preset
from ..errors import ModelError, RequestError
from ..runs.quiet import hide_progress_bars
from ..texts import whole_number
from .options import MOST_THREADS, ModelOptions, ScreenOptions, takes_options
from .screen import Screen
from .settle import settle

if TYPE_CHECKING:
    from ..metrics.speed import Setting

MOST_FRAMES = 10**6
COMPARE_HELP = (
    "Compare with this setting changed, in turn; may be repeated. Names are listed in docs/performance.md."
)


@takes_options
def bench(
    *,
    frames: Annotated[
        int, Option(help="Frames of the video made in a warm process, more than one chunk.", max=MOST_FRAMES)
    ] = 48,
    lengths: Annotated[str, Option(help="Frames of videos made in fresh processes; '' for none.")] = "16,80",
    preset: Annotated[
        Preset, Option(help="preview: stages 1 and 2; full: refined by stage 3 as well.")
    ] = "preview",
    steps: Annotated[int | None, Option(help="Denoising steps of a chunk; default: the model's.")] = None,
    guidance_scale: Annotated[
        float | None, Option(help="Classifier-free guidance scale; default: the model's.")
    ] = None,
    threads: Annotated[
        int | None, Option(help="Threads of torch on a CPU, in the warm process.", min=1, max=MOST_THREADS)
    ] = None,
    compare: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help=COMPARE_HELP)] = None,
    repeats: Annotated[
        int, Option(help="Videos of each setting; medians are printed.", min=1, max=10_000)
    ] = 5,
    model: ModelOptions,
    screen: ScreenOptions,
) -> None:
    """Measure speed and memory on this machine: first frame, new frames a second, shares of the parts, peak memory.

    Nothing else should run meanwhile.
    """
    show = Screen(screen.quiet, screen.json)
    model = settle(model, show)
    if model.offload == "auto":  # what is measured is what was typed
        model = replace(model, offload="none")
    wanted = _lengths(lengths)
    _check(model.model, preset, frames)
    hide_progress_bars()
    from ..metrics import speed

    setting = speed.Setting(
        model.model,
        preset,
        model.device,
        model.dtype,
        steps,
        guidance_scale,
        threads=threads,
        **asdict(model.savings),
    )
    setting.request(frames).validate()
    other = _changed(setting, compare) if compare else None
    values: dict[str, Any] = {
        "setting": asdict(setting),
        "frames": frames,
        "conditions": speed.conditions(model.device),
    }
    lines = [", ".join(f"{name} {value}" for name, value in values["conditions"].items())]
    for count in wanted:
        show.note(f"making {count} frames in a fresh process")
        found = speed.cold(setting, count)
        values.setdefault("cold", []).append(asdict(found))
        lines.append(_told_cold(found))
    show.note(f"making {frames} frames {repeats} times")
    own = speed.repeated(setting, frames, repeats)
    values["warm"] = asdict(own)
    lines += [
        f"warm: first frame after {own.first_frame_seconds:.2f} s, then {own.sustained:.2f} new frames a second",
        _told_shares(own),
    ]
    if other is not None:
        show.note(f"making {frames} frames in turn, {repeats} times each")
        both = speed.compare(setting, other, frames, repeats)
        values |= {"other": asdict(other), "comparison": asdict(both)}
        lines.append(_told_comparison(both, compare or []))
    show.result("\n".join(lines), values)


def _check(model: str, preset: Preset, frames: int) -> None:
    """RequestError unless there is such a model, with that preset, and the video has a second chunk to measure."""
    from ..external.as_model import read_model  # imports torch, which the other commands' doors do without

    try:
        config = read_model(model)[1]
    except ModelError as error:
        raise RequestError("model", model, str(error)) from error
    chunk = (
        config.extend.frames
        if preset == "preview" or config.refine is None
        else max(config.extend.frames, config.refine.frames)
    )
    if frames <= chunk:
        raise RequestError("frames", frames, f"has no second chunk to measure; give more than {chunk}")
    if preset == "full" and config.refine is None and config.refine_by is None:
        raise RequestError("preset", "full", f"model {config.name!r} has no refiner; use preview")


def _lengths(text: str) -> list[int]:
    try:
        found = [whole_number(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise RequestError("lengths", text, "write numbers with commas between, e.g. 16,80,240") from error
    if any(not 1 <= count <= MOST_FRAMES for count in found):
        raise RequestError("lengths", text, f"must be 1 or more each, and {MOST_FRAMES} at most")
    return found


def _changed(setting: Setting, texts: list[str]) -> Setting:
    """The setting with the values of "name=text"; RequestError for another name or value."""
    from ..train.settings import parse_setting

    hints, values = get_type_hints(type(setting)), dict[str, Any]()
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in hints:
            names = ", ".join(f.name for f in fields(setting))
            raise RequestError("compare", text, f"write NAME=VALUE with a name of {names}")
        choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        if choices and value not in choices:
            raise RequestError("compare", text, f"must be one of {', '.join(choices)}")
        try:
            values[name] = value if choices else parse_setting(name, value, hints[name])
        except RequestError as error:
            raise RequestError("compare", text, error.fix) from error
    return replace(setting, **values)


def _told_cold(found: Any) -> str:
    start = f"first frame after {found.first_frame_seconds:.2f} s"
    return (
        f"cold, {found.frames} frames: {start}, {found.seconds:.1f} s in all, peak {found.peak_rss_mb:.0f} MB"
    )


def _told_shares(found: Any) -> str:
    shares = sorted(found.shares.items(), key=lambda item: -item[1])
    return "of the time: " + ", ".join(f"{name} {share:.0%}" for name, share in shares)


def _told_comparison(both: Any, texts: list[str]) -> str:
    apart = (
        "not the same work"
        if both.difference is None
        else f"largest difference of a pixel {both.difference:.1e}"
    )
    return (
        f"against {', '.join(texts)} ({both.second.sustained:.2f} new frames a second): {both.ratio:.2f} times as fast in all, "
        f"{both.ratio_sustained:.2f} times after the first chunk; {apart}"
    )
