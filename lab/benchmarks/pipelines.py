"""Measure memory and state of long streams by toys of diffusers' pipelines, one class for each way to
continue.

python lab/benchmarks/pipelines.py [--frames 1200] [--names wan ltx ...]

Weights are random and small: what is measured is what the stream keeps, not the networks. Prints a line for
each class with the resident memory after a quarter and at the end, and the bytes of the state after the first
and the last chunk; then one JSON line. Exits with 1 if memory grew by more than 5 % or the state by more than
64 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from PIL import Image

import toy_bases
from streamingt2v import LongVideoPipeline
from streamingt2v.runs.state import pack_state

NAMES = ("ltx", "wan_vace", "helios", "skyreels_df", "anyflow", "wan_image", "wan")


def resident() -> int:
    """Return this process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(name: str, frames: int, folder: Path) -> dict[str, object]:
    """Stream one toy."""
    toy = toy_bases.TOYS[name]
    toy_bases.model_folder(name, folder / name)
    pipe = LongVideoPipeline.from_pretrained(folder / name)
    image = Image.new("RGB", (32, 32), (90, 120, 40)) if toy.image else None
    sizes, memory, made = [], [], 0
    for chunk in pipe.stream("A cat running", num_frames=frames, image=image):
        made += len(chunk.frames)
        sizes.append(len(pack_state(chunk.state)))
        memory.append((made, resident()))
    early = next(size for count, size in memory if count >= frames // 4)
    return {
        "name": name, "frames": made, "rss_early": early, "rss_end": memory[-1][1], "state_first": sizes[0],
        "state_last": sizes[-1],
    }  # fmt: skip


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--names", nargs="+", default=NAMES, choices=sorted(toy_bases.TOYS))
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names:
            rows.append(measure(name, asked.frames, Path(folder)))
            row = rows[-1]
            print(
                f"{name:12} {row['frames']} frames, "
                f"{row['rss_early'] / 1e6:.0f} to {row['rss_end'] / 1e6:.0f} MB, "
                f"state {row['state_first']} to {row['state_last']} bytes",
                flush=True,
            )
    print(json.dumps({"benchmark": "pipelines", "frames": asked.frames, "rows": rows}))
    flat = all(
        row["rss_end"] <= 1.05 * row["rss_early"] and row["state_last"] <= row["state_first"] + 64
        for row in rows
    )
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
