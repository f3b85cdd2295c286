"""`convert` and `models`: published weights to model folders, and what can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ..errors import ModelError, RequestError
from .options import Dtype, ScreenOptions, takes_options
from .screen import Screen

Kind = Literal["streaming-t2v", "streaming-svd", "vid2vid"]


@takes_options
def convert(
    kind: Annotated[Kind, Argument(metavar="KIND", help="streaming-t2v, streaming-svd or vid2vid.")],
    source: Annotated[
        str, Argument(metavar="SRC", help="The published file, its folder, or its id on the hub.")
    ],
    target: Annotated[
        Path,
        Argument(
            metavar="DST", help="The model folder to write; for vid2vid also a model that gets a refiner."
        ),
    ],
    *,
    dtype: Annotated[Dtype | None, Option(help="Of all weights; default: as they are published.")] = None,
    tokenizer: Annotated[
        Path | None, Option(help="Folder of the tokenizer; default: from the hub. For streaming-t2v.")
    ] = None,
    revision: Annotated[str | None, Option(help="Commit, tag or branch of SRC on the hub.")] = None,
    offline: Annotated[
        bool, Option("--offline", help="Use what is in the hub's cache, and no network.")
    ] = False,
    screen: ScreenOptions,
) -> None:
    """Turn published weights into a model folder for --model.

    Files are read as data only: a file that would run code is refused. Nothing is written unless all of it fits.
    """
    show = Screen(screen.quiet, screen.json)
    if tokenizer is not None and kind != "streaming-t2v":
        raise RequestError("tokenizer", str(tokenizer), f"{kind} reads no text; leave it out")
    import torch

    from ..convert import kinds

    kinds.check_target(kind, target)
    place = _published_file(kind, source, target, dtype in ("float16", "bfloat16"), revision, offline, show)
    if kind == "streaming-t2v" and tokenizer is None:
        tokenizer = _published_tokenizer(offline, show)
    kinds.convert(
        kind,
        place,
        target,
        dtype=getattr(torch, dtype) if dtype else None,
        tokenizer=tokenizer,
        note=show.note,
    )
    show.result(
        str(target),
        {"kind": kind, "source": source, "output": str(target), "bytes": _size(target), "dtype": dtype},
    )


def _published_file(
    kind: Kind, source: str, target: Path, half: bool, revision: str | None, offline: bool, show: Screen
) -> Path:
    """The checkpoint on this machine, from the hub where `source` is no place here."""
    from ..checkpoints import hub
    from ..convert import kinds

    if not hub.is_hub_name(source):
        if revision is not None:
            raise RequestError("revision", revision, f"{source} is not taken from the hub; leave it out")
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
    show.note(f"{hub_id} at {remote.commit}: {hub.readable(size)}, {hub.readable(missing)} of it to fetch")
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
        fix = f"the checkpoint holds none, and {error}; give the folder `tokenizer` of {TOKENIZER_REPO}"
        raise RequestError("tokenizer", None, fix) from error


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@takes_options
def models(*, screen: ScreenOptions) -> None:
    """List what can be used: the included model, published ones, bases of stage 1 and enhancers of stage 3.

    Figures of published models are from their cards, unless it says otherwise. Licences are the cards' to tell.
    """
    from ..checkpoints.registry import ENTRIES

    lines = []
    for entry in ENTRIES:
        size = f"{entry.width}x{entry.height}" if entry.width else "?"
        lines.append(
            f"{entry.name:14} {entry.role:9} {size:10} {_or_unknown(entry.frames):>4} frames  {entry.about}"
        )
        lines.append(
            f"{'':14} licence: {entry.licence}; use: {entry.use}; {entry.hub_id or 'not on the Hugging Face hub'}"
        )
        numbers = [
            ("parameters", entry.parameters, 1e9, "billion"),
            ("download", entry.download_bytes, 1e9, "GB"),
        ]
        known = [f"{what} {value / unit:.2f} {name}" for what, value, unit, name in numbers if value]
        lines.append(f"{'':14} {', '.join([*known, f'checked: {entry.verified}'])}")
    show = Screen(screen.quiet, screen.json)
    show.result("\n".join(lines), {"models": [entry.to_json() for entry in ENTRIES]})


def _or_unknown(value: int | None) -> str:
    return "?" if value is None else str(value)
