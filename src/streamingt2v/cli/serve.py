"""`serve`: the HTTP API."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from typer import Option

from ..config.runtime import Savings
from ..errors import MissingExtra, RequestError
from ..ray_backend import Replicas, check_ray_serve
from .options import (
    DeviceOption,
    DtypeOption,
    EngineOption,
    OffloadOption,
    SlicingOption,
    TilingOption,
    takes_options,
)
from .screen import Screen
from .settle import settle

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ..jobs.service import JobService
    from ..jobs.settings import Settings

TOKEN = "STREAMINGT2V_TOKEN"
_MODEL_HELP = "A name of `models`, an id of the hub, or a folder, fetched before by `get`; may be given again, the first is the default."

_LIMITS = {
    "queue": "max_queue",
    "frames": "max_frames",
    "prompt": "max_prompt",
    "steps": "max_steps",
    "sessions": "max_sessions",
    "streams": "max_streams",
    "upload_bytes": "max_upload_mb",
    "upload_seconds": "max_upload_seconds",
    "upload_pixels": "max_upload_pixels",
}
"""Fields of `Limits` and the options that set them."""
_UNITS = {"max_upload_mb": 2**20}


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """What the jobs are made with, and how much is taken on."""

    data_dir: Annotated[Path, Option(help="Folder that jobs and videos are kept in.")] = Path(
        "streamingt2v-data"
    )
    model: Annotated[list[str] | None, Option(help=_MODEL_HELP + "  [default: tiny]")] = None
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    offload: OffloadOption = "auto"
    vae_slicing: SlicingOption = False
    vae_tiling: TilingOption = False
    engine: EngineOption = "torch"
    workers: Annotated[
        int, Option(help="Processes that make videos, one each at a time, each with a model in memory.")
    ] = 1
    keep_hours: Annotated[float, Option(help="How long a video is kept after it has ended; 0: for ever.")] = (
        168.0
    )
    max_queue: Annotated[int, Option(help="Jobs that may wait; more are refused.")] = 64
    max_frames: Annotated[int, Option(help="Frames of one job.")] = 4800
    max_prompt: Annotated[int, Option(help="Characters of one prompt.")] = 2000
    max_steps: Annotated[int, Option(help="Denoising steps of a chunk.")] = 200
    max_sessions: Annotated[int, Option(help="WebSocket sessions open at once.")] = 16
    max_streams: Annotated[int, Option(help="Event streams and growing downloads open at once.")] = 512
    max_upload_mb: Annotated[int, Option(help="MiB of a request with its files.")] = 64
    max_upload_seconds: Annotated[int, Option(help="Length of a video that is sent.")] = 600
    max_upload_pixels: Annotated[int, Option(help="Pixels of a frame of a video that is sent.")] = 4096 * 2304


@takes_options
def serve(
    *,
    host: Annotated[
        str, Option(help="Address to listen on; one that others reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to listen on; 0: a free one.")] = 8000,
    token: Annotated[
        str | None, Option(help=f"What clients must have; better given as the environment variable {TOKEN}.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, Option(help="A host whose https addresses of pictures may be fetched for clients.")
    ] = None,
    replicas: Annotated[
        int, Option(help="Servers with --workers each, at one address; several need the extra ray.")
    ] = 1,
    max_replicas: Annotated[
        int | None, Option(help="As many of them while jobs wait.  [default: --replicas]")
    ] = None,
    service: ServiceOptions,
) -> None:
    """Serve the HTTP API: videos as jobs that outlive this process, watched while they are made."""
    check_extra(
        "serve", "server", "fastapi", "uvicorn", "prometheus_client", "python_multipart", "websockets"
    )
    token = checked_token(host, token or os.environ.get(TOKEN))
    most = _checked_replicas(replicas, max_replicas, service.device)
    settings = settings_of(service)
    hosts = _checked_hosts(allow_host or ())
    if most > 1:
        _serve_replicas(settings, replicas, most, (host, port), token, hosts)
        return
    from ..api.app import create_app

    serve_jobs(settings, lambda jobs: create_app(jobs, token, hosts), host, port)


def _checked_hosts(hosts: Sequence[str]) -> frozenset[str]:
    """Hosts, some with a port. RequestError for what is none."""
    found = set()
    for host in hosts:
        try:
            parts = urlsplit(f"https://{host}")
            if not parts.hostname or parts.netloc != host or "@" in host:
                raise ValueError("no host")
            found.add(parts.hostname if parts.port in (None, 443) else f"{parts.hostname}:{parts.port}")
        except ValueError as error:
            raise RequestError(
                "allow_host", host, "must be a host, or host:port, without https:// and path"
            ) from error
    return frozenset(found)


def _checked_replicas(least: int, most: int | None, device: str) -> int:
    """How many there may be. RequestError for numbers that make no sense; MissingExtra without what several need."""
    if least < 1:
        raise RequestError("replicas", least, "must be 1 or more")
    if most is not None and most < least:
        raise RequestError("max_replicas", most, f"must be {least} or more, as --replicas is")
    most = most or least
    if most > 1:
        check_ray_serve()
        if device.startswith("cuda:"):
            raise RequestError("device", device, "each replica has a GPU of its own; say cuda")
    return most


def _serve_replicas(
    settings: Settings, least: int, most: int, at: tuple[str, int], token: str | None, hosts: frozenset[str]
) -> None:
    """Several servers over one folder, at one address, until the process is told to end."""
    from ..api.listen import address, free_port, wait_until_told
    from ..api.replica import Opening

    show = Screen()
    host, port = at[0].strip("[]"), free_port(*at)
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    opening = Opening(replace(settings, shared=True), least, most, threads, token, hosts)
    opening.check()
    open = settings.limits.sessions + settings.limits.streams + 100  # and as many short requests
    show.note(f"starting {least} replicas, loading {', '.join(settings.names)}")
    with Replicas(opening, least, most, host, port, settings.workers, float(settings.device == "cuda"), open):
        show.note(f"listening on {address(host, port)}")
        wait_until_told()


def serve_jobs(settings: Settings, make_app: Callable[[JobService], ASGIApp], host: str, port: int) -> None:
    """A job service and the application on it, until the process is told to end."""
    from ..api.listen import Listener
    from ..jobs.service import JobService

    show = Screen()
    with Listener(host, port) as listener, JobService(settings) as jobs:
        show.note(f"loading {', '.join(settings.names)}")
        jobs.wait_until_ready()
        show.note(f"listening on {listener.address}")
        listener.serve_until_told(make_app(jobs), jobs.ending)


def settings_of(options: ServiceOptions) -> Settings:
    """The service's settings. RequestError if one makes no sense, or the folder cannot be written to."""
    from ..jobs.settings import Limits, Settings

    options = settle(options, Screen())
    if options.offload == "auto":  # what will be asked for is not known yet
        options = replace(options, offload="none")
    folder = options.data_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(
            "data_dir", str(options.data_dir), f"cannot be written to: {error.strerror}"
        ) from error
    given = {name: getattr(options, option) * _UNITS.get(option, 1) for name, option in _LIMITS.items()}
    shared = {name: getattr(options, name) for name in ("device", "dtype", "workers")} | {
        "savings": Savings.of(options)
    }
    keep = options.keep_hours * 3600 if options.keep_hours else None
    try:
        return Settings(
            folder=folder,
            models=tuple(options.model or ["tiny"]),
            keep_seconds=keep,
            limits=Limits(**given),
            **shared,
        )
    except RequestError as error:  # by the names that were typed
        option = (_LIMITS | {"keep_seconds": "keep_hours"}).get(error.argument, error.argument)
        raise RequestError(option, getattr(options, option), error.fix) from error


def checked_token(host: str, token: str | None) -> str | None:
    """The token. RequestError if an address that others reach has none, or it is too short to keep anybody out."""
    if token is None and not _is_loopback(host):
        raise RequestError(
            "host",
            host,
            f"others reach this address: give a token (the environment variable {TOKEN}), or listen on 127.0.0.1",
        )
    if token is not None and (
        len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise RequestError(
            "token",
            "(hidden)",
            "must be 16 or more ASCII characters without spaces; e.g. that of: openssl rand -hex 24",
        )
    return token


def check_extra(feature: str, extra: str, *modules: str) -> None:
    """MissingExtra unless all these modules can be imported."""
    if any(find_spec(module) is None for module in modules):
        raise MissingExtra(feature, extra)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
