"""Tells whether an adapter still acts on its transformer: calls of others can merge, disable, delete or replace its parts."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.control.attach import WanAdapter
from trainer.control.attention import ControlAttention, TextAttention
from trainer.control.embedding import ControlEmbedding
from trainer.control.lora import LORA_NAME, lora_layers, lora_modules


def fault(adapter: WanAdapter) -> str:
    """Return what is wrong with an adapter's parts, in words that follow "this adapter's"; "" where all of them act."""
    return next(_faults(adapter), "")


def _faults(adapter: WanAdapter) -> Iterator[str]:
    transformer = adapter.transformer
    if adapter.config.lora is not None:
        layers = list(lora_layers(transformer))
        expected = len(lora_modules(transformer.config.num_layers))
        if len(layers) != expected or LORA_NAME not in getattr(transformer, "peft_config", {}):
            yield f"LoRA is in {len(layers)} of {expected} projections (removed by unload_lora or delete_adapters)"
        if any(layer.merged for _, layer in layers):
            yield "LoRA lies under a merged one and does not act (fuse_lora); call unfuse_lora()"
        if any(layer.disable_adapters for _, layer in layers):
            yield "LoRA is disabled (disable_lora); call pipe.transformer.enable_lora()"
    if adapter.config.control is not None:
        if not isinstance(transformer.condition_embedder.image_embedder, ControlEmbedding):
            yield "control embedding was removed"
        for index, block in enumerate(transformer.blocks):
            wanted = ControlAttention if index in adapter.config.control.blocks else TextAttention
            if not isinstance(block.attn2.processor, wanted):
                yield f"attention processor in block {index} was replaced (set_attn_processor)"
