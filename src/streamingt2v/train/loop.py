"""The training loop: resumable, deterministic for a seed, on one or several processes (accelerate).

A recipe is a `Task`: networks, batches, loss. Samples and their noise depend on (seed, step, sample) only, so
resumed runs and runs on any number of processes give the same result up to the rounding of sums.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from diffusers.training_utils import EMAModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import ModelError
from .feed import Feed
from .precision import resolved
from .shard import Split, Weights, Whole
from .task import Batch, Task

Losses = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the loop.

    out: folder for checkpoint, metrics.jsonl and samples. batch: samples per step over all processes.
    precision: "bf16", "no" (float32), or "auto": bf16 if the device has instructions for it. warmup, decay:
    the learning rate rises over `warmup` steps and falls linearly to 0 over the last `decay` share. ema:
    decay of the averaged weights, which are exported. shard: split trained networks across processes (FSDP2)
    instead of copying them (DDP). workers: processes that draw batches ahead. repeat: consecutive steps that
    reuse a batch with new noise; a recipe's step counts then count batches. compile: use torch.compile, with
    CUDA graphs on a GPU; pays for small networks there.
    """

    out: Path
    steps: int
    batch: int
    lr: float
    seed: int = 0
    warmup: int = 100
    decay: float = 0.2
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "auto"
    shard: bool = False
    workers: int = 0
    repeat: int = 1
    compile: bool = False
    log_every: int = 20
    save_every: int = 500


