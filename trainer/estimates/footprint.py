"""Estimates the memory of a training run before it starts: does this backbone fit on this card?

Weights, gradients and optimizer are counted, on a copy of the model without storage; activations follow a formula whose
coefficients were counted with `torch.autograd.graph.saved_tensors_hooks` (bf16 autocast, float32 adapters) and are held to it
by a test. What the allocator and the kernels' work spaces take is a flat allowance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from scenes.errors import InputError
from trainer.backbones.quantize import BYTES_PER_WEIGHT, Quantization
from trainer.backbones.wan_configs import TEXT_LENGTH
from trainer.control import AdapterConfig, attach

# Bytes that a block keeps for its backward pass, per video token: bf16 and float32 copies around norms, modulation and
# attention, of the model width; before and after the feed-forward's activation; LoRA's inner values of eight projections.
WIDTH_BYTES, FFN_BYTES, RANK_BYTES = 51, 4, 16
# Per text token: its keys and values, before and after the norm.
TEXT_WIDTH_BYTES, TEXT_RANK_BYTES = 12, 4
CAST_BYTES = 2  # autocast keeps a bf16 copy of every adapter weight
SWAP_COPIES = 2  # swapped blocks on the device at a time: one computes, the next is on its way (`training.block_swap`)
RESERVED_BYTES = 1_500_000_000  # CUDA context, kernels' work spaces
FRAGMENTATION = 1.05
OPTIMIZER_BYTES: Mapping[str, float] = MappingProxyType(  # per trained parameter
    {"adamw": 8, "adamw_fused": 8, "adamw_8bit": 2, "adafactor": 0.1, "muon": 4}
)


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on the device during training, by what takes them."""

    backbone: int
    adapter: int  # weights, gradients, optimizer, average
    activations: int
    reserved: int
    main_memory: int = 0  # not on the device: blocks that wait

    @property
    def total(self) -> int:
        """All of it, on the device."""
        return self.backbone + self.adapter + self.activations + self.reserved

    def __str__(self) -> str:
        parts = (self.backbone, self.adapter, self.activations, self.reserved)
        backbone, adapter, activations, reserved = (f"{part / 1e9:.1f}" for part in parts)
        return (
            f"{self.total / 1e9:.1f} GB (backbone {backbone}, adapter and optimizer {adapter}, activations {activations}, "
            f"reserve {reserved})" + (f", {self.main_memory / 1e9:.1f} GB in main memory" if self.main_memory else "")
        )


def estimate_memory(
    config: Mapping[str, Any],
    adapter: AdapterConfig,
    *,
    tokens: int,
    batch: int = 1,
    text_tokens: int = TEXT_LENGTH,
    weight_bytes: int = 2,
    quantization: str = "none",
    checkpointing: bool = True,
    optimizer: str = "adamw",
    averaged: bool = False,
    experts: int = 1,
    swapped: int = 0,
) -> MemoryEstimate:
    """Return what training an adapter takes on a device, text encoder and autoencoder already out of memory.

    `config` are WanTransformer3DModel's arguments (`transformer.config`), `tokens` the video tokens of the largest clip,
    `weight_bytes` 2 for a bfloat16 backbone and 4 for float32, `experts` how many transformers are held at once, `swapped` the
    blocks whose weights wait in main memory. Raises InputError for an unknown optimizer.
    """
    if optimizer not in OPTIMIZER_BYTES:
        raise InputError(f"memory of optimizer '{optimizer}' is not known; known are {', '.join(OPTIMIZER_BYTES)}")
    kind = Quantization(quantization)
    model = _one_block(config)
    layers = config["num_layers"]
    backbone = _backbone_bytes(model, layers, kind, weight_bytes)
    matrices = [p.numel() for p in model.blocks[0].parameters() if p.ndim == 2]
    packed = sum(matrices)
    in_bytes = [count * BYTES_PER_WEIGHT.get(kind, weight_bytes) for count in matrices]
    backbone -= (swapped - min(swapped, SWAP_COPIES)) * sum(in_bytes)
    pinned = sum(1 << math.ceil(math.log2(size)) for size in in_bytes)
    trained = sum(_trained(model, layers, adapter))
    per_parameter = 4 + 4 + OPTIMIZER_BYTES[optimizer] + 4 * averaged
    activations = _activation_bytes(config, adapter, tokens, batch, text_tokens, trained, checkpointing)
    if kind in (Quantization.FP8, Quantization.INT8):
        # Torch keeps the unpacked weights until the backward pass: of one block when checkpointing, else of all.
        activations += 2 * packed * (1 if checkpointing else layers)
    return MemoryEstimate(
        backbone=round(backbone * experts * FRAGMENTATION),
        adapter=round(trained * per_parameter * experts * FRAGMENTATION),
        activations=round(activations * FRAGMENTATION),
        reserved=RESERVED_BYTES,
        main_memory=swapped * pinned * experts,
    )


def _one_block(config: Mapping[str, Any]) -> WanTransformer3DModel:
    """Return a transformer without storage and with one block, of which the others are copies."""
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.device("meta"):
        return WanTransformer3DModel(**(own | {"num_layers": 1}))


def _backbone_bytes(model: WanTransformer3DModel, layers: int, kind: Quantization, weight_bytes: int) -> float:
    """Return the bytes of a transformer's weights as `from_pretrained` leaves them: norms and the like in float32."""
    total = 0.0
    for name, parameter in model.named_parameters():
        kept = any(part in model._keep_in_fp32_modules for part in name.split("."))
        in_block = name.startswith("blocks.")
        packed = kind != Quantization.NONE and in_block and parameter.ndim == 2
        size = BYTES_PER_WEIGHT[kind] if packed else 4 if kept else weight_bytes
        total += parameter.numel() * size * (layers if in_block else 1)
    return total


def adapter_counts(config: Mapping[str, Any], adapter: AdapterConfig) -> tuple[int, int]:
    """Return how many parameters an adapter has on a transformer of these arguments: of its control, of its LoRA."""
    return _trained(_one_block(config), config["num_layers"], adapter)


def _trained(model: WanTransformer3DModel, layers: int, adapter: AdapterConfig) -> tuple[int, int]:
    """Return the parameters of control and LoRA on a transformer of `layers` such blocks; uses the model up."""
    conditioned = 0
    if adapter.control is not None:
        conditioned = len(adapter.control.blocks)
        adapter = adapter.model_copy(update={"control": adapter.control.model_copy(update={"blocks": (0,)})})
    attached = attach(model, adapter)
    control = attached.control_parameters()
    count = sum(p.numel() * (conditioned if name.startswith("blocks.") else 1) for name, p in control.items())
    return count, layers * sum(p.numel() for p in attached.lora_parameters().values())


def _activation_bytes(
    config: Mapping[str, Any],
    adapter: AdapterConfig,
    tokens: int,
    batch: int,
    text_tokens: int,
    trained: int,
    checkpointing: bool,
) -> float:
    layers, width = config["num_layers"], config["num_attention_heads"] * config["attention_head_dim"]
    rank = adapter.lora.rank if adapter.lora is not None else 0
    video = tokens * (WIDTH_BYTES * width + FFN_BYTES * config["ffn_dim"] + RANK_BYTES * rank)
    block = batch * (video + text_tokens * (TEXT_WIDTH_BYTES * width + TEXT_RANK_BYTES * rank))
    casts = CAST_BYTES * trained
    if not checkpointing:
        return float(layers * block + casts)
    inputs = layers * batch * tokens * width * 2
    return float(inputs + block + casts / layers)


__all__ = ["MemoryEstimate", "adapter_counts", "estimate_memory"]
