"""Fill a local hub with repositories in the published layouts, with networks at toy size."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from safetensors.torch import save as save_bytes

import published
import toy_pipelines
from hub_server import Hub
from lab.tiny import text

MODELSCOPE = "damo-vilab/text-to-video-ms-1.7b"


def put_streaming_t2v(hub: Hub, folder: Path, depth: int = published.LEVELS) -> None:
    """Put the checkpoint and the repository of its tokenizer. depth: of the autoencoder."""
    networks = published.streaming_t2v(depth)
    checkpoint = pickled({"state_dict": published.streaming_t2v_names(networks)})
    hub.put("PAIR/StreamingT2V", {"streaming_t2v.ckpt": checkpoint, "README.md": b"x"})
    text.build_tokenizer().save_pretrained(folder / "tokenizer")
    files = {f"tokenizer/{path.name}": path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    hub.put(MODELSCOPE, files | {"unet/diffusion_pytorch_model.bin": bytes(20_000)}, licence="cc-by-nc-4.0")


def put_vid2vid(hub: Hub) -> None:
    weights = pickled(published.vid2vid_names(published.vid2vid()))
    hub.put("ali-vilab/MS-Vid2Vid-XL", {"non_ema_0035000.pth": weights}, licence="cc-by-nc-nd-4.0")


def put_streaming_svd(hub: Hub, depth: int = published.LEVELS) -> None:
    parts = {part: network.state_dict() for part, network in published.streaming_svd(depth).items()}
    names = {name: x.contiguous().clone() for name, x in published.streaming_svd_names(parts).items()}
    hub.put("PAIR/StreamingSVD", {"model.safetensors": save_bytes(names), "teaser.mp4": bytes(50_000)})


def put_pipeline(hub: Hub, hub_id: str, kind: str, folder: Path, **extra: bytes) -> None:
    """Put a pipeline of `toy_pipelines`, with surplus files beside it."""
    where = getattr(toy_pipelines, kind)(folder / kind)
    files: dict[str, bytes | Path] = {
        path.relative_to(where).as_posix(): path.read_bytes() for path in where.rglob("*") if path.is_file()
    }
    first = next(name for name in files if name.endswith(".safetensors"))
    surplus = {
        first.replace(".safetensors", ".ckpt"): bytes(30_000),
        "whole.safetensors": bytes(40_000),
        "README.md": b"card",
    }
    hub.put(hub_id, {**files, **surplus, **extra})


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
