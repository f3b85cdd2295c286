"""Distribute work, which it does not know: to this process, or to several by Ray, imported here alone.

`Alone` and `Pool` are crews: `submit` calls a method on an idle worker's object, for tasks that depend on
each other. `Farm` maps over independent tasks and survives the death of workers. `Replicas` serve requests at
one address and scale with load.
"""

import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, Protocol, Self

from .errors import MissingExtra, RunError


class Crew(Protocol):
    """A set of identical workers."""

    @property
    def size(self) -> int:
        """Return how many calls may run at once."""

    def submit(self, method: str, *arguments: Any) -> Future:
        """Call a method of an idle worker's object; block while all are busy."""


class Alone:
    """A crew of one: this process, working inside `submit`."""

    size = 1

    def __init__(self, worker: Any):
        self._worker = worker

    def submit(self, method: str, *arguments: Any) -> Future:
        """See `Crew`; errors are raised here."""
        future: Future = Future()
        future.set_result(getattr(self._worker, method)(*arguments))
        return future


class Pool:
    """A crew of processes, each with its own `make()`: on its own GPU if `gpus`, else on the CPU.

    They run on this machine or in the cluster at RAY_ADDRESS; leaving the context ends them. MissingExtra
    without Ray; RunError for too few GPUs or a dead worker.
    """

    def __init__(self, make: Callable[[], Any], size: int, gpus: bool = False):
        check_ray()
        self.size = size
        self._make, self._gpus = make, gpus

    def __enter__(self) -> Self:
        _keep_to_itself()
        import ray

        _join(self.size, 1, float(self._gpus))
        kind = ray.remote(num_cpus=1, num_gpus=int(self._gpus))(_Worker)
        self._idle: SimpleQueue = SimpleQueue()
        for _ in range(self.size):
            self._idle.put(kind.remote(self._make))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import ray

        ray.shutdown()
        if isinstance(error, ray.exceptions.RayActorError):
            reason = str(error).strip().splitlines()[-1]  # earlier lines only identify the process
            raise RunError(f"a worker ended before its work was done: {reason}") from error

    def submit(self, method: str, *arguments: Any) -> Future:
        """See `Crew`; errors are raised by the future."""
        worker = self._idle.get()
        future = worker.call.remote(method, *arguments).future()
        future.add_done_callback(lambda _: self._idle.put(worker))
        return future


class _Worker:
    """Actor in a pool's process."""

    def __init__(self, make: Callable[[], Any]):
        self._object = make()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._object, method)(*arguments)


class Farm:
    """`size` processes on Ray Data, each with its own `make()`; size 1 is this process, without Ray.

    cpus, gpus: per worker; a fraction of a GPU lets several share one. Location: see `Pool`. A dead worker is
    restarted with its task, at most `LIVES` times per task. Leaving the context ends them. MissingExtra
    without Ray; RunError for too few CPUs or GPUs.
    """

    LIVES = 10

    def __init__(self, make: Callable[[], Callable[[str], str]], size: int, cpus: int = 1, gpus: float = 0.0):
        if size > 1:
            check_ray()
        self._make, self._size, self._cpus, self._gpus = make, size, cpus, gpus

    def __enter__(self) -> Self:
        if self._size > 1:
            _join(self._size, self._cpus, self._gpus)
        return self

    def __exit__(self, *error: object) -> None:
        if self._size > 1:
            import ray

            ray.shutdown()

    def work_off(self, tasks: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield (task number, answer) as completed; nothing for a task that often killed its worker.

        Tasks and answers are strings, since they may cross machines.
        """
        if self._size == 1:
            work = self._make()
            return ((number, work(task)) for number, task in enumerate(tasks))
        return self._on_ray(tasks)

    def _on_ray(self, tasks: Sequence[str]) -> Iterator[tuple[int, str]]:
        import logging

        import ray
        from ray import data

        data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        tally = ray.remote(num_cpus=0)(_Tally).remote()
        rows = data.from_items(
            [{"number": n, "task": task} for n, task in enumerate(tasks)], override_num_blocks=len(tasks)
        )
        answers = rows.map(  # each row is a block, Ray Data's unit of work
            _Hand,
            fn_constructor_args=(self._make, tally, self.LIVES),
            # a worker takes no second task while another may be idle
            compute=data.ActorPoolStrategy(size=min(self._size, len(tasks)), max_tasks_in_flight_per_actor=1),
            num_cpus=self._cpus,
            num_gpus=self._gpus,
        )
        return ((row["number"], row["answer"]) for row in answers.iter_rows() if row["answer"] is not None)


class _Tally:
    """Count starts of each task; outlives the workers."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, number: int) -> int:
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]


class _Hand:
    """Callable that Ray Data creates per worker and calls per row.

    It limits retries: Ray Data would retry a row without end if its worker keeps dying.
    """

    def __init__(self, make: Callable[[], Callable[[str], str]], tally: Any, lives: int):
        self._work, self._tally, self._lives = make(), tally, lives

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        begun = ray.get(self._tally.begin.remote(row["number"]))
        return {"number": row["number"], "answer": self._work(row["task"]) if begun <= self._lives else None}


