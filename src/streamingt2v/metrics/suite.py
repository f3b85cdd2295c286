"""All metrics by name, and `evaluate`, which takes several of a video in one pass."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import RequestError
from ..video.reader import Frame, read_video
from . import likeness, motion, picture
from .eyes import Eyes, eyes_of_clip, eyes_of_model
from .flow import best_flow, raft_weights
from .metric import Metric, Result, Tools, measure
from .seams import Grid, grid_of, prompt_of, video_of


@dataclass(frozen=True)
class Value:
    """A metric's number. better: "lower", "higher", a number to be near, or None. digits: to show."""

    name: str
    better: str | float | None
    digits: int = 3


@dataclass(frozen=True)
class Setting:
    """Inputs of one video's metrics."""

    tools: Tools
    grid: Grid | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Kind:
    """A metric: its factory, its values, and its needs ("flow", "eyes", "text", "grid", "cuts")."""

    make: Callable[[Setting], Metric]
    values: tuple[Value, ...]
    needs: frozenset[str] = frozenset()


def _kind(make: Callable[[Setting], Metric], *values: Value, needs: str = "") -> Kind:
    return Kind(make, values, frozenset(needs.split()))


def _seam(setting: Setting) -> Metric:
    assert setting.grid is not None, "checked before"
    return motion.Seam(setting.grid.borders)


def _text(setting: Setting) -> Metric:
    assert setting.tools.eyes is not None and setting.prompt is not None, "checked before"
    return likeness.TextAlignment(setting.tools.eyes, setting.prompt)


METRICS: dict[str, Kind] = {
    "mawe": _kind(
        lambda s: motion.Mawe(), Value("mawe", "lower"), Value("mawe_published", "lower"), needs="flow"
    ),
    "warp": _kind(lambda s: motion.WarpError(), Value("warp_error", "lower", 1), needs="flow"),
    "flow": _kind(lambda s: motion.FlowScore(), Value("flow_score", None, 2), needs="flow"),
    "stagnation": _kind(
        lambda s: motion.Stagnation(),
        Value("motion_kept", "higher", 2),
        Value("still", "lower", 2),
        needs="flow",
    ),
    "seam": _kind(_seam, Value("seam", 1.0), needs="grid"),
    "cuts": _kind(lambda s: picture.Cuts(), Value("cuts", "lower", 0), needs="cuts"),
    "anchor": _kind(
        lambda s: likeness.Anchor(), Value("anchor", "higher"), Value("anchor_end", "higher"), needs="eyes"
    ),
    "text": _kind(_text, Value("text_alignment", "higher"), needs="eyes text"),
    "drift": _kind(lambda s: picture.Drift(), *(Value(f"drift_{name}", 0.0) for name in picture.Drift.NAMES)),
    "colour": _kind(
        lambda s: picture.ColourDrift(), Value("colour_drift", "lower", 1), Value("colour_end", "lower", 1)
    ),
    "flicker": _kind(lambda s: picture.Flicker(), Value("flicker", "lower", 2)),
    "sharpness": _kind(lambda s: picture.Sharpness(), Value("sharpness", None, 0)),
    "repetition": _kind(
        lambda s: picture.Repetition(), Value("repetition", "lower", 2), Value("period", None, 0)
    ),
}

