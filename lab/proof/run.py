"""Training loop: checkpoints by the clock, averaged weights, Muon; one process or several.

Several processes (torchrun) train independently and average their weights every few steps, so a slow one
delays the others little.
"""

from __future__ import annotations

import json
import os
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from streamingt2v.train.precision import is_quick_in_bfloat16

from .muon import Muon


@dataclass
class RunConfig:
    """`lr` rises over `warmup` steps and falls to 0 over the last `decay` share of `steps` or `minutes`.

    The run ends at `steps` or `minutes`, whichever comes first; earlier parts of a resumed run count. muon:
    use Muon, else AdamW.
    """

    out: Path
    lr: float = 2e-3
    steps: int = 10**9
    minutes: float = 10**9
    warmup: int = 100
    decay: float = 0.0
    ema: float = 0.998
    clip: float = 1.0
    save_minutes: float = 8
    look_minutes: float = 10
    agree_every: int = 8
    seed: int = 0
    log_every: int = 20
    muon: bool = True

    @classmethod
    def of(cls, options: Namespace, **fixed: Any) -> RunConfig:
        """Return the settings among a command's options, and those that it fixes."""
        asked = {f.name: getattr(options, f.name) for f in fields(cls) if hasattr(options, f.name)}
        return cls(**asked, **fixed)


def device_of_this_process() -> torch.device:
    """Return a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quick_arithmetic(device: torch.device) -> AbstractContextManager[Any]:
    """Use bfloat16 where the hardware has it; on a CPU also plain attention.

    Plain attention has the faster backward over 16 frames or 64 cells. On a CPU without bfloat16 units
    (AVX2), a step in bfloat16 took 23 times as long as one in float32.
    """
    stack = ExitStack()
    if is_quick_in_bfloat16(device):
        stack.enter_context(torch.autocast(device.type, torch.bfloat16))
    if device.type == "cpu":
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack


class Run:
    """Train the parameters of `module` that require a gradient; `counts` records the data seen."""

    def __init__(self, config: RunConfig, module: nn.Module):
        self.config, self.module = config, module
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.own = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.own.items()}
        self.optimizer: torch.optim.Optimizer = (
            Muon(self.own.items(), config.lr)
            if config.muon
            else torch.optim.AdamW(self.own.values(), config.lr, betas=(0.9, 0.99), weight_decay=0.01)
        )
        self.step, self.spent = 0, 0.0
        self.counts: dict[str, int] = {}
        self._load()
        self.rng = np.random.default_rng([config.seed, self.rank, self.step])
        torch.manual_seed(config.seed + 1000003 * self.rank + 17 * self.step)

    @property
    def progress(self) -> float:
        """Return the finished share of the run."""
        return max(self.step / self.config.steps, self.spent / 60 / self.config.minutes)

    def count(self, name: str, number: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def go(self, loss: Callable[[], torch.Tensor], look: Callable[[], None]) -> None:
        """Train to the end. `look` is called with the averaged weights in the module.

        SIGTERM saves a checkpoint after the current step and exits with code 143.
        """
        stopping: list[int] = []
        before_this = signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
        if self.world > 1:
            dist.init_process_group("gloo")
            self._agree()
        self.config.out.mkdir(parents=True, exist_ok=True)
        began = saved = looked = time.monotonic()
        before, losses = self.spent, []
        while self.progress < 1:
            losses.append(self._learn(loss()))
            self.spent = before + time.monotonic() - began
            if self.world > 1 and self.step % self.config.agree_every == 0:
                self._agree()
            if self.step % self.config.log_every == 0 and self.rank == 0:
                self._log(losses)
                losses = []
            if time.monotonic() - saved > self.config.save_minutes * 60:
                self.save()
                saved = time.monotonic()
            if stopping:
                self.save()
                raise SystemExit(143)
            if self.rank == 0 and time.monotonic() - looked > self.config.look_minutes * 60:
                self._with_average(look)
                looked = time.monotonic()
        signal.signal(signal.SIGTERM, before_this)
        self.save()
        if self.rank == 0:
            self._with_average(look)

    def save(self) -> None:
        state = {
            "weights": {n: p.detach() for n, p in self.own.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        path = self._path(self.rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            state | {"step": self.step, "spent": self.spent, "counts": self.counts}, path.with_suffix(".tmp")
        )
        os.replace(path.with_suffix(".tmp"), path)

    def _path(self, rank: int) -> Path:
        return self.config.out / f"checkpoint-{rank}.pt"

    def _load(self) -> None:
        path = self._path(self.rank) if self._path(self.rank).is_file() else self._path(0)
        if not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, p in self.own.items():
                p.copy_(state["weights"][name])
        self.average = {name: value.to(self.own[name].device) for name, value in state["average"].items()}
        self.counts = state["counts"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent = state["step"], state["spent"]

    def _learn(self, loss: torch.Tensor) -> float:
        c = self.config
        loss.backward()
        value = float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.own.values(), c.clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.step}: the gradient is {norm}")
        rate = c.lr * min(1.0, (self.step + 1) / c.warmup)
        if c.decay:
            rate *= min(1.0, max(0.0, 1 - self.progress) / c.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        share = 1 - min(c.ema, 1 - (self.step + 1) ** -0.8)
        torch._foreach_lerp_(list(self.average.values()), [self.own[n].detach() for n in self.average], share)
        return value

    def _log(self, losses: list[float]) -> None:
        line = {
            "step": self.step,
            "loss": round(float(np.mean(losses)), 4),
            **self.counts,
            "seconds": round(self.spent),
        }
        line["cpu"] = round(time.process_time())
        with open(self.config.out / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)

    def _agree(self) -> None:
        flat = torch.nn.utils.parameters_to_vector(self.own.values()).detach()
        dist.all_reduce(flat)
        torch.nn.utils.vector_to_parameters(flat / self.world, self.own.values())

    @torch.no_grad()
    def _with_average(self, look: Callable[[], None]) -> None:
        now = {n: p.detach().clone() for n, p in self.own.items()}
        for name, p in self.own.items():
            p.copy_(self.average[name])
        look()
        for name, p in self.own.items():
            p.copy_(now[name])
