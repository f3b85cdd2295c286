"""CLIP at toy size over the words of the world."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

from lab.proof.words import TEXT_LENGTH, build_tokenizer, tokenize
from streamingt2v.metrics.eyes import save_text_projection

__all__ = ["TEXT_LENGTH", "build_clip", "build_tokenizer", "export_towers", "tokenize"]


def build_clip(tokenizer: PreTrainedTokenizerFast, width: int) -> CLIPModel:
    """Build a stock CLIPModel with one layer in each tower, for images of 32 x 32."""
    sizes = {
        "projection_dim": width,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    text = CLIPTextConfig(
        **sizes, vocab_size=len(tokenizer), max_position_embeddings=TEXT_LENGTH,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(**sizes, image_size=32, patch_size=8)
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width)
    )


def export_towers(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save the towers as a model folder has them, and the text's projection."""
    model.text_model.save_pretrained(folder / "text_encoder")
    vision = CLIPVisionModelWithProjection(model.config.vision_config)
    vision.load_state_dict(
        {name: value for name, value in model.state_dict().items() if name in vision.state_dict()}
    )
    vision.save_pretrained(folder / "image_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    save_text_projection(folder, model.text_projection.weight)
