"""Measure speed and memory of full-size models with random weights on a GPU.

    python -m lab.benchmarks.gpu [--device cuda] [--models streaming-t2v streaming-svd wan] [--out gpu.json]
    python -m lab.benchmarks.gpu --toy                 # the same at toy size on the CPU, to test the script

Writes each model at its published size with random weights (20 GB of disk), then measures every row in a
process of its own: seconds to the first chunk, seconds per further chunk, peak device memory. Rows that fail
or run out of memory say so and the rest goes on. Prints a Markdown table; --out keeps rows as JSON, and rows
already in it are not measured again. Random weights cost what trained ones do; their frames are noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
MODELS = ("streaming-t2v", "streaming-svd", "wan")
PROMPT = "A cat running on the street"


@dataclass(frozen=True)
class Row:
    """One measurement. procedure: "ours", or the "published" one re-enacted. steps: None for the model's."""

    model: str
    preset: str = "preview"
    dtype: str = "float16"
    offload: str = "none"
    engine: str = "torch"
    procedure: str = "ours"
    device: str = "cuda"
    steps: int | None = None
    toy: bool = False


def rows(models: list[str], device: str, steps: int | None, toy: bool) -> list[Row]:
    """List what is measured: the plain row of each model, and rows that differ from it in one option."""
    found: list[Row] = []
    for model in models:
        half = "bfloat16" if model == "wan" else "float16"
        plain = Row(model, dtype="float32" if toy else half, device=device, steps=steps, toy=toy)
        found.append(plain)
        found += [] if toy else [replace(plain, dtype="float32")]
        if device != "cpu":
            found += [replace(plain, offload=level) for level in ("model", "group")]
        if model != "wan":
            found.append(replace(plain, engine="compile"))
        if model == "streaming-t2v":
            found += [replace(plain, procedure="published"), replace(plain, preset="full")]
    return found


def prepare(model: str, folder: Path, device: str, toy: bool) -> str:
    """Write the model if it is not there; return its name or folder."""
    if toy and model == "streaming-t2v":
        return "tiny"
    target = folder / f"{model}{'-toy' if toy else ''}"
    if not target.exists():
        part = target.with_name(f"{target.name}.part")
        if toy:
            _write_toy(model, part)
        elif model == "wan":
            _write_wan(part, device)
        else:
            from lab.benchmarks.published import write_random

            write_random(model, part, full=True, device=device)
        part.rename(target)
    return str(target)


def _write_toy(model: str, folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))  # toy networks are the tests'
    import toy_bases
    import toy_pipelines
    from streamingt2v.external.as_model import pipeline_model

    if model == "streaming-svd":
        toy_pipelines.streaming_svd(folder)
        return
    config = pipeline_model(toy_bases.saved(model, folder))
    extend = replace(config.extend, frames=9, overlap=5, crossfade=0)
    target = str(folder.with_name(folder.name.removesuffix(".part")))
    by = replace(config.extend_by, pipeline=target)  # type: ignore[type-var]
    height, width = toy_bases.TOYS[model].size
    replace(config, height=height, width=width, extend=extend, extend_by=by).save(folder, Path(target))


def _write_wan(folder: Path, device: str) -> None:
    """Write Wan 2.1 text-to-video 1.3B with random weights."""
    import diffusers
    import torch
    from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

    from streamingt2v.config import EMBEDDED, find_model

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=256384, d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64,
                feed_forward_proj="gated-gelu",
            )
        )  # fmt: skip
        transformer = diffusers.WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, text_dim=4096
        )
        vae = diffusers.AutoencoderKLWan()
    torch.set_default_dtype(torch.float32)
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    tokenizer = AutoTokenizer.from_pretrained(find_model(EMBEDDED[0]) / "tokenizer", local_files_only=True)
    diffusers.WanPipeline(tokenizer, encoder, vae, scheduler, transformer).save_pretrained(folder)


