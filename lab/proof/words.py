"""Train the text tower and its tokenizer alone on captions, to separate all that captions tell.

    python -m lab.proof.words OUT

The tower then stays frozen while the base trains; the image tower is matched to it afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from lab.world2 import clip, vocabulary
from lab.world2.captions import Told

TEXT_LENGTH = 32
WIDTH = 128


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


def build_text(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            projection_dim=WIDTH,
            max_position_embeddings=TEXT_LENGTH,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> torch.Tensor:
    """Return token ids (N, TEXT_LENGTH)."""
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
    ).input_ids


def load_text(folder: Path) -> tuple[PreTrainedTokenizerFast, CLIPTextModel]:
    return PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"), CLIPTextModel.from_pretrained(
        folder / "text_encoder"
    ).float()


CLASSES: tuple[tuple[str | int | None, ...], ...] = (
    tuple(n.name for n in vocabulary.NOUNS),
    tuple(s.name for s in vocabulary.SCENES),
    tuple(m.name for m in vocabulary.MOTIONS),
    (None, *vocabulary.COLOUR_NAMES),
    (None, *vocabulary.PATTERN_WORDS),
    (None, *(t.name for t in vocabulary.TIMES_OF_DAY)),
    (0, -1, 1),
)


def labels(told: Told) -> list[int]:
    """Return the caption's class for each of `CLASSES`."""
    values = (told.noun, told.scene, told.motion, told.colour, told.pattern, told.time, told.direction)
    return [names.index(value) for names, value in zip(CLASSES, values, strict=True)]


def train(out: Path, steps: int = 900, batch: int = 96) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text = build_text(tokenizer)
    heads = nn.ModuleList(nn.Linear(WIDTH, len(names)) for names in CLASSES)
    optimizer = torch.optim.AdamW([*text.parameters(), *heads.parameters()], lr=1.5e-3, weight_decay=0.01)
    rng = np.random.default_rng(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 50) * min(1.0, 2 * (1 - step / steps))
        specs = [clip.sample(int(rng.integers(2**62)), told_looks=0.6) for _ in range(batch)]
        target = torch.tensor([labels(s.told) for s in specs])
        pooled = text(tokenize(tokenizer, [s.caption for s in specs])).pooler_output
        scores = [head(pooled) for head in heads]
        loss = sum(F.cross_entropy(score, target[:, i]) for i, score in enumerate(scores))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            right = [
                float((score.argmax(1) == target[:, i]).float().mean()) for i, score in enumerate(scores)
            ]
            print(step + 1, round(float(loss), 4), right, flush=True)
    text.save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    train(asked.out, asked.steps)


if __name__ == "__main__":
    main()