class Replica(Protocol):
    """One of several identical servers."""

    @property
    def app(self) -> Any:
        """Return its ASGI application."""

    def wanted(self) -> int:
        """Return the number of replicas that this one considers necessary."""


class Replicas:
    """`least` to `most` processes at one address (Ray Serve), as many as the busiest replica wants.

    make: a context manager that gives a process its `Replica`. cpus, gpus: per replica. open: concurrent
    connections per replica. Dead replicas are replaced; a connection stays with its replica. Location: see
    `Pool`; every machine with a replica listens. Entering the context waits until they answer, leaving it
    ends them. MissingExtra without Ray Serve; RunError if they cannot start.
    """

    def __init__(
        self,
        make: Callable[[], AbstractContextManager[Replica]],
        least: int,
        most: int,
        host: str,
        port: int,
        cpus: int = 1,
        gpus: float = 0.0,
        open: int = 1000,
    ):
        check_ray_serve()
        self._make, self._least, self._most = make, least, most
        self._address = {"host": host, "port": port}
        self._cpus, self._gpus, self._open = cpus, gpus, open

    def __enter__(self) -> Self:
        import logging

        _keep_to_itself()
        import ray
        from ray import serve

        _join(self._least, self._cpus, self._gpus, room=self._most, tell=True)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        try:
            serve.start(proxy_location="EveryNode", http_options=self._address, logging_config=quiet)
            deployment = serve.deployment(
                name="replicas",
                max_ongoing_requests=self._open,
                ray_actor_options={"num_cpus": self._cpus, "num_gpus": self._gpus},
                autoscaling_config=self._scaling(),
                health_check_period_s=2.0,
                logging_config=quiet,
            )
            serve.run(deployment(serve.ingress()(_Ingress)).bind(self._make), name="streamingt2v")
        except RuntimeError as error:  # Ray has already logged the reason
            self.__exit__()
            raise RunError(f"the replicas cannot be started: {str(error).strip().splitlines()[0]}") from error
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()

    def _scaling(self) -> Any:
        from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

        return AutoscalingConfig(
            min_replicas=self._least,
            max_replicas=self._most,
            policy=AutoscalingPolicy(policy_function=_as_wanted),
            aggregation_function="max",
            look_back_period_s=20.0,
            upscale_delay_s=2.0,
            downscale_delay_s=60.0,
        )


def _as_wanted(context: Any) -> tuple[int, dict[str, Any]]:
    """Return the wanted number of replicas and no state; Ray Serve calls this regularly."""
    said = (context.aggregated_metrics or {}).get(_Ingress.WANTED, {}).values()
    return (math.ceil(max(said)) if said else context.target_num_replicas), {}


class _Ingress:
    """Actor in a replica's process."""

    WANTED = "wanted"

    def __init__(self, make: Callable[[], AbstractContextManager[Replica]]):
        self._made: AbstractContextManager[Replica] | None = None
        made = make()
        self._replica, self._made = made.__enter__(), made

    def __serve_build_asgi_app__(self) -> Any:
        return self._replica.app

    def record_autoscaling_stats(self) -> dict[str, float]:
        return {self.WANTED: float(self._replica.wanted())}

    def __del__(self) -> None:  # Ray Serve calls it when it ends a replica
        made, self._made = self._made, None
        if made is not None:
            made.__exit__(None, None, None)


def _keep_to_itself() -> None:
    """Let a Ray started here listen on loopback only and require a token. User settings and RAY_ADDRESS win.

    Call it before importing Ray, which reads this at import.
    """
    if "RAY_ADDRESS" not in os.environ and "ray" not in sys.modules:
        # on every system this makes Ray reachable only locally
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _join(size: int, cpus: int, gpus: float, room: int = 0, tell: bool = False) -> None:
    """Start Ray here, or join the cluster at RAY_ADDRESS. RunError if it has no room for `size` workers.

    room: workers that may be added later. tell: print the workers' output here.
    """
    import logging

    _keep_to_itself()
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15, the default, starves workers under other load
    if not tell:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # workers report through their answers
    local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": max(size, room) * cpus}
    ray.init(**local, logging_level=logging.ERROR, log_to_driver=tell, include_dashboard=False)
    there = ray.cluster_resources()
    for kind, each in (("CPU", float(cpus)), ("GPU", gpus)):
        if size * each > there.get(kind, 0.0):
            ray.shutdown()
            found = f"there are {there.get(kind, 0.0):g}"
            raise RunError(f"{size} workers need {each:g} {kind} each and {found}: use fewer workers")


def check_ray_serve() -> None:
    """Raise MissingExtra unless Ray Serve and its dependencies are installed. Imports nothing."""
    if any(find_spec(module) is None for module in ("ray", "aiohttp", "grpc", "opencensus", "uvicorn")):
        raise MissingExtra("replicas", "ray")


def check_ray() -> None:
    """Raise MissingExtra unless Ray is installed. Imports nothing."""
    if find_spec("ray") is None:
        raise MissingExtra("workers", "ray")
