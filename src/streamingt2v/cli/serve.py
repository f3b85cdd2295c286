"""`serve`: the HTTP API."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from typer import Option

from ..config.runtime import Savings
from ..errors import MissingExtra, RequestError
from ..ray_backend import Replicas, check_ray_serve
from .options import (
    MOST_WORKERS,
    DeviceOption,
    DtypeOption,
    EngineOption,
    LoraOption,
    OffloadOption,
    QuantizeOption,
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
_MODEL_HELP = "Downloaded model to serve: a name, hub id or folder; repeatable, the first is the default."

HostOption = Annotated[
    str, Option(help="Address to listen on. Addresses reachable from other machines require a token.")
]
PortOption = Annotated[int, Option(help="Port to listen on; 0: any free port.", min=0, max=65535)]
TokenOption = Annotated[
    str | None,
    Option(help=f"Access token. Prefer the environment variable {TOKEN}, which `ps` does not show."),
]

_PLAIN = "queue frames prompt steps sessions streams uploads upload_seconds upload_pixels".split()
_LIMITS = {name: f"max_{name}" for name in _PLAIN} | {
    "upload_bytes": "max_upload_mb", "upload_total": "max_stored_mb"
}  # fmt: skip
"""Fields of `Limits` and their options."""
_UNITS = {"max_upload_mb": 2**20, "max_stored_mb": 2**20}


def _most(help: str, largest: int) -> Any:
    """Return the option for a limit, from 1 to `largest`."""
    return Option(help=help, min=1, max=largest)


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Models, storage and limits of a server."""

    data_dir: Annotated[Path, Option(help="Folder for jobs and videos.")] = Path("streamingt2v-data")
    model: Annotated[list[str] | None, Option(help=_MODEL_HELP + "  [default: tiny]")] = None
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    offload: OffloadOption = "auto"
    vae_slicing: SlicingOption = False
    vae_tiling: TilingOption = False
    engine: EngineOption = "torch"
    quantize: QuantizeOption = None
    lora: LoraOption = None
    workers: Annotated[
        int,
        Option(
            help="Worker processes; each makes one video at a time and holds a model in memory.",
            min=1,
            max=MOST_WORKERS,
        ),
    ] = 1
    keep_hours: Annotated[
        float, Option(help="Hours to keep a job after it ends; 0: forever.", min=0, max=1e6)
    ] = 168.0
    max_queue: Annotated[int, _most("Most jobs in the queue; more are refused.", 10**6)] = 64
    max_frames: Annotated[int, _most("Most frames per job.", 10**9)] = 4800
    max_prompt: Annotated[int, _most("Most characters per prompt.", 10**5)] = 2000
    max_steps: Annotated[int, _most("Most denoising steps per chunk.", 1000)] = 200
    max_sessions: Annotated[int, _most("Most open WebSocket sessions.", 10**5)] = 16
    max_streams: Annotated[
        int, _most("Most open event streams and downloads of unfinished videos.", 10**5)
    ] = 512
    max_uploads: Annotated[int, _most("Most requests with files received at once.", 10**5)] = 16
    max_upload_mb: Annotated[int, _most("Largest request including files, in MiB.", 10**6)] = 64
    max_upload_seconds: Annotated[int, _most("Longest uploaded video, in seconds.", 10**6)] = 600
    max_upload_pixels: Annotated[int, _most("Most pixels per frame of an uploaded video.", 10**9)] = (
        4096 * 2304
    )
    max_stored_mb: Annotated[
        int, _most("Most stored uploads together, in MiB; more are refused until videos are deleted.", 10**9)
    ] = 4096


