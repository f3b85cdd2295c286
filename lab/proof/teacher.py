"""Write the model that another was distilled from: its weights without the distilled change.

    python -m lab.proof.teacher OUT --model DIR --undo FILE

Distilling is a low-rank change, so what undoes it is small; `distill` writes it as `undo.safetensors`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from streamingt2v.checkpoints.load import load
from streamingt2v.config import find_model
from streamingt2v.models.lowrank import Tensors, changes, merge
from streamingt2v.train.objective import quick_sampler

from .export import teacher_config, write
from .sampling import make_scheduler

CHANGED = ("unet", "cam")


def undoing(learned: Tensors, before: nn.Module) -> Tensors:
    """Return the changes that lead back from a network with those `learned` to the network `before`."""
    own = dict(before.named_parameters())
    back = {}
    for name, value in learned.items():
        if name.endswith((".up", ".down")):
            back[name] = -value if name.endswith(".up") else value
        else:
            back[name] = own[name]
    return back


def save_undo(path: Path, students: nn.Module, teachers: object) -> None:
    """Write what undoes a student's change of `unet` and `cam`, in float16."""
    found = {
        f"{part}.{name}": value.detach().half().contiguous()
        for part in CHANGED
        for name, value in undoing(changes(getattr(students, part)), getattr(teachers, part)).items()
    }
    save_file(found, path)


def write_teacher(out: Path, model: str | Path, undo: Path) -> None:
    """Write the teacher of a distilled model folder into `out`."""
    folder, tensors = find_model(model), load_file(undo)
    student = load(folder)
    for part in CHANGED:
        own = {
            name.removeprefix(f"{part}."): value.float()
            for name, value in tensors.items()
            if name.startswith(f"{part}.")
        }
        merge(getattr(student.backbone, part), own)
    write(replace(student, config=teacher_config(), scheduler=quick_sampler(make_scheduler())), out, folder)


def main(words: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    p.add_argument("out", type=Path)
    p.add_argument("--model", required=True, help="distilled model folder")
    p.add_argument("--undo", type=Path, required=True, help="file that `distill` wrote beside it")
    a = p.parse_args(words)
    write_teacher(a.out, a.model, a.undo)


if __name__ == "__main__":
    main()
