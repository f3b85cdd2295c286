"""Start the base from the shipped model's teacher instead of from random weights.

    python -m lab.proof.warm OUT --code FILE

Only the latents differ (16 channels there, 64 here): least-squares maps between them, fitted to frames of the
world, are written into the first and last convolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from safetensors.torch import load_file
from torch import nn

from lab.world2 import clip
from streamingt2v.config import find_model

from .base import build_unet
from .code import load_code, to_pixels

TEACHER = Path(__file__).parents[1] / "tiny" / "weights" / "teacher" / "unet"
FRAMES = 600


@torch.no_grad()
def warm_unet(code_file: Path) -> UNet3DConditionModel:
    """Return the base with the teacher's weights behind new first and last convolutions."""
    unet = build_unet()
    stored = load_file(TEACHER / "diffusion_pytorch_model.safetensors")
    own = unet.state_dict()
    kept = {
        name: value.float()
        for name, value in stored.items()
        if name in own and value.shape == own[name].shape
    }
    unet.load_state_dict(kept, strict=False)
    to_old, to_new = latent_maps(code_file)
    change_ends(unet, stored, to_old, to_new)
    missing = [name for name in own if name not in kept and not name.startswith(("conv_in", "conv_out"))]
    print(f"{len(kept)} of {len(own)} tensors from the teacher; at random: {missing}")
    return unet


def change_ends(unet: nn.Module, stored: dict, to_old: torch.Tensor, to_new: torch.Tensor) -> None:
    """Put the maps, (64, 16) and (16, 64), in front of the first and behind the last convolution."""
    unet.conv_in.weight.copy_(torch.einsum("nc,ochw->onhw", to_old, stored["conv_in.weight"].float()))
    unet.conv_in.bias.copy_(stored["conv_in.bias"].float())
    unet.conv_out.weight.copy_(torch.einsum("cn,cihw->nihw", to_new, stored["conv_out.weight"].float()))
    unet.conv_out.bias.copy_(stored["conv_out.bias"].float() @ to_new)


def latent_maps(code_file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return least-squares maps of latents: new to old (64, 16), old to new (16, 64)."""
    code = load_code(code_file)
    vae = AutoencoderKL.from_pretrained(find_model("tiny") / "vae").float()
    frames = [
        clip.render(clip.sample((11, seed)), clip.frame_times(1, 0.31 * (seed % 23)))[0]
        for seed in range(FRAMES)
    ]
    pixels = to_pixels(np.concatenate(frames))
    old = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    new, old = (z.movedim(1, -1).flatten(0, 2) for z in (code.encode(pixels), old))
    print(f"spread of a number: old {float(old.std()):.2f}, new {float(new.std()):.2f}")
    new, old = new - new.mean(0), old - old.mean(0)
    return torch.linalg.lstsq(new, old).solution, torch.linalg.lstsq(old, new).solution


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=Path)
    p.add_argument("--code", type=Path, required=True)
    a = p.parse_args()
    torch.set_num_threads(1)
    warm_unet(a.code).save_pretrained(a.out / "unet")


if __name__ == "__main__":
    main()
