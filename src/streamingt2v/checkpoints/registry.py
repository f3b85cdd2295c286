"""What can be used, as data: the included model, the published ones, stage-1 bases and enhancers.

Figures of published models are from their cards, papers and key lists, and could not be checked against the files here; `verified` tells
which ones were. Nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Role = Literal["model", "base", "enhancer"]


@dataclass(frozen=True)
class Entry:
    """One model. parameters and download_bytes: None where no source gives them. licence: as its card says, where
    that could be read. file: what of the hub folder is needed.

    revision: the pinned commit of the hub folder; None where none is known for sure: then the latest is taken, and its commit is told.
    use: the command or option that takes it. verified: which of the figures were checked here, and how.
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
        "convert streaming-t2v", "PAIR/StreamingT2V", file="streaming_t2v.ckpt",
        parameters=3_232_602_140, download_bytes=12_930_000_000, width=256, height=256, frames=16, fps=8,
        verified="parameters: counted from the published key list; size: those in float32",
    ),
    Entry(
        "streaming-svd", "model", "StreamingSVD, from a picture, on Stable Video Diffusion's network",
        "the card was not seen; made of Stable Video Diffusion's weights, which are for non-commercial use",
        "convert streaming-svd", "PAIR/StreamingSVD", file="model.safetensors",
        parameters=2_996_355_290, width=1024, height=576, frames=25, verified="parameters of its networks: counted here",
    ),
    Entry(
        "modelscope", "base", "ModelScope text-to-video 1.7b", "CC-BY-NC-4.0 by the card's head, CC-BY-NC-ND-4.0 by its text", "stage 1",
        "damo-vilab/text-to-video-ms-1.7b", parameters=1_411_233_860, width=256, height=256, frames=16, fps=8,
        verified="parameters of the network: counted here; licence: read on the card",
    ),
    Entry(
        "animatediff", "base", "AnimateDiff: a motion adapter for Stable Diffusion 1.5 models",
        "the card was not seen", "stage 1", "guoyww/animatediff-motion-adapter-v1-5-2",
        parameters=453_209_280, download_bytes=906_000_000, width=512, height=512, frames=16, fps=8,
        verified="parameters of the adapter: counted at diffusers' default sizes; size: those in float16",
    ),
    Entry(
        "svd", "base", "Stable Video Diffusion XT, from a picture",
        "Stability AI's own for non-commercial use (stable-video-diffusion-nc-community)", "stage 1",
        "stabilityai/stable-video-diffusion-img2vid-xt", parameters=1_524_623_082, width=1024, height=576, frames=25, fps=6,
        verified="parameters of the network: counted here; licence: read on the card",
    ),
    Entry(
        "vid2vid", "enhancer", "MS-Vid2Vid-XL: damo/Video-to-Video v1.1.0 of ModelScope's hub", "CC-BY-NC-ND-4.0", "convert vid2vid",
        file="non_ema_0035000.pth", parameters=1_411_233_860, download_bytes=2_822_000_000, width=1280, height=720, fps=8,
        verified="parameters: counted from the published key list; size: those in float16; licence: read on the card",
    ),
    Entry(
        "i2vgen-xl", "enhancer", "I2VGen-XL, StreamingSVD's enhancer", "the card was not seen", "stage 3", "ali-vilab/i2vgen-xl",
        parameters=2_476_587_727, download_bytes=4_953_000_000, width=1280, height=720, frames=16, fps=16,
        verified="parameters of its networks: counted here; size: those in float16",
    ),
)  # fmt: skip


def find_entry(name: str) -> Entry | None:
    """The entry of a name or hub id."""
    return next((entry for entry in ENTRIES if name in (entry.name, entry.hub_id)), None)