VALUES: dict[str, Value] = {value.name: value for kind in METRICS.values() for value in kind.values}


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return each name once. RequestError for unknown ones."""
    unique = tuple(dict.fromkeys(names))
    for name in unique:
        if name not in METRICS:
            raise RequestError("metrics", name, f"no such metric; there are {', '.join(METRICS)}")
    return unique


def make_metrics(names: Sequence[str], setting: Setting) -> list[Metric]:
    """Make metrics by name. RequestError if one lacks an input or package."""
    for name in names:
        if missing := what_is_missing(name, setting):
            raise RequestError("metrics", name, missing)
    return [METRICS[name].make(setting) for name in names]


def what_is_missing(name: str, setting: Setting) -> str | None:
    """Return why a metric cannot be taken and the remedy; None if it can."""
    needs, eyes = METRICS[name].needs, setting.tools.eyes
    if "grid" in needs and setting.grid is None:
        return "needs to know where chunks begin, which this file does not say; give --chunk and --overlap"
    if "text" in needs and setting.prompt is None:
        return "needs the prompt, which this file does not say; give --prompt"
    if "text" in needs and eyes is not None and eyes.read is None:
        return (
            f"needs a CLIP, since the model {eyes.name!r} has no text projection; give one by --clip FOLDER"
        )
    return what_is_not_installed(name)


def what_is_not_installed(name: str) -> str | None:
    """Return the command that installs a metric's missing packages; None if all are there."""
    needs = METRICS[name].needs
    packages = ["cv2"] if "flow" in needs and raft_weights() is None else []
    packages += ["cv2", "scenedetect"] if "cuts" in needs else []
    if all(find_spec(package) for package in packages):
        return None
    return "needs packages that are not installed; install them with: pip install 'streamingt2v[eval]'"


def make_tools(names: Iterable[str], clip: str | None = None, flow_size: int | None = None) -> Tools:
    """Make the flow and eyes that these metrics need. clip: name or folder of a CLIP; None: tiny's."""
    needs = frozenset[str]().union(*(METRICS[name].needs for name in names))
    eyes: Eyes | None = None
    if "eyes" in needs:
        eyes = eyes_of_clip(clip) if clip is not None else eyes_of_model()
    return Tools(best_flow(flow_size) if "flow" in needs else None, eyes)


def setting_of(file: Path, tools: Tools, prompt: str | None = None, grid: Grid | None = None) -> Setting:
    """Return a file's setting; prompt and grid are its own unless given."""
    return Setting(tools, grid or grid_of(file), prompt or prompt_of(file))


@dataclass(frozen=True)
class Report:
    """Measurements of a video. left_out: metrics that could not be taken, with the reason."""

    video: Path
    frames: int
    result: Result
    borders: tuple[int, ...]
    measured_with: dict[str, str]
    left_out: dict[str, str]


def evaluate(
    video: Path,
    names: Sequence[str] | None = None,
    tools: Tools | None = None,
    *,
    prompt: str | None = None,
    grid: Grid | None = None,
    on_frame: Callable[[Frame], None] | None = None,
) -> Report:
    """Measure a video file or finished run folder by these metrics; None: by all that can be taken.

    tools: from `make_tools`, for several videos. prompt, grid: instead of the file's own. on_frame: called
    with each frame. RequestError if a named metric cannot be taken, MediaError if the video cannot be read.
    """
    file = video_of(video)
    named = check_names(METRICS if names is None else names)
    tools = tools or make_tools(name for name in named if what_is_not_installed(name) is None)
    setting = setting_of(file, tools, prompt, grid)
    missing = {name: why for name in named if (why := what_is_missing(name, setting))}
    left_out = missing if names is None else {}
    metrics = make_metrics([name for name in named if name not in left_out], setting)
    count = 0

    def frames() -> Iterator[Frame]:
        nonlocal count
        for frame in read_video(file):
            count += 1
            if on_frame is not None:
                on_frame(frame)
            yield frame

    result = measure(frames(), metrics, tools)
    borders = tuple(setting.grid.borders(count)) if setting.grid else ()
    return Report(file, count, result, borders, measured_with(tools), left_out)


def measured_with(tools: Tools) -> dict[str, str]:
    """Return the names of estimator and encoder, on which the numbers depend."""
    size = f" at {tools.flow.size} pixels" if tools.flow and tools.flow.size else ""
    flow = {"flow": tools.flow.name + size} if tools.flow else {}
    return flow | ({"eyes": tools.eyes.name} if tools.eyes else {})
