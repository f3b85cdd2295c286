"""What can be used, as data: the included model, the published ones, stage-1 bases and enhancers.

Figures of published models are from their cards, papers and key lists, and could not be checked against the files here; `verified` tells
which ones were. Nothing heavy is imported.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([^\s@]+))?")

Role = Literal["model", "base", "enhancer"]


@dataclass(frozen=True)
class Entry:
    """One model. parameters and download_bytes: None where no source gives them. licence: as its card says, where
    that could be read. file: what of the hub folder is needed.

    revision: the pinned commit of the hub folder; None where none is known for sure: then the latest is taken, and its commit is told.
    use: the option that takes it. convert: the kind of `convert` that makes a model folder of it. parts: other repositories that it is made
    of, by the setting of a base that names each; settings: the rest of those. half: the type for half precision, as its makers use it.
    verified: which of the figures were checked here, and how.
    """

    name: str
    role: Role
    about: str
    licence: str
    use: str
    hub_id: str | None = None
    revision: str | None = None
    file: str | None = None
    parameters: int | None = None
    download_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: int | None = None
    convert: str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    half: Literal["float16", "bfloat16"] = "float16"
    verified: str = "no: from the model's card"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        "tiny", "model", "the included model of a small drawn world, all three stages", "Apache-2.0", "--model tiny",
        width=64, height=64, frames=16, fps=8, verified="yes: it comes with the package",
    ),
    Entry(
        "streaming-t2v", "model", "StreamingT2V on ModelScope's network",
        "the card was not seen; made of ModelScope's weights, which are CC-BY-NC-4.0",
        "--model streaming-t2v", "PAIR/StreamingT2V", file="streaming_t2v.ckpt", convert="streaming-t2v",
        parameters=3_232_602_140, download_bytes=12_930_000_000, width=256, height=256, frames=16, fps=8,
        verified="parameters: counted from the published key list; size: those in float32",
    ),
    Entry(
        "streaming-svd", "model", "StreamingSVD, from an image, on Stable Video Diffusion's network",
        "the card was not seen; made of Stable Video Diffusion's weights, which are for non-commercial use",
        "--model streaming-svd --image IMAGE", "PAIR/StreamingSVD", file="model.safetensors", convert="streaming-svd",
        parameters=2_996_355_290, download_bytes=11_986_000_000, width=1024, height=576, frames=25, fps=12,
        verified="parameters of its networks: counted here; size: those in float32",
    ),
    Entry(
        "modelscope", "base", "ModelScope text-to-video 1.7b", "CC-BY-NC-4.0 by the card's head, CC-BY-NC-ND-4.0 by its text",
        "--base modelscope",
        "damo-vilab/text-to-video-ms-1.7b", parameters=1_411_233_860, width=256, height=256, frames=16, fps=8,
        verified="parameters of the network: counted here; licence: read on the card",
    ),
    Entry(
        "animatediff", "base", "AnimateDiff on Realistic Vision 5.1, as StreamingT2V's authors used it",
        "the cards were not seen; Stable Diffusion's is CreativeML OpenRAIL-M", "--base animatediff",
        "guoyww/animatediff-motion-adapter-v1-5-2", parameters=453_209_280, download_bytes=906_000_000,
        width=512, height=512, frames=16, fps=8,
        parts=(("pipeline", "SG161222/Realistic_Vision_V5.1_noVAE"), ("adapter", "guoyww/animatediff-motion-adapter-v1-5-2")),
        settings=(("steps", 25), ("height", 512), ("width", 512), ("resample", "nearest")),
        verified="parameters of the adapter: counted at diffusers' default sizes; size: those in float16, without Realistic Vision's",
    ),
    Entry(
        "svd", "base", "Stable Video Diffusion XT, from an image",
        "Stability AI's own for non-commercial use (stable-video-diffusion-nc-community)", "--base svd --image IMAGE",
        "stabilityai/stable-video-diffusion-img2vid-xt", parameters=1_524_623_082, width=1024, height=576, frames=25, fps=6,
        verified="parameters of the network: counted here; licence: read on the card",
    ),
    Entry(
        "svd-sdxl", "base", "Stable Video Diffusion XT on an image that SDXL makes of the prompt, as StreamingT2V's authors used it",
        "SVD: Stability AI's own for non-commercial use; SDXL: CreativeML OpenRAIL++-M by its authors' word, the card was not seen",
        "--base svd-sdxl", width=1024, height=576, frames=25, fps=6,
        parts=(("pipeline", "stabilityai/stable-video-diffusion-img2vid-xt"), ("picture", "stabilityai/stable-diffusion-xl-base-1.0")),
        settings=(("frames", 25), ("height", 576), ("width", 1024), ("fit", "pad"), ("resample", "nearest")),
    ),
    Entry(
        "wan-1.3b", "base", "Wan 2.1 text-to-video 1.3B", "Apache-2.0 by its authors' word, the card was not seen", "--base wan-1.3b",
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", width=832, height=480, frames=81, fps=16, half="bfloat16",
    ),
    Entry(
        "ltx-video", "base", "LTX-Video", "Lightricks' own (LTX-Video Open Weights), the card was not seen", "--base ltx-video",
        "Lightricks/LTX-Video", width=704, height=480, frames=161, fps=24, half="bfloat16",
    ),
    Entry(
        "cogvideox-2b", "base", "CogVideoX 2B", "Apache-2.0 by its authors' word, the card was not seen", "--base cogvideox-2b",
        "zai-org/CogVideoX-2b", width=720, height=480, frames=49, fps=8, half="float16",
    ),
    Entry(
        "vid2vid", "enhancer", "MS-Vid2Vid-XL: damo/Video-to-Video v1.1.0 of ModelScope's hub", "CC-BY-NC-ND-4.0",
        "--model streaming-t2v --preset full", "ali-vilab/MS-Vid2Vid-XL", convert="vid2vid",
        file="non_ema_0035000.pth", parameters=1_411_233_860, download_bytes=2_822_000_000, width=1280, height=720, fps=8,
        verified="parameters: counted from the published key list; size: those in float16; licence: read on the card",
    ),
    Entry(
        "i2vgen-xl", "enhancer", "I2VGen-XL, StreamingSVD's enhancer", "the card was not seen",
        "--model streaming-svd --preset full", "ali-vilab/i2vgen-xl",
        parameters=2_476_587_727, download_bytes=4_953_000_000, width=1280, height=720, frames=16, fps=16,
        verified="parameters of its networks: counted here; size: those in float16",
    ),
)  # fmt: skip


ENHANCERS = {"streaming-t2v": "vid2vid", "streaming-svd": "i2vgen-xl"}
"""Entry of the third stage for an entry's model."""

TOKENIZER_REPO = "damo-vilab/text-to-video-ms-1.7b"
"""Whose folder `tokenizer` StreamingT2V was made with; the checkpoint does not hold it."""


def find_entry(name: str) -> Entry | None:
    """The entry of a name or hub id."""
    return next((entry for entry in ENTRIES if name in (entry.name, entry.hub_id)), None)


def parse_id(text: str) -> tuple[str, str | None] | None:
    """("OWNER/REPOSITORY", revision or None) of "OWNER/REPOSITORY[@REVISION]"; None for another text, or where such a path is here."""
    match = _ID.fullmatch(text)
    return None if match is None or Path(text).exists() else (match[1], match[2])
