"""Result of `resolve`: everything that will be made, decided."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .config import ExtendConfig, ModelConfig, RefineByConfig, RefineConfig, Request, SeedConfig
from .config.external import ExtendByConfig
from .video.rates import Rate

Start = Literal["chunk", "image", "video", "file"]


@dataclass(frozen=True)
class ChunkGrid:
    """Starts of the chunks of stages 1 and 2: 0, `second`, and then every `new` frames.

    given: 1 if frame 0 is an image that no chunk makes, else 0.
    """

    second: int
    new: int
    given: int = 0

    def start(self, frame: int) -> int:
        """Return the first frame of the chunk that makes `frame`; 0 for an image that is frame 0."""
        return self.second + (frame - self.second) // self.new * self.new if frame >= self.second else 0

    def latest(self, frame: int, count: int) -> list[int]:
        """Return the first frames of the chunk that makes `frame` and of those before it, `count` at most."""
        starts = [self.start(frame)]
        while len(starts) < count and starts[-1] > 0:
            starts.append(self.start(starts[-1] - 1))
        return starts

    def following(self, frame: int) -> int:
        """Return the first frame of the first chunk that starts at `frame` or later."""
        if frame <= 0 and not self.given:
            return 0
        return self.second - (min(0, self.second - frame) // self.new) * self.new

    def count(self, frames: int) -> int:
        """Return the number of chunks of a video."""
        first = int(self.second > self.given)
        return first + max(0, -(-(frames - self.second) // self.new))


@dataclass(frozen=True)
class ResolvedRequest:
    """What will be made and how. `resolve` alone makes it.

    request: as asked, checked. config: the model's. start: stage 1 makes the first "chunk"; the "image" is
    frame 0; the "video" is extended; or the frames of a "file" are refined. num_frames: of the output, None
    without end. made_frames: of stages 1 to 3; interpolation makes `factor` times as many. height, width: of
    stages 1 and 2. output_height, output_width: of the output. fps: of the output, None for that of a video
    that has not been read yet (see `with_media`). extend: stages 1 and 2. first_chunk: pipeline that makes
    the first chunk, None for the model's own network. image_maker: folder of the pipeline that makes the
    image to start from. refine, refine_by: stage 3, by the model's own network or by a pipeline.
    by_keyframes: that pipeline refines from keyframes. grid: starts of chunks, in made frames. extend_by:
    pipeline that makes all chunks, None for the model's own network.
    """

    request: Request
    config: ModelConfig
    start: Start
    num_frames: int | None
    made_frames: int | None
    factor: int
    height: int
    width: int
    output_height: int
    output_width: int
    fps: Rate | None
    extend: ExtendConfig
    first_chunk: SeedConfig | None
    image_maker: str | None
    refine: RefineConfig | None
    refine_by: RefineByConfig | None
    by_keyframes: bool
    grid: ChunkGrid
    extend_by: ExtendByConfig | None = None

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        return self.output_height, self.output_width

    @property
    def unneeded(self) -> frozenset[str]:
        """Folders of the model's networks that are not used."""
        return frozenset() if self.refine is not None else frozenset({"refiner", "refiner_vae"})

    @property
    def uses_pipelines(self) -> bool:
        """Return whether diffusers pipelines make any frames."""
        first = self.first_chunk if self.start == "chunk" else None
        return bool(
            (first is not None and first.pipeline) or self.image_maker or self.refine_by or self.extend_by
        )

    @property
    def pipeline_folders(self) -> list[Path]:
        """Folders of further pipelines and settings that the video depends on."""
        first = self.first_chunk
        folders = [self.image_maker]
        if self.start == "chunk" and first is not None:
            folders = [self.request.base, first.pipeline, first.adapter, first.picture]
        if self.extend_by is not None and self.start != "file":
            folders.append(self.extend_by.pipeline)
        if self.refine_by is not None:
            folders.append(self.refine_by.pipeline)
        return [Path(folder) for folder in dict.fromkeys(folders) if folder is not None]

    def prompt_at(self, frame: int) -> str:
        """Return the request's prompt for the chunk that makes a frame, counted in made frames."""
        return self.request.prompt_at(self.factor * self.grid.start(frame))
