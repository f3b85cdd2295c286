"""Follow a prompt or a job through the modules of the package, call by call.

    python -m lab.benchmarks.walk prompt    # `generate`, from the command line to the network
    python -m lab.benchmarks.walk job       # from `JobService.submit` to the first committed frames

A stay is a run of calls into one module that carry the prompt, or an object that holds it: a request, a job,
its id, or its embedding. A climb leads to a module of an outer layer, in the order of `tests/test_layers.py`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # the order of layers is the tests'

from test_layers import RANK

ROOT = Path(__file__).parents[2]
PREFIX = f"{ROOT / 'src' / 'streamingt2v'}/"
PROMPT = "A cat running on the street, as followed here"
HOLDERS = {"Request", "ResolvedRequest", "Words", "TextCond", "Condition", "Job", "RunFolder"}
"""Classes whose objects hold the prompt."""


class Arrived(BaseException):
    """The trip has ended. No Exception, so that no handler on the way takes it."""


class Walk:
    """Modules in the order of the calls that carry the prompt. last: (module, function) that ends it."""

    def __init__(self, last: tuple[str, str]):
        self.last, self.stays, self.marks = last, list[str](), {PROMPT}
        self.arrived = False

    def climbs(self) -> int:
        """Return the number of moves to an outer layer."""
        ranks = [RANK[stay.split("/")[0]] for stay in self.stays]
        return sum(after > before for before, after in pairwise(ranks))

    def returns(self) -> int:
        """Return the number of moves to a module that was left before."""
        return len(self.stays) - len(set(self.stays))

    def see(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call, if it carries the prompt; a function for `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or self.arrived or not code.co_filename.startswith(PREFIX):
            return
        if code.co_flags & inspect.CO_GENERATOR and frame.f_lasti > 8:  # it goes on
            return
        module = code.co_filename.removeprefix(PREFIX).removesuffix(".py")
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if (module, code.co_name) == self.last or self._carries(frame, names):
            self._enter(module)
        if (module, code.co_name) == self.last:
            self.arrived = True
            raise Arrived

    def _enter(self, module: str) -> None:
        if module.endswith("__init__") or (self.stays and self.stays[-1] == module):
            return
        self.stays.append(module)

    def _carries(self, frame: FrameType, names: tuple[str, ...]) -> bool:
        values = [frame.f_locals.get(name) for name in names]
        return any(self._holds(value) for value in values)

    def _holds(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self.marks
        if type(value).__name__ in HOLDERS:
            return True
        return isinstance(value, list | tuple) and any(isinstance(x, str) and x in self.marks for x in value)


@contextmanager
def walking(walk: Walk) -> Iterator[None]:
    """Follow the calls of the block until the walk arrives."""
    sys.setprofile(walk.see)
    try:
        yield
    except Arrived:
        pass
    finally:
        sys.setprofile(None)


def prompt(folder: Path) -> Walk:
    """Follow `generate` to the first prediction of the network."""
    from streamingt2v.cli import main

    walk = Walk(("models/unet3d", "forward"))
    with walking(walk):
        main(["generate", PROMPT, "--frames", "16", "--steps", "1", "-o", str(folder / "a.mp4"), "--quiet"])
    return walk


def job(folder: Path) -> Walk:
    """Follow a job, made by a worker in this process, to its first segment on the disk."""
    from streamingt2v import Request
    from streamingt2v.jobs.service import JobService
    from streamingt2v.jobs.settings import Settings
    from streamingt2v.jobs.worker import Worker

    settings = Settings(folder / "data")
    service, worker = JobService(settings), Worker(settings, 0)
    walk = Walk(("video/writer", "encode_segment"))
    with walking(walk):
        walk.marks.add(service.submit(Request(PROMPT, 16, num_inference_steps=1)).id)
        claimed = worker.store.claim(0)
        assert claimed is not None, "it was queued"
        worker.work_on(claimed)
    return walk


WALKS: dict[str, Callable[[Path], Walk]] = {"prompt": prompt, "job": job}


def table(walk: Walk) -> str:
    """Format a walk as Markdown: how far it went, and its modules in order."""
    rooms = len(set(walk.stays))
    head = f"{rooms} modules, {len(walk.stays)} stays, {walk.returns()} returns, {walk.climbs()} climbs"
    return head + "\n\n" + " → ".join(f"`{stay}`" for stay in walk.stays)


def main(words: list[str]) -> int:
    """Print a walk; return 1 if it did not arrive."""
    if len(words) != 1 or words[0] not in WALKS:
        print(__doc__)
        return 2
    with TemporaryDirectory() as folder:
        walk = WALKS[words[0]](Path(folder))
    print(table(walk))
    return 0 if walk.arrived else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
