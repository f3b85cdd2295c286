"""Training of the embedded base network in the background: stock UNet3DConditionModel on latents of the world.

    python -m lab.proof.base OUT --text DIR --code FILE [--init DIR] [--frames 16] ...

It runs until it is stopped, goes on from its last checkpoint, and looks at samples of the averaged weights now and then. The network
predicts the clean latents: at 64 numbers a cell and a width of 64, what it does not know is then a soft picture, not noise. Started
as several processes by torchrun, each learns for itself and they average their weights every few steps, so that one that gets less of
the machine holds up the other little.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from torch import distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from .code import CHANNELS, load_code
from .muon import Muon
from .pool import Example, Pool
from .sampling import make_scheduler, sample, save_sheet
from .words import WIDTH, load_text, tokenize


def build_unet(channels: tuple[int, ...] = (64, 128, 192), side: int = 8) -> UNet3DConditionModel:
    """A stock network, attention at all levels but the deepest, as ModelScope's."""
    inner = len(channels) - 1
    return UNet3DConditionModel(
        sample_size=side, in_channels=CHANNELS, out_channels=CHANNELS,
        down_block_types=("CrossAttnDownBlock3D",) * inner + ("DownBlock3D",), up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * inner,
        block_out_channels=channels, layers_per_block=1, cross_attention_dim=WIDTH, attention_head_dim=32, norm_num_groups=16,
    )  # fmt: skip


def stand_still(unet: UNet3DConditionModel) -> None:
    """Leave out all that looks along time: what a network of single pictures needs, at half the cost."""
    for name, module in unet.named_modules():
        kind = name.split(".")[-2 if name[-1:].isdigit() else -1]
        if kind in ("transformer_in", "temp_attentions"):
            module.forward = lambda x, num_frames=1, return_dict=False, **_: (x,)
        elif kind == "temp_convs":
            module.forward = lambda x, num_frames=1: x


def begin_to_move(unet: UNet3DConditionModel) -> None:
    """What looks along time starts without effect, on a network that learned from pictures without it."""
    for name, module in unet.named_modules():
        kind = name.split(".")[-2 if name[-1:].isdigit() else -1]
        last = module.proj_out if kind in ("transformer_in", "temp_attentions") else module.conv4[-1] if kind == "temp_convs" else None
        if last is not None:
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)


def clean_loss(
    clean_BCTHW: torch.Tensor, latents_BCTHW: torch.Tensor, t: torch.Tensor, cover_BTHW: torch.Tensor, scheduler: DDIMScheduler, changes: float
) -> torch.Tensor:
    """Squared error of the clean latents, weighted by min(snr, 5) + 1, more where the thing is, plus that of changes from frame to frame."""
    signal = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    noise_weight = (signal / (1 - signal).clamp(min=1e-5)).clamp(max=5) + 1
    weight = 1 + 4 * cover_BTHW
    weight = noise_weight * weight / weight.mean((1, 2, 3), keepdim=True)
    error = clean_BCTHW.float() - latents_BCTHW
    loss = ((error**2).mean(1) * weight).mean()
    if changes and error.shape[2] > 1:
        loss = loss + 0.5 * changes * ((error.diff(dim=2) ** 2).mean(1) * weight[:, 1:]).mean()
    return loss


