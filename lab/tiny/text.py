"""Recipe `text`: CLIP's text and vision towers, trained contrastively on the world, and the tokenizer.

Captions and images of a clip attract each other as in CLIP (Radford et al. 2021). Two training-only helpers
keep what contrast would drop: text must separate noun, scene and motion (a still image shows no motion), and
the image embedding must tell colour cast and size (for APM).

The text's projection into the common space is unused in generation; it is a separate file for `evaluate`.
`only_projection` trains it alone on frozen towers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_gather
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

from streamingt2v.errors import ModelError, RequestError
from streamingt2v.metrics.eyes import load_text_projection, save_text_projection
from streamingt2v.models.apm import CLIP_MEAN, CLIP_STD
from streamingt2v.train.task import Batch

from ..world import vocabulary
from . import data

TEXT_LENGTH = 24


def gathered(own_B: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows of all processes in order (equal counts); differentiable."""
    if not (dist.is_available() and dist.is_initialized()):
        return own_B
    if own_B.requires_grad:
        return torch.cat(all_gather(own_B.contiguous()))
    rows = [torch.empty_like(own_B) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own_B.contiguous())
    return torch.cat(rows)


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the towers. init: folder of towers to start from, which sets their sizes. only_projection:
    see above; needs `init`.
    """

    init: Path | None = None
    only_projection: bool = False
    width: int = 128
    text_layers: int = 3
    vision_layers: int = 4
    heads: int = 4
    image_size: int = 64
    patch: int = 8

    def __post_init__(self) -> None:
        if self.only_projection and self.init is None:
            raise RequestError(
                "only_projection", True, "a projection is trained on towers; name their folder by init"
            )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token per word of training captions, lower-cased, padded to TEXT_LENGTH."""
    specials = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocab = {word: i for i, word in enumerate([*specials, *vocabulary.words()])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^a-z, ]"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", vocab["<bos>"]), ("<eos>", vocab["<eos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=TEXT_LENGTH,
    )


def build_clip(config: TextConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """Build a stock CLIPModel of the recipe's size."""
    shared = {
        "projection_dim": config.width,
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_attention_heads": config.heads,
    }
    text = CLIPTextConfig(
        **shared, vocab_size=len(tokenizer), num_hidden_layers=config.text_layers,
        max_position_embeddings=TEXT_LENGTH,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        **shared,
        num_hidden_layers=config.vision_layers,
        image_size=config.image_size,
        patch_size=config.patch,
    )
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=config.width)
    )


def load_clip(folder: Path) -> CLIPModel:
    """Load a folder's towers as one float32 model; the text's projection is new if missing."""
    _, text = load_text(folder)
    vision = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").float()
    config = CLIPConfig(
        text_config=text.config.to_dict(),
        vision_config=vision.config.to_dict(),
        projection_dim=vision.config.projection_dim,
    )
    model = CLIPModel(config).float()  # shipped configurations name half precision
    own = vision.state_dict() | {f"text_model.{name}": value for name, value in text.state_dict().items()}
    projection = load_text_projection(folder)
    if projection is not None:
        own["text_projection.weight"] = projection
    unexpected = model.load_state_dict(own, strict=False).unexpected_keys
    if unexpected:
        raise ModelError(f"{folder}: CLIP has no {unexpected[0]}, {len(unexpected)} such weights in all")
    return model


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> torch.Tensor:
    """Return token ids (N, TEXT_LENGTH)."""
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids


