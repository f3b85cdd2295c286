"""`bench`: measure speed and memory of this machine, or compare two settings."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer import Option

from ..config import Preset
from ..errors import ModelError, RequestError
from ..runs.quiet import hide_progress_bars
from ..texts import whole_number
from .options import (
    GUIDANCE_HELP,
    MOST_THREADS,
    PRESET_HELP,
    STEPS_HELP,
    ModelOptions,
    ScreenOptions,
    takes_options,
)
from .screen import Screen
from .settle import settle

if TYPE_CHECKING:
    from ..metrics.speed import Setting

MOST_FRAMES = 10**6
COMPARE_HELP = "Also measure with this setting changed and compare; repeatable. Names: docs/performance.md."


@takes_options
def bench(
    *,
    frames: Annotated[
        int, Option(help="Frames of the warm video; must be more than one chunk.", max=MOST_FRAMES)
    ] = 48,
    lengths: Annotated[
        str, Option(help="Frames of the cold videos, each made in a new process; '' for none.")
    ] = "16,80",
    preset: Annotated[Preset, Option(help=PRESET_HELP)] = "preview",
    steps: Annotated[int | None, Option(help=STEPS_HELP)] = None,
    guidance_scale: Annotated[float | None, Option(help=GUIDANCE_HELP)] = None,
    threads: Annotated[
        int | None, Option(help="CPU threads of the warm process.", min=1, max=MOST_THREADS)
    ] = None,
    compare: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help=COMPARE_HELP)] = None,
    repeats: Annotated[
        int, Option(help="Warm videos per setting; the median is printed.", min=1, max=10_000)
    ] = 5,
    model: ModelOptions,
    screen: ScreenOptions,
) -> None:
    """Measure time to the first frame, new frames per second, time per stage and peak memory.

    Close other programs first.
    """
    show = Screen(screen.quiet, screen.json)
    model = settle(model, show)
    if model.offload == "auto":  # measure exactly the given options
        model = replace(model, offload="none")
    wanted = _lengths(lengths)
    _check(model.model, preset, frames)
    hide_progress_bars(warnings=not screen.quiet)
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
    conditions = speed.conditions(model.device)
    values: dict[str, Any] = {"setting": asdict(setting), "frames": frames, "conditions": conditions}
    lines = [", ".join(f"{name} {value}" for name, value in values["conditions"].items())]
    for count in wanted:
        show.note(f"making {count} frames in a new process")
        found = speed.cold(setting, count)
        values.setdefault("cold", []).append(asdict(found))
        lines.append(_cold_line(found))
    show.note(f"making {frames} frames {repeats} times")
    own = speed.repeated(setting, frames, repeats)
    values["warm"] = asdict(own)
    lines += [
        f"warm: first frame after {own.first_frame_seconds:.2f} s, then {own.sustained:.2f} new frames/s",
        _shares_line(own),
    ]
    if other is not None:
        show.note(f"making {frames} frames with each setting in turn, {repeats} times")
        both = speed.compare(setting, other, frames, repeats)
        values |= {"other": asdict(other), "comparison": asdict(both)}
        lines.append(_comparison_line(both, compare or []))
    show.result("\n".join(lines), values)


def _check(model: str, preset: Preset, frames: int) -> None:
    """Raise RequestError for an unknown model, a preset it lacks, or a video without a second chunk."""
    from ..external.as_model import read_model  # imports torch

    try:
        config = read_model(model)[1]
    except ModelError as error:
        raise RequestError("model", model, str(error)) from error
    chunk = config.extend.frames
    if preset == "full" and config.refine is not None:
        chunk = max(chunk, config.refine.frames)
    if frames <= chunk:
        raise RequestError("frames", frames, f"must be more than one chunk, {chunk} frames")
    if preset == "full" and not config.refines:
        raise RequestError("preset", "full", f"model {config.name!r} has no refiner; use preview")


def _lengths(text: str) -> list[int]:
    try:
        found = [whole_number(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise RequestError("lengths", text, "must be numbers separated by commas, e.g. 16,80,240") from error
    if any(not 1 <= count <= MOST_FRAMES for count in found):
        raise RequestError("lengths", text, f"each must be 1 to {MOST_FRAMES}")
    return found


def _changed(setting: Setting, texts: list[str]) -> Setting:
    """Return the setting with every "NAME=VALUE" applied; RequestError for an unknown name or value."""
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


def _cold_line(found: Any) -> str:
    first = f"first frame after {found.first_frame_seconds:.2f} s"
    return (
        f"cold, {found.frames} frames: {first}, {found.seconds:.1f} s total, peak {found.peak_rss_mb:.0f} MB"
    )


def _shares_line(found: Any) -> str:
    shares = sorted(found.shares.items(), key=lambda item: -item[1])
    return "time per stage: " + ", ".join(f"{name} {share:.0%}" for name, share in shares)


def _comparison_line(both: Any, texts: list[str]) -> str:
    same = "different work" if both.difference is None else f"largest pixel difference {both.difference:.1e}"
    return (
        f"compared with {', '.join(texts)} ({both.second.sustained:.2f} new frames/s): "
        f"{both.ratio:.2f}x the speed overall, {both.ratio_sustained:.2f}x after the first chunk; {same}"
    )
