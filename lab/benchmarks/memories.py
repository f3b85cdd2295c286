"""Train CAM and its three rivals from scratch on the included base at equal budget, then compare them.

    python lab/benchmarks/memories.py runs/memories --jobs 2

All use the same clips, steps, batch and learning rate. `quality.py` then makes and measures the videos, with
this CAM in place of the included one, and writes lab/docs/memories.md. Stop it at any time; the same command
resumes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.compare.comparison import OURS, WITHOUT_ANCHOR
from lab.compare.rivals import NAMES
from lab.tiny.assemble import AssembleConfig, assemble
from streamingt2v.config import find_model

CAM = "cam"
NOUNS, MIXED_NOISE = 36, 0.5
"""Settings that the included base was trained with."""
SHARED = {
    "nouns": NOUNS, "mixed_noise": MIXED_NOISE, "late": 1.3, "changes": 1, "encoder_steps": 100,
    "lr": 1e-3, "warmup": 50, "decay": 0.5, "ema": 0.998, "seed": 12, "save_every": 150,
}  # fmt: skip
"""Settings of every recipe; `encoder_steps` count among the steps of memories with a frame encoder."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the trainings and of the finished items")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compared", type=int, default=7, help="prompts")
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes, of one thread each where there are several"
    )
    parser.add_argument("--page", type=Path, default=Path("lab/docs/memories.md"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda name: train(name, asked), (CAM, *NAMES)))
    base = find_model("tiny")
    model = asked.out / "model"
    assemble(
        AssembleConfig(text=base, vae=base, memory=asked.out / CAM, nouns=NOUNS, mixed_noise=MIXED_NOISE),
        model,
    )
    compare(model, asked)


def train(name: str, asked: argparse.Namespace) -> None:
    """Train to the last step, resuming earlier work."""
    base = str(find_model("tiny"))
    recipe = [CAM] if name == CAM else ["rival", "--set", f"kind={name}"]
    settings = {"base": base, "text": base, "vae": base, "steps": asked.steps, "batch": asked.batch, **SHARED}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "lab.tiny", *recipe, "-o", str(asked.out / name), *words]
    threads = {"OMP_NUM_THREADS": "1"} if asked.jobs > 1 else {}
    with open(asked.out / f"{name}.log", "a") as log:
        subprocess.run(command, check=True, env=os.environ | threads, stdout=log, stderr=log)


def compare(model: Path, asked: argparse.Namespace) -> None:
    """Make the videos of all memories and of none, and the page."""
    about = (
        f"CAM and three other short-term memories, each trained from scratch for {asked.steps} steps of "
        f"{asked.batch} clips on the included base by `lab/benchmarks/memories.py`: far less than the "
        f'included CAM had. "{OURS}" equals "{WITHOUT_ANCHOR}" here: APM was not trained.'
    )
    rivals = [str(asked.out / name) for name in NAMES]
    parts = [
        "--first",
        "0",
        "--compared",
        str(asked.compared),
        "--long",
        "0",
        "--full",
        "0",
        "--methods",
        OURS,
        WITHOUT_ANCHOR,
        "nothing",
    ]
    told = ["--page", str(asked.page), "--title", "Short-term memories at one budget", "--about", about]
    script = Path(__file__).with_name("quality.py")
    command = [
        sys.executable,
        script,
        asked.out / "compared",
        "--model",
        model,
        "--rivals",
        *rivals,
        *parts,
        *told,
        "--jobs",
        asked.jobs,
    ]
    subprocess.run([str(word) for word in command], check=True)


if __name__ == "__main__":
    main()