@takes_options
def serve(
    *,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    token: TokenOption = None,
    allow_host: Annotated[
        list[str] | None, Option(help="Host from which images may be fetched by https URL; repeatable.")
    ] = None,
    replicas: Annotated[
        int,
        Option(
            help="Servers behind one address, each with --workers. More than 1 needs the extra 'ray'.",
            min=1,
            max=MOST_WORKERS,
        ),
    ] = 1,
    max_replicas: Annotated[
        int | None,
        Option(help="Most servers while jobs wait.  [default: --replicas]", min=1, max=MOST_WORKERS),
    ] = None,
    service: ServiceOptions,
) -> None:
    """Start the HTTP API: durable video jobs that can be watched while they are made."""
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
    """Return the hosts, without default ports; RequestError for an invalid one."""
    found = set()
    for host in hosts:
        try:
            parts = urlsplit(f"https://{host}")
            if not parts.hostname or parts.netloc != host or "@" in host:
                raise ValueError("no host")
            found.add(parts.hostname if parts.port in (None, 443) else f"{parts.hostname}:{parts.port}")
        except ValueError as error:
            raise RequestError(
                "allow_host", host, "must be HOST or HOST:PORT, without https:// and path"
            ) from error
    return frozenset(found)


def _checked_replicas(least: int, most: int | None, device: str) -> int:
    """Return the largest number of replicas; RequestError for wrong numbers, MissingExtra without Ray."""
    if least < 1:
        raise RequestError("replicas", least, "must be 1 or more")
    if most is not None and most < least:
        raise RequestError("max_replicas", most, f"must be {least} or more, as many as --replicas")
    most = most or least
    if most > 1:
        check_ray_serve()
        if device.startswith("cuda:"):
            raise RequestError("device", device, "replicas choose their own GPUs; use cuda")
    return most


def _serve_replicas(
    settings: Settings, least: int, most: int, at: tuple[str, int], token: str | None, hosts: frozenset[str]
) -> None:
    """Run several servers on one folder behind one address until a signal ends them."""
    from ..api.listen import address, free_port, wait_until_told
    from ..api.replica import Opening

    show = Screen()
    host, port = at[0].strip("[]"), free_port(*at)
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    opening = Opening(replace(settings, shared=True), least, most, threads, token, hosts)
    opening.check()
    requests = settings.limits.sessions + settings.limits.streams + 100  # open at once
    show.note(f"starting {least} replicas, loading {', '.join(settings.names)}")
    with Replicas(
        opening, least, most, host, port, settings.workers, float(settings.device == "cuda"), requests
    ):
        show.note(f"listening on {address(host, port)}")
        wait_until_told()


def serve_jobs(settings: Settings, make_app: Callable[[JobService], ASGIApp], host: str, port: int) -> None:
    """Run a job service and its application until a signal ends them."""
    from ..api.listen import Listener
    from ..jobs.service import JobService

    show = Screen()
    with Listener(host, port) as listener, JobService(settings) as jobs:
        show.note(f"loading {', '.join(settings.names)}")
        jobs.wait_until_ready()
        show.note(f"listening on {listener.address}")
        listener.serve_until_told(make_app(jobs), jobs.ending)


def settings_of(options: ServiceOptions) -> Settings:
    """Return the settings of the service; RequestError for a wrong one or an unwritable folder."""
    from ..jobs.settings import Limits, Settings

    options = settle(options, Screen())
    if options.offload == "auto":  # the requests are not known yet
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
    except RequestError as error:  # name the option as it was typed
        option = (_LIMITS | {"keep_seconds": "keep_hours"}).get(error.argument, error.argument)
        raise RequestError(option, getattr(options, option), error.fix) from error


def checked_token(host: str, token: str | None) -> str | None:
    """Return the token; RequestError if a public address has none, or it is too weak."""
    if token is None and not _is_loopback(host):
        fix = f"other machines can reach it: set a token ({TOKEN}), or use 127.0.0.1"
        raise RequestError("host", host, fix)
    if token is not None and (
        len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token
    ):
        fix = "must be 16 or more ASCII characters without spaces; create one by: openssl rand -hex 24"
        raise RequestError("token", "(hidden)", fix)
    return token


def check_extra(feature: str, extra: str, *modules: str) -> None:
    """Raise MissingExtra unless all these modules are installed."""
    if any(find_spec(module) is None for module in modules):
        raise MissingExtra(feature, extra)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