def load_text(folder: Path) -> tuple[PreTrainedTokenizerFast, CLIPTextModel]:
    """Load tokenizer and text tower, in float32, from the text recipe's folder or a model folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"), CLIPTextModel.from_pretrained(
        folder / "text_encoder"
    ).float()


class ContrastiveModule(nn.Module):
    """CLIP and its training-only helpers in one forward; with `only_projection` frozen CLIP but for that."""

    def __init__(self, clip_model: CLIPModel, only_projection: bool = False):
        super().__init__()
        self.clip, self.only_projection = clip_model, only_projection
        if only_projection:
            clip_model.requires_grad_(False)
            clip_model.text_projection.requires_grad_(True)
            clip_model.logit_scale.requires_grad_(True)
            return
        width = clip_model.config.projection_dim
        self.labels = nn.ModuleList(
            nn.Linear(width, len(g)) for g in (vocabulary.NOUNS, vocabulary.SCENES, vocabulary.MOTIONS)
        )
        self.direction = nn.Linear(width, 3)
        self.appearance = nn.Linear(width, 7)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        out, labels = (
            self.clip(input_ids=batch["ids"], pixel_values=batch["pixels"], return_dict=True),
            batch["labels"],
        )
        # clips that share noun and scene are equally right: a still image shows no more
        same = (labels[:, None, :2] == gathered(labels)[None, :, :2]).all(-1).float()
        target, scale = same / same.sum(1, keepdim=True), self.clip.logit_scale.exp()
        # compare each sample with those of all processes
        texts = (scale * out.image_embeds @ gathered(out.text_embeds).T).float()
        images = (scale * out.text_embeds @ gathered(out.image_embeds).T).float()
        contrast = -0.5 * ((target * texts.log_softmax(1)).sum(1) + (target * images.log_softmax(1)).sum(1))
        hit = (target.gather(1, texts.argmax(1, keepdim=True)) > 0).float()[:, 0]
        if self.only_projection:
            return {"loss": contrast, "hit": hit}
        text, look = self._helpers(out, batch)
        return {
            "loss": contrast + text + look,
            "contrast": contrast,
            "text": text,
            "appearance": look,
            "hit": hit,
        }

    def _helpers(self, out: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the helpers' losses, (B,) each: text against labels, image embedding against looks."""
        heads, labels = [*self.labels, self.direction], batch["labels"]
        told = [
            F.cross_entropy(head(out.text_embeds).float() * 10, labels[:, i], reduction="none")
            for i, head in enumerate(heads)
        ]
        raw = self.clip.visual_projection(out.vision_model_output.pooler_output)
        return torch.stack(told).sum(0), ((self.appearance(raw).float() - batch["appearance"]) ** 2).mean(1)


class TextTask:
    """See `loop.Task`."""

    def __init__(self, config: TextConfig):
        if config.init is None:
            self.tokenizer = build_tokenizer()
            self.clip = build_clip(config, self.tokenizer)
        else:
            self.tokenizer, self.clip = load_text(config.init)[0], load_clip(config.init)
        self.module = ContrastiveModule(self.clip, config.only_projection)
        self.size = self.clip.config.vision_config.image_size
        self._names = [[x.name for x in g] for g in (vocabulary.NOUNS, vocabulary.SCENES, vocabulary.MOTIONS)]

    def batch_size(self, step: int, batch: int) -> int:
        return batch

    def batch(self, rngs: Sequence[np.random.Generator], step: int) -> Batch:
        pixels, _, specs = data.draw(rngs, 1, data.noun_names(len(vocabulary.NOUNS)), self.size)
        labels = [
            [names.index(v) for names, v in zip(self._names, (s.noun, s.scene, s.motion), strict=True)]
            for s in specs
        ]
        looks = [
            [
                *(10 * (c - 0.98) for c in s.cast),
                *(10 * (c - 0.975) for c in s.sprite_cast),
                20 * (s.size - 0.64),
            ]
            for s in specs
        ]
        return {
            "pixels": clip_normalise(pixels[:, 0]),
            "ids": tokenize(self.tokenizer, [s.caption for s in specs]),
            "labels": torch.tensor(
                [[*row, 1 + s.told_direction] for row, s in zip(labels, specs, strict=True)]
            ),
            "appearance": torch.tensor(looks, dtype=torch.float32),
        }

    def export(self, folder: Path) -> None:
        export_towers(self.clip, self.tokenizer, folder)

    def sample(self, folder: Path, step: int) -> None:
        """Do nothing: the metrics suffice."""


def export_towers(clip_model: CLIPModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save each tower as its own model (text_encoder, image_encoder, tokenizer), and the text's
    projection.
    """
    clip_model.text_model.save_pretrained(folder / "text_encoder")
    vision = CLIPVisionModelWithProjection(clip_model.config.vision_config)
    vision.load_state_dict(
        {name: value for name, value in clip_model.state_dict().items() if name in vision.state_dict()}
    )
    vision.save_pretrained(folder / "image_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    save_text_projection(folder, clip_model.text_projection.weight)


def clip_normalise(pixels_NCHW: torch.Tensor) -> torch.Tensor:
    """Normalise pixels in [-1, 1] with CLIP's mean and deviation."""
    mean_C11, std_C11 = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((pixels_NCHW + 1) / 2 - mean_C11) / std_C11
