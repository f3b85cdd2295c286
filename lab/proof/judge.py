"""Train a judge of clips: noun, colour, pattern, scene, time of day, motion, and visible share of the
subject.

    python -m lab.proof.judge OUT [--minutes 20]

It trains on randomly degraded true clips and never sees generated ones.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from lab.world2 import clip, vocabulary

from .code import to_pixels
from .pool import start_of
from .run import Run, RunConfig

NAMES: dict[str, tuple[str, ...]] = {
    "noun": tuple(n.name for n in vocabulary.NOUNS),
    "colour": vocabulary.COLOUR_NAMES,
    "pattern": tuple(vocabulary.PATTERN_WORDS),
    "scene": tuple(s.name for s in vocabulary.SCENES),
    "time": tuple(t.name for t in vocabulary.TIMES_OF_DAY),
    "motion": tuple(m.name for m in vocabulary.MOTIONS),
}
OF_THE_THING = ("noun", "colour", "pattern")  # only frames that show the subject tell these
CHANCE = {name: 1 / len(classes) for name, classes in NAMES.items()}
FRAMES = 16
IN_SIGHT = 0.03  # share of the image that the subject must cover


@dataclass(frozen=True)
class Verdict:
    """A clip's classes, and (T,) the share of each frame that the subject covers."""

    names: dict[str, str]
    cover_T: np.ndarray


