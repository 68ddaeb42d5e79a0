"""The text encoder: a UMT5 of tiny size, trained together with the transformer, and its tokens.

Shapes: B captions, L tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

if TYPE_CHECKING:  # `train_packed` runs where pydantic is not
    from trainer.tiny.shared.config import TextSettings

HELD_TOKENS = 56  # longest caption's tokens, its end token and at least one of padding


def build_text_encoder(settings: TextSettings, vocabulary: int) -> UMT5EncoderModel:
    """Return the encoder before training."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=settings.width,
        d_kv=settings.width // settings.heads,
        d_ff=2 * settings.width,
        num_layers=settings.layers,
        num_heads=settings.heads,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return UMT5EncoderModel(config)


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str], held: int = HELD_TOKENS) -> tuple[Tensor, Tensor]:
    """Return token ids [B, held] with zeros after each caption, and lengths [B]; what is longer is cut before its end token."""
    ids = [tokenizer(text, truncation=True, max_length=held - 1).input_ids for text in captions]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.zeros(len(ids), held, dtype=torch.long)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens)
    return padded, lengths


def embed(encoder: UMT5EncoderModel, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Return embeddings [B, L, X], zero after each caption, as Wan's pipeline makes them."""
    mask_BL = (torch.arange(ids_BL.shape[1], device=ids_BL.device) < lengths_B[:, None]).long()
    hidden = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    return hidden * mask_BL[..., None]
