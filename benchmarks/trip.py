"""Speed and memory of the whole trip on this machine: `make bench`, or `python benchmarks/trip.py --frames 80 1200 --preset full`.

Every row is a fresh process of the command `streamingt2v generate`; the last line of output is the same table as JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = ("preset", "frames", "width", "height", "seconds", "first_frame_seconds", "new_frames_per_second", "peak_rss_mb")


def measure(frames: int, preset: str, model: str, device: str) -> dict:
    """The JSON of one run of the command, its video thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--frames", str(frames), "--preset", preset, "--model", model, "--device", device]
        command = [sys.executable, "-m", "streamingt2v", "generate", "A cat running on the street", *options, "--quiet", "--json"]
        done = subprocess.run([*command, "-o", str(Path(folder) / "out.mp4")], stdout=subprocess.PIPE, text=True, check=True)
    values = json.loads(done.stdout.splitlines()[-1])
    return {column: values[column] for column in COLUMNS}


def main() -> None:
    """Print the table, a row as soon as it is there, and then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[80, 240])
    parser.add_argument("--preset", nargs="+", default=["preview", "full"])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    print("".join(f"{column:>23}" for column in COLUMNS), flush=True)
    rows = []
    for preset in asked.preset:
        for frames in asked.frames:
            rows.append(measure(frames, preset, asked.model, asked.device))
            print("".join(f"{value!s:>23}" for value in rows[-1].values()), flush=True)
    print(json.dumps({"benchmark": "trip", "model": asked.model, "device": asked.device, "rows": rows}))


if __name__ == "__main__":
    main()