class Judge(ModelMixin, ConfigMixin):
    """Convolutions on each frame; motion is read from changes between frames, the rest from single frames."""

    @register_to_config
    def __init__(self, width: int = 32):
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        last = widths[-1]
        self.heads = nn.ModuleDict(
            {name: nn.Linear(last, len(classes)) for name, classes in NAMES.items() if name != "motion"}
        )
        self.cover = nn.Linear(last, 1)
        self.place = nn.Linear(last * 16, last)
        self.change = nn.Sequential(
            nn.Conv1d(last, last, 5, padding=2),
            nn.SiLU(),
            nn.Conv1d(last, last, 5, padding=2),
            nn.SiLU(),
            nn.AdaptiveMaxPool1d(1),
            nn.Flatten(),
            nn.Linear(last, len(NAMES["motion"])),
        )

    def forward(self, frames_BTCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits per frame (B, T, classes), "cover" (B, T), and per clip "motion" (B, classes)."""
        b, t = frames_BTCHW.shape[:2]
        seen = self.features(frames_BTCHW.flatten(0, 1))
        # the mean shows the scene, the maximum the subject
        pooled = (seen.mean((2, 3)) + seen.amax((2, 3))).unflatten(0, (b, t))
        out = {name: head(pooled) for name, head in self.heads.items()}
        out["cover"] = torch.sigmoid(self.cover(pooled)[..., 0])
        placed = self.place(F.adaptive_avg_pool2d(seen, 4).flatten(1)).unflatten(0, (b, t)).transpose(1, 2)
        return out | {"motion": self.change(placed)}

    @torch.no_grad()
    def judge(self, frames_THWC: np.ndarray) -> Verdict:
        """Judge one clip, uint8 (T, H, W, 3) of any size; frames that show the subject best decide its
        classes.
        """
        frames = to_pixels(np.ascontiguousarray(frames_THWC))
        if frames.shape[-1] != 64:
            frames = F.interpolate(frames, (64, 64), mode="bilinear", antialias=True)
        out = self(frames[None])
        cover = out["cover"][0]
        shown = (cover >= 0.7 * cover.max()).float()[:, None]
        names = {}
        for name, classes in NAMES.items():
            logits = out[name][0].log_softmax(-1)
            if name != "motion":
                logits = (logits * shown).sum(0) if name in OF_THE_THING else logits.sum(0)
            names[name] = classes[int(logits.argmax())]
        return Verdict(names, cover.numpy())


def load_judge(folder: Path) -> Judge:
    return Judge.from_pretrained(folder / "judge").float().eval()


def looks_kept(judge: Judge, frames_THWC: np.ndarray, least: int = 9) -> bool | None:
    """Return whether colour and pattern survive the first long hiding; None if nothing hid and returned.

    Only frames that clearly show the subject are judged. Chance: 1 in 24.
    """
    covers = np.concatenate(
        [judge.judge(frames_THWC[i : i + FRAMES]).cover_T for i in range(0, len(frames_THWC), FRAMES)]
    )
    hidden = covers < IN_SIGHT
    runs = np.flatnonzero(np.convolve(hidden, np.ones(least), "valid") == least)
    if not len(runs):
        return None
    first = int(runs[0])
    end = first + int(np.argmin(np.append(hidden[first:], False)))
    before, after = frames_THWC[:first][~hidden[:first]], frames_THWC[end:][~hidden[end:]][:FRAMES]
    if len(before) < 3 or len(after) < 3:
        return None
    asked = [judge.judge(part).names for part in (before[:FRAMES], after)]
    return all(asked[0][name] == asked[1][name] for name in ("colour", "pattern"))


def _batch(
    rng: np.random.Generator, clips: int, frames: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    pixels, covers, specs = [], [], []
    for _ in range(clips):
        spec = clip.sample(int(rng.integers(2**62)))
        start = start_of(spec, rng)
        times = clip.frame_times(frames, start) if frames == FRAMES else start + rng.uniform(0, 4, frames)
        drawn, mask = clip.render(spec, times)
        pixels.append(to_pixels(drawn))
        covers.append(torch.from_numpy(mask.mean((1, 2))))
        specs.append(spec)
    labels = {
        name: torch.tensor([classes.index(getattr(s, name)) for s in specs])
        for name, classes in NAMES.items()
    }
    return torch.stack(pixels), torch.stack(covers), labels


def worse(pixels_BTCHW: torch.Tensor) -> torch.Tensor:
    """Add blur, noise and colour flicker of random strength per clip."""
    b, t = pixels_BTCHW.shape[:2]
    flat = pixels_BTCHW.flatten(0, 1)
    soft = F.interpolate(F.avg_pool2d(flat, 2), scale_factor=2, mode="bilinear").view_as(pixels_BTCHW)
    share, amount, unsteady = (torch.rand(b, 1, 1, 1, 1) for _ in range(3))
    flicker = F.interpolate(torch.randn(b * t, 3, 8, 8), scale_factor=8, mode="nearest").view_as(pixels_BTCHW)
    return (
        pixels_BTCHW
        + share * (soft - pixels_BTCHW)
        + 0.15 * amount * torch.randn_like(pixels_BTCHW)
        + 0.15 * unsteady * flicker
    )


def loss_of(
    out: dict[str, torch.Tensor], covers: torch.Tensor, labels: dict[str, torch.Tensor], moving: bool
) -> torch.Tensor:
    total = ((out["cover"] - covers) ** 2).mean() * 20
    for name in NAMES:
        if name == "motion":
            total = total + moving * F.cross_entropy(out[name], labels[name])
            continue
        each = F.cross_entropy(
            out[name].flatten(0, 1), labels[name].repeat_interleave(covers.shape[1]), reduction="none"
        )
        asked = (covers > IN_SIGHT).flatten().float() if name in OF_THE_THING else torch.ones_like(each)
        total = total + (each * asked).sum() / asked.sum().clamp(min=1)
    return total


def train(out: Path, minutes: float, steps: int = 10**9) -> None:
    """Train for `minutes` or `steps`, resuming earlier work."""
    torch.manual_seed(0)
    judge = Judge()
    config = RunConfig(out, 1.5e-3, steps, minutes, warmup=50, decay=0.5, look_minutes=3, seed=12, muon=False)
    run = Run(config, judge)

    def loss() -> torch.Tensor:
        moving = run.step % 3 == 0
        pixels, covers, labels = _batch(run.rng, 8 if moving else 24, FRAMES if moving else 3)
        return loss_of(judge(worse(pixels)), covers, labels, moving)

    run.go(loss, lambda: judge.save_pretrained(out / "judge"))


@torch.no_grad()
def check(judge: Judge, clips: int = 96) -> dict[str, float]:
    """Return the judge's accuracy on unseen true clips."""
    specs = [clip.sample((77, i)) for i in range(clips)]
    hits: dict[str, list[bool]] = {name: [] for name in NAMES}
    for i, spec in enumerate(specs):
        start = start_of(spec, np.random.default_rng([77, i]))
        verdict = judge.judge(clip.render(spec, clip.frame_times(FRAMES, start))[0])
        for name in NAMES:
            hits[name].append(verdict.names[name] == getattr(spec, name))
    return {name: round(float(np.mean(row)), 3) for name, row in hits.items()}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--check", type=int, default=96, help="images or clips to test on")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    train(asked.out, asked.minutes, asked.steps)
    print(check(load_judge(asked.out), asked.check))


if __name__ == "__main__":
    main()