class Trainer:
    """One process of the training."""

    def __init__(self, a: argparse.Namespace):
        self.a, self.out = a, Path(a.out)
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        torch.manual_seed(0)
        self.tokenizer, self.text = load_text(Path(a.text))
        self.text.requires_grad_(False).eval()
        self.code, self.scheduler = load_code(Path(a.code)), make_scheduler(a.predict)
        self.unet = UNet3DConditionModel.from_pretrained(Path(a.init) / "unet").float() if a.init else build_unet(a.channels)
        self.unet.eval()  # no dropout: hardly anything is seen twice
        if a.frames == 1:
            stand_still(self.unet)
        elif a.still_init:
            begin_to_move(self.unet)
        self.quick = torch.compile(self.unet, dynamic=False) if a.compile else self.unet  # 1.7 times as fast on a CPU with AMX
        self.average = {n: p.detach().clone() for n, p in self.unet.named_parameters()}
        self.optimizer = Muon(self.unet.named_parameters(), a.lr) if a.muon else self._adam()
        self.step, self.clips, self.pictures, self.spent = 0, 0, 0, 0.0
        self._load()
        rng = np.random.default_rng([a.seed, self.rank, self.step])
        torch.manual_seed(a.seed + 1000003 * self.rank + 17 * self.step)
        self.rng = rng
        self.of_clips = Pool(self.code, a.frames, 1500, a.fresh, rng)
        self.of_pictures = Pool(self.code, 1, 6000, a.fresh, rng)

    def _adam(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.unet.parameters(), lr=self.a.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)

    def _path(self, rank: int) -> Path:
        return self.out / f"checkpoint-{rank}.pt"

    def _load(self) -> None:
        path = self._path(self.rank) if self._path(self.rank).is_file() else self._path(0)
        if not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step, self.clips, self.pictures, self.spent = state["step"], state["clips"], state["pictures"], state["spent"]

    def save(self) -> None:
        state = {
            "unet": self.unet.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average,
            "step": self.step, "clips": self.clips, "pictures": self.pictures, "spent": self.spent,
        }  # fmt: skip
        temporary = self._path(self.rank).with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self._path(self.rank))

    def batch(self) -> list[Example]:
        a = self.a
        if a.frames == 1 or (a.picture_every and self.step % a.picture_every == 0):
            self.pictures += a.picture_batch
            return self.of_pictures.batch(a.picture_batch)
        self.clips += a.batch
        return self.of_clips.batch(a.batch)

    def learn(self) -> float:
        examples = self.batch()
        latents = torch.stack([e.latents for e in examples]).float()
        cover = torch.stack([e.cover for e in examples]).float()
        captions = [e.spec.caption if self.rng.random() > 0.1 else "" for e in examples]
        late = self.a.late if latents.shape[2] > 1 else 1.0
        t = (1000 * torch.rand(len(examples)) ** (1 / late)).long().clamp(max=999)
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, t)
        with torch.no_grad():
            text = self.text(tokenize(self.tokenizer, captions)).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted = self.quick(noisy, t, text).sample.float()
        if self.a.predict == "v_prediction":
            signal = self.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1, 1)
            predicted = signal**0.5 * noisy - (1 - signal) ** 0.5 * predicted
        loss = clean_loss(predicted, latents, t, cover, self.scheduler, self.a.changes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        rate = self.a.lr * min(1.0, (self.step + 1) / 100)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.a.ema, 1 - (self.step + 1) ** -0.8)
        own = dict(self.unet.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [own[n].detach() for n in self.average], 1 - decay)
        return float(loss.detach())

    def agree(self) -> None:
        """The processes' weights become their mean."""
        flat = torch.nn.utils.parameters_to_vector(self.unet.parameters()).detach()
        dist.all_reduce(flat)
        torch.nn.utils.vector_to_parameters(flat / self.world, self.unet.parameters())

    def run(self) -> None:
        if self.world > 1:
            dist.init_process_group("gloo")
            self.agree()
        self.out.mkdir(parents=True, exist_ok=True)
        losses: dict[int, list[float]] = {}
        began, saved, looked, done = time.monotonic(), time.monotonic(), time.monotonic(), self.spent
        while self.step < self.a.steps:
            loss = self.learn()
            losses.setdefault(0, []).append(loss)
            self.spent = done + time.monotonic() - began
            if self.world > 1 and self.step % self.a.agree_every == 0:
                self.agree()
            if self.step % 20 == 0 and self.rank == 0:
                mean, losses = float(np.mean(losses[0])), {}
                line = {"step": self.step, "loss": round(mean, 4), "clips": self.clips, "pictures": self.pictures, "seconds": round(self.spent)}
                line["cpu"] = round(time.process_time())
                with open(self.out / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)
            if time.monotonic() - saved > self.a.save_minutes * 60:
                self.save()
                saved = time.monotonic()
            if self.rank == 0 and time.monotonic() - looked > self.a.look_minutes * 60:
                self.look()
                looked = time.monotonic()
        self.save()
        if self.rank == 0:
            self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Export the averaged weights, and a sheet of what they make of fixed captions."""
        own = {n: p.detach().clone() for n, p in self.unet.named_parameters()}
        self.unet.load_state_dict(self.average)
        self.unet.save_pretrained(self.out / "unet")
        sheet(self.unet, self.text, self.tokenizer, self.code, self.scheduler, self.a.frames, self.out / "samples" / f"{self.step:06d}.png")
        self.unet.load_state_dict(own)


LOOKED_AT = (
    "A cat running on the street", "A green dog with stripes dancing on the beach", "A red bus is hiding behind a wall in the snow",
    "An elephant jumping in the forest", "A blue penguin standing still in the desert at night", "A yellow car running on the beach",
    "A turtle floating under water", "A giraffe standing still while the camera looks around in the forest",
)  # fmt: skip
MORE = (
    "A rabbit jumping in the snow", "A duck by the sea", "A purple fish floating under water", "A spotted butterfly in the forest",
    "A snail in the desert", "A red train running on the street at night", "A rocket in the desert at sunset", "A striped balloon by the sea",
)  # fmt: skip


def sheet(unet, text: CLIPTextModel, tokenizer: PreTrainedTokenizerFast, code, scheduler, frames: int, path: Path) -> None:  # type: ignore[no-untyped-def]
    captions = [*LOOKED_AT, *MORE, *LOOKED_AT, *MORE] if frames == 1 else list(LOOKED_AT)
    made = sample(unet, text, tokenizer, scheduler, captions, frames)
    save_sheet(code, made, path)


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("out")
    for name, kind, default in (
        ("text", str, None), ("code", str, None), ("init", str, None), ("frames", int, 16), ("batch", int, 16), ("picture_batch", int, 64),
        ("picture_every", int, 7), ("lr", float, 1e-3), ("seed", int, 0), ("fresh", float, 0.34), ("late", float, 1.0), ("changes", float, 0.5),
        ("ema", float, 0.998), ("steps", int, 10**9), ("save_minutes", float, 8), ("look_minutes", float, 10), ("agree_every", int, 8),
        ("predict", str, "sample"), ("muon", int, 0), ("compile", int, 1), ("still_init", int, 0),
    ):  # fmt: skip
        p.add_argument(f"--{name}", type=kind, default=default)
    p.add_argument("--channels", type=lambda s: tuple(map(int, s.split(","))), default=(64, 128, 192))
    torch.set_num_threads(1)
    Trainer(p.parse_args()).run()


if __name__ == "__main__":
    main()
