"""Cut the full recordings for the tests: `python tests/golden/cut.py RECORDINGS CHECKPOINT_KEYS.tsv`."""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save

HERE = Path(__file__).parent
Tensors = dict[str, torch.Tensor]
# Two-byte values: the literal coder keeps separate statistics for their halves.
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 1, "pb": 0}]


def g1(full: Tensors) -> Tensors:
    """The second batch element. CAM's deeper levels are left out: their features are recorded instead."""
    deep = tuple(
        f"weights.unet.{part}" for part in ("down_blocks.1", "down_blocks.2", "down_blocks.3", "mid_block")
    )
    kept = {name: x for name, x in full.items() if name.startswith("weights.") and not name.startswith(deep)}
    kept |= {
        f"inputs.{name}": full[f"inputs.{name}"][1:]
        for name in ("noisy_latents", "text_embeds", "image_tokens")
    }
    frames = full["inputs.controlnet_cond"]
    kept |= {"inputs.timestep": full["inputs.timestep"], "inputs.controlnet_cond": frames[len(frames) // 2 :]}
    shallow = {"outputs.cam_down_0", "outputs.cam_down_1", "outputs.cam_down_2"}
    kept |= {
        name: x for name, x in full.items() if name.startswith("outputs.cam_down") and name not in shallow
    }
    mid = full["outputs.cam_mid"]
    kept |= {"outputs.cam_mid": mid[len(mid) // 2 :], "outputs.eps": full["outputs.eps"][1:]}
    kept["outputs.eps_without_cam"] = full["outputs.eps_without_cam"][1:]
    return kept | {
        name: x for name, x in full.items() if name.startswith(("traces.merger_mid", "traces.merger_down_11"))
    }


def g2b(full: Tensors) -> Tensors:
    """Corners: an output pixel depends on its surroundings only."""
    inputs = {name: x[:, :, :40, :40] for name, x in full.items() if name.startswith("inputs.")}
    return inputs | {name: x[:, :, :14, :14] for name, x in full.items() if name.startswith("outputs.")}


def g3(full: Tensors) -> Tensors:
    """Guidance and solver act on each value alone, so a corner is enough; the networks are pinned by g1."""
    corner = {
        "initial_latents": full["inputs.initial_latents"],
        "noise": full["inputs.variance_noise_eta"][0],
        "eps_pair": full["outputs.eta0.eps_first_step_cfg_batch"],
        "eta0": full["outputs.eta0.latents_per_step"][0],
        "eta": full["outputs.eta.latents_per_step"][0],
    }
    return {name: x[..., :4, :4] for name, x in corner.items()} | {"timesteps": full["outputs.timesteps"]}


def g4(full: Tensors) -> Tensors:
    """Keep three steps: the first, the second (where multistep correction starts), and the last."""
    return {
        name: x[[0, 1, -1]] if name.endswith("_per_kept_step") else x
        for name, x in full.items()
        if name != "outputs.kept_steps"
    }


CUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "g1": g1,
    "g2": dict,
    "g2b": g2b,
    "g3": g3,
    "g4": g4,
    "g5": dict,
}


def main(recordings: Path, keys: Path) -> None:
    """Write every selection, the configurations, and the list of checkpoint keys."""
    configs = {}
    for name, cut in CUTS.items():
        folder = next(recordings.glob(f"{name}_*"))
        configs[name] = json.loads((folder / "config.json").read_text())
        full = {
            f"{path.stem}.{key}": x
            for path in sorted(folder.glob("*.safetensors"))
            for key, x in load_file(path).items()
        }
        kept = {key: x.contiguous() for key, x in cut(full).items()}
        (HERE / f"{name}.safetensors.xz").write_bytes(lzma.compress(save(kept), filters=XZ))
    (HERE / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")
    (HERE / "checkpoint_keys.tsv.gz").write_bytes(gzip.compress(keys.read_bytes(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
