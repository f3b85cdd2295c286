"""`convert`: turn published weights into a model folder. `models`: list known models."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ..errors import ModelError, RequestError
from .options import Dtype, ScreenOptions, takes_options
from .places import check_name, try_folder
from .screen import Screen

Kind = Literal["streaming-t2v", "streaming-svd", "vid2vid"]


@takes_options
def convert(
    kind: Annotated[Kind, Argument(metavar="KIND", help="Kind of checkpoint.")],
    source: Annotated[
        str, Argument(metavar="SRC", help="Published checkpoint: a file, a folder or a hub id.")
    ],
    target: Annotated[
        Path,
        Argument(
            metavar="DST", help="Model folder to write; for vid2vid, or an existing one to add a refiner to."
        ),
    ],
    *,
    dtype: Annotated[Dtype | None, Option(help="Data type of the weights. Default: as published.")] = None,
    tokenizer: Annotated[
        Path | None, Option(help="Tokenizer folder, for streaming-t2v. Default: downloaded.")
    ] = None,
    revision: Annotated[str | None, Option(help="Commit, tag or branch of SRC on the hub.")] = None,
    offline: Annotated[bool, Option("--offline", help="Use only files in the hub cache.")] = False,
    screen: ScreenOptions,
) -> None:
    """Convert published weights to a model folder for --model.

    Checkpoints are read as data; files that would run code are refused. DST is written whole or not at all.
    """
    show = Screen(screen.quiet, screen.json)
    if tokenizer is not None and kind != "streaming-t2v":
        raise RequestError("tokenizer", str(tokenizer), f"{kind} reads no text; leave it out")
    import torch

    from ..convert import kinds

    check_name("target", target)
    kinds.check_target(kind, target)
    try_folder("target", target)
    place = _published_file(kind, source, target, dtype in ("float16", "bfloat16"), revision, offline, show)
    if kind == "streaming-t2v" and tokenizer is None:
        tokenizer = _published_tokenizer(offline, show)
    numbers = getattr(torch, dtype) if dtype else None
    kinds.convert(kind, place, target, dtype=numbers, tokenizer=tokenizer, note=show.note)
    show.result(
        str(target),
        {"kind": kind, "source": source, "output": str(target), "bytes": _size(target), "dtype": dtype},
    )


def _published_file(
    kind: Kind, source: str, target: Path, half: bool, revision: str | None, offline: bool, show: Screen
) -> Path:
    """Return the local checkpoint file; download it if `source` is a hub id."""
    from ..checkpoints import hub
    from ..convert import kinds

    if not hub.is_hub_name(source):
        if revision is not None:
            raise RequestError("revision", revision, f"{source} is not on the hub; leave it out")
        return kinds.find_source(kind, Path(source))
    choose = hub.like(kinds.FILES[kind], f"*/{kinds.FILES[kind]}")
    hub_id, revision = hub.resolve(source, revision)
    if offline or hub.constants.HF_HUB_OFFLINE:
        return kinds.find_source(kind, hub.find(hub_id, choose, revision))
    remote = hub.look_up(hub_id, revision)
    names = hub.chosen(remote, choose)
    size, missing = remote.size(names), remote.missing(names)
    hub.check_disk(missing, Path(hub.constants.HF_HUB_CACHE), f"the download of {hub_id}", "HF_HOME")
    hub.check_disk(size // 2 if half else size, target, "the model folder", "DST")
    show.note(f"{hub_id} at {remote.commit}: {hub.readable(size)}, {hub.readable(missing)} to download")
    with show.progress(missing, 0, "bytes") as progress:
        return kinds.find_source(kind, hub.bring(remote, names, progress.add))


def _published_tokenizer(offline: bool, show: Screen) -> Path:
    from ..checkpoints import hub
    from ..checkpoints.registry import TOKENIZER_REPO

    try:
        return (
            hub.fetch(TOKENIZER_REPO, hub.like("tokenizer/*"), offline=offline, note=show.note) / "tokenizer"
        )
    except (ModelError, RequestError) as error:
        fix = f"the checkpoint has none, and {error}; give the folder `tokenizer` of {TOKENIZER_REPO}"
        raise RequestError("tokenizer", None, fix) from error


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@takes_options
def models(*, screen: ScreenOptions) -> None:
    """List known models: included and published ones, bases for stage 1, enhancers for stage 3.

    Figures are from the model cards unless marked as checked. Read the card before relying on a licence.
    """
    from ..checkpoints.registry import ENTRIES

    lines = []
    for entry in ENTRIES:
        size = f"{entry.width}x{entry.height}" if entry.width else "?"
        lines.append(
            f"{entry.name:20} {entry.role:9} {size:10} {entry.frames or '?':>4} frames  {entry.about}"
        )
        place = entry.hub_id or "not on the Hugging Face hub"
        lines.append(f"{'':20} licence: {entry.licence}; use: {entry.use}; {place}")
        numbers = [
            ("parameters", entry.parameters, 1e9, "billion"),
            ("download", entry.download_bytes, 1e9, "GB"),
        ]
        known = [f"{what} {value / unit:.2f} {name}" for what, value, unit, name in numbers if value]
        if entry.weights:
            whole, largest = (size / 1e9 for size in entry.weights.values())
            known.append(f"weights in memory {whole:.1f} GB, {largest:.1f} GB with --offload model")
        if entry.steps:
            scale = f", guidance {entry.guidance_scale:g}" if entry.guidance_scale else ""
            known.append(f"recommended: {entry.steps} steps{scale}, {entry.half}")
        lines.append(f"{'':20} {', '.join([*known, f'checked: {entry.verified}'])}")
    show = Screen(screen.quiet, screen.json)
    show.result("\n".join(lines), {"models": [entry.to_json() for entry in ENTRIES]})