def run(task: Task, config: LoopConfig, stop_after: int | None = None) -> dict[str, float]:
    """Train to `config.steps`, or `stop_after` steps in this call; export and return the last metrics.

    ModelError for a checkpoint of another recipe or size.
    """
    accelerator = _accelerator(config.precision)
    task.module.eval()  # no dropout: every batch is new, so nothing overfits
    shapes = {name: p.shape for name, p in task.module.named_parameters() if p.requires_grad}
    several = accelerator.num_processes > 1
    weights: Weights = (
        Split(task.module, accelerator.device) if config.shard and several else Whole(task.module)
    )
    optimizer: Any = torch.optim.AdamW(
        weights.own, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    ema = EMAModel(weights.own, decay=config.ema, use_ema_warmup=True, power=0.75, foreach=True)
    config.out.mkdir(parents=True, exist_ok=True)
    step = _load(config.out, shapes, weights, optimizer, ema)
    module, optimizer = weights.prepare(accelerator, optimizer)
    ema.to(accelerator.device)

    metrics: dict[str, float] = {}
    began, first = time.monotonic(), step
    if step >= config.steps:  # may have been killed between last checkpoint and export
        _export(accelerator, config, task, weights, ema, step)
    end = config.steps if stop_after is None else min(config.steps, step + stop_after)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    feed = Feed(task, config.seed, config.batch, rank, ranks, config.repeat, config.workers)
    learn = _learning(accelerator, compiled(module) if config.compile else module)
    for batch in feed.steps(step, end, accelerator.device):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _rate(step, config)
        losses = learn(batch | {"total": feed.total(step), "mine": len(feed.mine(step))})
        weights.clip(config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(weights.own)
        step += 1
        if step % config.log_every == 0 or step == end:
            metrics = {k: float(accelerator.reduce(v.detach())) for k, v in losses.items()} | {"step": step}
            _log(accelerator, config, metrics, (time.monotonic() - began) / (step - first))
        if step % config.save_every == 0 or step == end:
            state = _state(list(shapes), weights, optimizer, ema) | {"step": step}
            if accelerator.is_main_process:
                _save(state, config.out)
            del state
            _export(accelerator, config, task, weights, ema, step)
    accelerator.wait_for_everyone()
    return metrics


def _accelerator(precision: str) -> Accelerator:
    """Return accelerate's view of the processes, on the CPU if there is no GPU.

    Without `cpu`, accelerate only looks for GPUs and each CPU process would train alone.
    """
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    mixed = resolved(precision, device or torch.device("cpu"))
    accelerator = Accelerator(cpu=device is None, mixed_precision=mixed, kwargs_handlers=[unused])
    if any(
        os.environ.get(f"ACCELERATE_USE_{kind}", "false").lower() == "true" for kind in ("FSDP", "DEEPSPEED")
    ):
        fix = "to split the network over them: --set shard=yes"
        raise ModelError(f"start the processes without --use_fsdp and --use_deepspeed; {fix}")
    started, used = int(os.environ.get("WORLD_SIZE", "1")), accelerator.num_processes
    if used != started:
        fix = "start them by torchrun"
        raise ModelError(f"{started} processes were started, but accelerate runs {used}; {fix}")
    return accelerator


def compiled(module: Callable[..., Losses]) -> Callable[..., Losses]:
    """Return the module compiled on first use; on a GPU with CUDA graphs."""
    ready = torch.compile(module, mode="reduce-overhead")

    def run(batch: Batch) -> Losses:
        torch.compiler.cudagraph_mark_step_begin()  # gradients of the last step are no longer needed
        return ready(batch)

    return run


def _learning(accelerator: Accelerator, module: Callable[..., Losses]) -> Callable[[Batch], Losses]:
    """Return a function that runs forward and backward on this process's share of a batch.

    The share has `mine` of `total` samples; with none, one sample is computed and not counted.
    """

    def learn(batch: Batch) -> Losses:
        with accelerator.autocast(), _attention(accelerator.device):
            losses = {
                name: value.sum() * (batch["mine"] > 0) / batch["total"]
                for name, value in module(batch).items()
            }
        accelerator.backward(
            losses["loss"] * accelerator.num_processes
        )  # gradients are averaged over processes
        return {name: value.detach() for name, value in losses.items()}

    return learn


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Use plain attention on CPUs: for 16 frames or 64 pixels the fused backward takes a third of a step."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _rate(step: int, config: LoopConfig) -> float:
    tail = max(1, round(config.decay * config.steps))
    return min(1.0, (step + 1) / max(1, config.warmup), max(0.0, (config.steps - step) / tail))


def _log(
    accelerator: Accelerator, config: LoopConfig, metrics: dict[str, float], seconds_per_step: float
) -> None:
    if not accelerator.is_main_process:
        return
    metrics["seconds_per_step"] = round(seconds_per_step, 4)
    with open(config.out / "metrics.jsonl", "a") as file:
        file.write(json.dumps(metrics) + "\n")
    left = seconds_per_step * (config.steps - metrics["step"])
    text = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k not in ("step", "seconds_per_step"))
    rate = f"{seconds_per_step:.2f} s/step  {left / 60:.1f} min left"
    print(f"step {metrics['step']:.0f}/{config.steps}  {text}  {rate}", flush=True)


def _state(names: list[str], weights: Weights, optimizer: Any, ema: EMAModel) -> dict[str, Any]:
    """Return the checkpoint's contents, complete on the main process; all processes must call."""
    moments, averages = optimizer.state_dict(), ema.state_dict()
    per_weight = {
        i: {key: weights.whole(i, value) for key, value in of.items()} for i, of in moments["state"].items()
    }
    return {
        "optimizer": {**moments, "state": per_weight},
        "ema": {
            **averages,
            "shadow_params": [weights.whole(i, value) for i, value in enumerate(averages["shadow_params"])],
        },
        "module": {
            name: weights.whole(i, p.detach())
            for i, (name, p) in enumerate(zip(names, weights.own, strict=True))
        },
    }


def _save(state: dict[str, Any], out: Path) -> None:
    temporary = out / "checkpoint.tmp"
    torch.save(state, temporary)
    os.replace(temporary, out / "checkpoint.pt")


def _load(out: Path, shapes: dict[str, torch.Size], weights: Weights, optimizer: Any, ema: EMAModel) -> int:
    """Restore this process's part of a checkpoint from any number of processes; return its step or 0."""
    path = out / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=isinstance(weights, Split))
    saved = {name: value.shape for name, value in state["module"].items()}
    wrong = {name for name in shapes | saved if shapes.get(name) != saved.get(name)}
    if wrong:
        raise ModelError(f"{path} was written by another recipe or size: {sorted(wrong)[:3]} ...")
    with torch.no_grad():
        for i, (name, own) in enumerate(zip(shapes, weights.own, strict=True)):
            own.copy_(weights.part(i, state["module"][name]))
    moments, averages = state["optimizer"], state["ema"]
    per_weight = {
        i: {key: weights.part(i, value) for key, value in of.items()} for i, of in moments["state"].items()
    }
    optimizer.load_state_dict({**moments, "state": per_weight})
    shadow = [weights.part(i, value) for i, value in enumerate(averages["shadow_params"])]
    ema.load_state_dict({**averages, "shadow_params": shadow})
    return int(state["step"])


def _export(
    accelerator: Accelerator, config: LoopConfig, task: Task, weights: Weights, ema: EMAModel, step: int
) -> None:
    """Write the averaged weights as model folders, and samples."""
    with weights.holding(ema.shadow_params, accelerator.is_main_process):
        if accelerator.is_main_process:
            task.export(config.out)
            task.sample(config.out, step)
    accelerator.wait_for_everyone()
