"""Chunks with independent noise and without crossfade: what remains of a seam then is the memory's doing.

The pipeline's noise belongs to frames, so neighbouring chunks share it in their overlap, and a crossfade
hides what is left; both hide differences between memories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from streamingt2v.checkpoints.load import Components
from streamingt2v.config import Request
from streamingt2v.stages.extend import ExtendStage
from streamingt2v.stages.protocols import Words
from streamingt2v.video.piece import to_uint8
from streamingt2v.video.reader import Frame

from .freenoise import check_text_alone


def apart(components: Components, request: Request) -> Iterator[Frame]:
    """Yield exactly `request.frames` frames, uint8 (H, W, 3), of chunks with independent noise.

    Every chunk has its own seed; networks and sampler stay as they are. RequestError for more than one prompt
    and a length.
    """
    total, config = check_text_alone(request), components.config
    extend = replace(config.extend, mixed_noise=0.0, crossfade=0)
    if request.num_inference_steps is not None:
        extend = replace(extend, steps=request.num_inference_steps)
    words = Words(components.text, request.negative_prompt, lambda _: request.prompt)

    def stage(number: int) -> ExtendStage:
        seed, size = 100_003 * request.seed + number, (config.height, config.width)
        return ExtendStage(components.backbone, components.scheduler, extend, seed, size)

    frames_TCHW = stage(0).first(words)
    memory, number, made = stage(0).memory(frames_TCHW), 0, 0
    while True:
        yield from to_uint8(frames_TCHW[: total - made])
        made, number = made + len(frames_TCHW), number + 1
        if made >= total:
            return
        frames_TCHW = stage(number).next(memory, words, made)
        memory = memory.advance(frames_TCHW)
