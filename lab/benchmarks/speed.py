"""Measure speed on this machine, also against the published procedure: the numbers of docs/performance.md.

    python lab/benchmarks/speed.py [--repeats 5] [--model tiny] [--lengths 80 240 1200]

In order: fresh `generate` processes (start, peak memory by length); both presets in a warm process with
shares of each part; our preview in turn with the published procedure at equal weights and steps and with 50
DDIM steps; with OpenVINO, the published procedure and both presets by it and by torch. Medians of --repeats.
Run nothing else meanwhile. Prints rows as they come, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from lab.compare.published import PublishedSetting
from streamingt2v.config import ModelConfig, find_model
from streamingt2v.metrics import speed

FRAMES = 48
"""Frames of the videos in a warm process: a first chunk and four more of the included model."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--lengths", type=int, nargs="*", default=[16, 80, 240, 1200], help="frames of the fresh processes"
    )
    asked = parser.parse_args()
    own = speed.Setting(asked.model, device=asked.device, dtype=asked.dtype)
    conditions = speed.conditions(asked.device)
    print(", ".join(f"{name} {value}" for name, value in conditions.items()), flush=True)
    values: dict[str, Any] = {
        "benchmark": "speed",
        "conditions": conditions,
        "repeats": asked.repeats,
        "frames": FRAMES,
    }
    values["cold"] = [cold(own, count) for count in asked.lengths]
    values["warm"] = {
        preset: warm(replace(own, preset=preset), asked.repeats) for preset in presets(asked.model)
    }
    values["published"] = against(own, published(own), asked.repeats, "the published procedure")
    values["published_ddim"] = against(
        own, published(own, "published-ddim"), 1, "the published procedure in 50 steps of DDIM"
    )
    if asked.device == "cpu" and find_spec("openvino"):
        by_openvino = replace(own, engine="openvino")
        values["published_openvino"] = against(
            by_openvino, published(own), asked.repeats, "the published procedure, here by OpenVINO"
        )
        for preset in presets(asked.model):
            torch = replace(own, preset=preset)
            values[f"openvino_{preset}"] = against(
                replace(torch, engine="openvino"), torch, asked.repeats, f"torch, {preset}, by OpenVINO"
            )
    print(json.dumps(values))


def published(setting: speed.Setting, procedure: str = "published") -> PublishedSetting:
    """Return the same setting by the published procedure."""
    return PublishedSetting(**asdict(setting), procedure=procedure)


def presets(model: str) -> tuple[str, ...]:
    return ("preview", "full") if ModelConfig.load(find_model(model)).refine else ("preview",)


def cold(setting: speed.Setting, frames: int) -> dict[str, Any]:
    """Measure a fresh process."""
    row = asdict(speed.cold(setting, frames))
    seconds = f"first frame {row['first_frame_seconds']:.2f} s, all {row['seconds']:.1f} s"
    print(f"cold, {frames} frames: {seconds}, peak {row['peak_rss_mb']:.1f} MB", flush=True)
    return row


def warm(setting: speed.Setting, repeats: int) -> dict[str, Any]:
    """Return medians in this process."""
    row = speed.repeated(setting, FRAMES, repeats)
    shares = ", ".join(
        f"{name} {share:.0%}" for name, share in sorted(row.shares.items(), key=lambda item: -item[1])
    )
    told = (
        f"first frame {row.first_frame_seconds:.2f} s, then {row.sustained:.2f} new frames a second; {shares}"
    )
    print(f"warm, {setting.preset}: {told}", flush=True)
    return asdict(row)


def against(first: speed.Setting, second: speed.Setting, repeats: int, name: str) -> dict[str, Any]:
    """Measure both in turn."""
    both = speed.compare(first, second, FRAMES, repeats)
    apart = "" if both.difference is None else f"; largest difference of a pixel {both.difference:.1e}"
    told = f"{both.ratio:.2f} times as fast in all, {both.ratio_sustained:.2f} times after the first chunk"
    print(f"against {name} ({both.second.sustained:.2f} new frames a second): {told}{apart}", flush=True)
    return asdict(both)


if __name__ == "__main__":
    main()