def measure(row: Row, model: str, chunks: int = 3) -> dict[str, Any]:
    """Make a video of some chunks; return seconds and memory."""
    import torch
    from PIL import Image

    from lab.compare.published import PublishedSetting
    from streamingt2v.config import Request
    from streamingt2v.metrics import speed

    kind = speed.Setting if row.procedure == "ours" else PublishedSetting
    options: dict[str, Any] = {"offload": row.offload, "engine": row.engine, "steps": row.steps}
    began = time.perf_counter()
    pipe = kind(model, row.preset, row.device, row.dtype, **options).pipeline()  # type: ignore[arg-type]
    loaded = time.perf_counter() - began
    extend, on_gpu = pipe.config.extend, row.device.startswith("cuda")
    frames = extend.frames + (chunks - 1) * (extend.frames - extend.overlap)
    with TemporaryDirectory() as place:
        image = Path(place) / "start.png" if pipe.config.backbone == "svd" else None
        if image is not None:
            Image.new("RGB", (pipe.config.width, pipe.config.height), "orange").save(image)
        request = Request(
            PROMPT, frames, preset=row.preset, num_inference_steps=row.steps,
            image=None if image is None else str(image),
        )  # type: ignore[arg-type]  # fmt: skip
        times: list[list[float]] = []
        for _ in range(2):  # the first one warms up: kernels are chosen, or compiled
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(row.device)
            times.append([time.perf_counter()])
            for _chunk in pipe.stream(request):
                times[-1].append(time.perf_counter())
    warm, steady = times[0], times[1]
    pauses = [after - before for before, after in itertools.pairwise(steady[1:])]
    return {
        "load_seconds": loaded,
        "cold_first_chunk_seconds": warm[1] - warm[0],
        "first_chunk_seconds": steady[1] - steady[0],
        "chunk_seconds": statistics.median(pauses) if pauses else None,
        "frames": frames,
        "new_frames_per_chunk": extend.frames - extend.overlap,
        "peak_device_bytes": torch.cuda.max_memory_allocated(row.device) if on_gpu else None,
    }


def conditions(device: str) -> dict[str, str]:
    """Describe the machine that the numbers are from."""
    import diffusers
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU"
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return {"device": name, **versions, "date": time.strftime("%Y-%m-%d")}


def table(results: list[dict[str, Any]]) -> str:
    """Format results as a Markdown table."""
    lines = [
        "| model | preset | procedure | dtype | offload | engine | first chunk, s | further, s | peak, GB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        row = result["row"]
        named = [row[name] for name in ("model", "preset", "procedure", "dtype", "offload", "engine")]
        if "error" in result:
            lines.append(f"| {' | '.join(named)} | {result['error']} | | |")
            continue
        peak = result["peak_device_bytes"]
        numbers = [
            f"{result['first_chunk_seconds']:.3g}",
            "" if result["chunk_seconds"] is None else f"{result['chunk_seconds']:.3g}",
            "" if peak is None else f"{peak / 1e9:.3g}",
        ]
        lines.append(f"| {' | '.join([*named, *numbers])} |")
    return "\n".join(lines)


def run(row: Row, model: str, limit: float) -> dict[str, Any]:
    """Measure a row in a process of its own; return its numbers or its error."""
    words = [sys.executable, "-m", "lab.benchmarks.gpu", "--row", json.dumps(asdict(row)), "--folder", model]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"row": asdict(row), "error": f"stopped after {limit:.0f} s"}
    if done.returncode == 0:
        return {"row": asdict(row), **json.loads(done.stdout.splitlines()[-1])}
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    error = "out of memory" if "OutOfMemoryError" in done.stderr else last[:200].replace("|", "/")
    return {"row": asdict(row), "error": error}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--steps", type=int, help="denoising steps; default: each model's own")
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu"), help="for the models; kept")
    parser.add_argument("--out", type=Path, help="JSON lines; rows in it are not measured again")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds a row may take")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.row:
        print(json.dumps(measure(Row(**json.loads(asked.row)), str(asked.folder))))
        return
    device = "cpu" if asked.toy else asked.device
    steps = 1 if asked.toy and asked.steps is None else asked.steps
    kept = asked.out.read_text().splitlines() if asked.out and asked.out.exists() else []
    results: list[dict[str, Any]] = [json.loads(line) for line in kept]
    print(", ".join(f"{name} {value}" for name, value in conditions(device).items()), flush=True)
    for row in rows(asked.models, device, steps, asked.toy):
        if any(result["row"] == asdict(row) for result in results):
            continue
        results.append(run(row, prepare(row.model, asked.folder.absolute(), device, asked.toy), asked.limit))
        print(json.dumps(results[-1]), flush=True)
        if asked.out:
            with asked.out.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
