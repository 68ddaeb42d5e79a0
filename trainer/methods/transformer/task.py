"""Trains a whole transformer, and the text encoder with it if asked for: how the bundled tiny backbone is made.

Shapes: B clips, C latent channels, T latent frames, H rows, W columns; L text tokens, X text width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from scenes.errors import InputError, StopdownError
from trainer.control import WanAdapter
from trainer.data.batch import Batch
from trainer.data.batches import LATENTS, TEXT, FlowBatches
from trainer.data.encoding import EncodedReader
from trainer.training.callbacks.validation import Validation
from trainer.training.dry_run import Sizes, parameter_count
from trainer.training.setup import Opened, make_flow
from trainer.training.tasks.flow import Draw, RectifiedFlow, drop_captions
from trainer.training.tasks.weights import swapped

CAPTION_DROPOUT = 0.1  # the usual share for classifier-free guidance (Ho & Salimans 2022, section 4)


@dataclass(frozen=True, kw_only=True)
class TextParts:
    """A text encoder to train with the transformer, and the tokenizer and length that it is called with."""

    tokenizer: Any
    encoder: Any  # a transformers encoder, such as UMT5EncoderModel
    length: int

    def tokens(self, caption: str) -> Tensor:
        """Return a caption's token ids and mask [L, 2], as Wan's pipeline makes them: give it to `FlowBatches` as `text`."""
        found = self.tokenizer(
            prompt_clean(caption),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return torch.stack((found.input_ids[0], found.attention_mask[0]), dim=-1)


class TextToVideo(nn.Module):
    """A text encoder and a transformer as one module: takes tokens where the transformer takes embeddings."""

    def __init__(self, transformer: WanTransformer3DModel, text_encoder: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder

    def forward(self, encoder_hidden_states: Tensor, **arguments: Any) -> Any:
        """Return what the transformer returns; `encoder_hidden_states` are token ids and mask [B, L, 2]."""
        tokens_BL, mask_BL = encoder_hidden_states.unbind(-1)
        text_BLX = self.text_encoder(tokens_BL, mask_BL).last_hidden_state * mask_BL[:, :, None]
        return self.transformer(encoder_hidden_states=text_BLX, **arguments)


class TransformerTask:
    """All parameters of a transformer, from cached latents, under the flow objective. See `Task` for each method."""

    name = "transformer"
    adapters: Mapping[str, WanAdapter] = MappingProxyType({})

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        batches: FlowBatches,
        flow: RectifiedFlow,
        *,
        text: TextParts | None = None,
        caption_dropout: float = CAPTION_DROPOUT,
        gradient_checkpointing: bool = False,
    ) -> None:
        if not 0 <= caption_dropout < 1:
            raise InputError(f"caption dropout {caption_dropout:g} is impossible; give a share from 0 to below 1")
        self.transformer = transformer
        self.batches = batches
        self.flow = flow
        self.text = text
        self.caption_dropout = caption_dropout
        if text is not None and batches.empty_text().is_floating_point():
            raise StopdownError(
                "a text encoder trains on tokens, the batches hold embeddings; give them its `tokens` as `text`"
            )
        self.module: nn.Module = transformer if text is None else TextToVideo(transformer, text.encoder)
        self.module.requires_grad_(True).train()
        if gradient_checkpointing:
            transformer.enable_gradient_checkpointing()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return every parameter of the module, by its name there."""
        return dict(self.module.named_parameters())

    def micro_batch(self, micro_step: int, rank: int, ranks: int) -> Batch:
        """Return the batch of a micro-step for one of `ranks` processes."""
        return self.batches.micro_batch(micro_step, rank, ranks)

    def losses(self, batch: Batch, generator: torch.Generator, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B] at noise levels and noise from the generator."""
        draw = self.flow.draw(batch.tensors[LATENTS], generator)
        text_BLX = batch.tensors[TEXT]
        if self.caption_dropout:
            text_BLX = drop_captions(text_BLX, self.batches.empty_text(), self.caption_dropout, generator)
        return self.flow.losses(module, batch.tensors[LATENTS], text_BLX, None, draw)

    def losses_at(self, batch: Batch, draw: Draw, module: nn.Module) -> Tensor:
        """Return the loss of every clip [B] at given noise levels and noise, with every caption: for validation."""
        return self.flow.losses(module, batch.tensors[LATENTS], batch.tensors[TEXT], None, draw)

    def before_step(self, step: int) -> None:
        """Nothing depends on the step."""

    def save(self, folder: Path, step: int, averaged: Mapping[str, Tensor] | None) -> None:
        """Write `transformer/`, and `text_encoder/` if it trains, as diffusers and transformers save them."""
        with swapped(self.parameters(), averaged):
            self.transformer.save_pretrained(folder / "transformer")
            if self.text is not None:
                self.text.encoder.save_pretrained(folder / "text_encoder")

    def save_beside(self, checkpoint: Path, step: int, weights: Mapping[str, Tensor]) -> None:
        """Nothing: a whole model in every checkpoint would be too much."""


class TransformerParts:
    """How the method trains (`trainer.training.setup.TaskParts`)."""

    validation = Validation

    def check(self, opened: Opened) -> None:
        """Raise InputError for an expert that the backbone lacks, and for two where one is to be chosen."""
        RectifiedFlow.of(opened.pipe, opened.experts)
        if len(opened.experts) > 1:
            raise InputError(
                "method = 'transformer' trains one transformer; choose backbone.experts = 'high_noise' or 'low_noise'"
            )

    def make(self, opened: Opened, reader: EncodedReader | None) -> TransformerTask:
        """Return the task, with the text encoder where the settings train it."""
        assert reader is not None
        settings, pipe = opened.settings, opened.pipe
        text = None
        if settings.backbone.train_text_encoder:
            text = TextParts(tokenizer=pipe.tokenizer, encoder=pipe.text_encoder, length=settings.backbone.text_max_length)
        return TransformerTask(
            getattr(pipe, opened.experts[0]),
            FlowBatches(
                opened.data.train,
                reader,
                batch_size=settings.batch_size,
                seed=settings.seed,
                text=None if text is None else text.tokens,
            ),
            make_flow(opened, torch.float32),
            text=text,
            caption_dropout=settings.caption_dropout,
            gradient_checkpointing=settings.gradient_checkpointing,
        )

    def trainable(self, sizes: Sizes) -> dict[str, int]:
        """Return the parameters of the transformers that train."""
        return {name: parameter_count(getattr(sizes.pipe, name)) for name in sizes.experts}


TASK = TransformerParts()
