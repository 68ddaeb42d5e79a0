"""Loads backbone and adapter for generation: number format, quantization, device, offloading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline

from scenes.errors import InputError, closest
from trainer.adapters.card import AdapterCard
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import experts, load_component
from trainer.backbones.quantize import check_quantization, load_quantized
from trainer.generation.sampler import Sampling, generation_of
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.pipelines.extra_loras import ExtraLora
from trainer.pipelines.schedulers import check_scheduler

DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
OFFLOADS = ("none", "model", "group", "sequential")
TOY_WIDTH = 512  # of the model; no Wan that people use is narrower than 1536
TOY = Sampling(width=64, height=64, frames=9, steps=20)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a backbone is loaded; None lets the machine decide (`resolved`)."""

    backbone: str | None = None  # None: the one that the adapter's card names
    dtype: str | None = None
    device: str | None = None
    offload: str = "none"
    quantize: str = "none"
    allow_other_backbone: bool = False
    scheduler: str | None = None
    flow_shift: float | None = None
    loras: tuple[ExtraLora, ...] = ()  # of other programs, beside the adapter


def resolved(loading: Loading, card: AdapterCard) -> Loading:
    """Return the loading with nothing left open: CUDA where there is one, bf16 on it, float32 on the CPU.

    Raises InputError for words that are unknown, CUDA where there is none, and offloading or packing without a GPU.
    """
    _one_of("offload", loading.offload, OFFLOADS)
    check_scheduler(loading.scheduler, loading.flow_shift)
    device = loading.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise InputError(f"device '{device}' is unknown; give cpu, cuda or cuda:N") from None
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device '{device}' is not supported; give cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device '{device}' was asked for and torch sees no CUDA GPU here; use --device cpu, or fix the driver"
        )
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{device}' is absent; this machine has {torch.cuda.device_count()} CUDA GPUs, from cuda:0")
    if kind == "cpu" and loading.offload != "none":
        raise InputError(f"--offload {loading.offload} moves weights to a GPU and back; leave it out on the CPU")
    check_quantization(loading.quantize, torch.device(device))
    dtype = loading.dtype or ("bf16" if kind == "cuda" else "fp32")
    checked_dtype(dtype)
    return replace(loading, backbone=loading.backbone or card.backbone.id, dtype=dtype, device=device)


def checked_dtype(word: str) -> torch.dtype:
    """Return the dtype of a word; raises InputError for an unknown one."""
    _one_of("dtype", word, tuple(DTYPES))
    return DTYPES[word]


def load_controlled(
    adapter: SavedAdapter, loading: Loading, *, cache: Path | None = None, note: Callable[[str], None] | None = None
) -> ControlledWan:
    """Return the pipeline of a resolved loading, on its device or under its offloading, without progress bars of its own.

    `note` is told what was assumed or left out of extra LoRAs.
    Raises InputError where the backbone does not fit into the device's memory.
    """
    assert loading.backbone is not None and loading.dtype is not None and loading.device is not None
    dtype = checked_dtype(loading.dtype)
    parts: dict[str, Any] = {}
    if dtype != torch.float32:  # a narrower autoencoder shows in the picture, and it is small
        parts["vae"] = load_component(AutoencoderKLWan, loading.backbone, "vae", dtype=torch.float32, cache=cache)
    try:
        bare = load_quantized(loading.backbone, loading.quantize, device=loading.device, dtype=dtype, cache=cache, **parts)
        pipe = generation_of(adapter.method).pipeline(bare, adapter, allow_other_backbone=loading.allow_other_backbone)
        pipe.set_progress_bar_config(disable=True)
        pipe.set_scheduler(loading.scheduler, flow_shift=loading.flow_shift)
        for lora in loading.loras:
            for words in pipe.add_lora(lora.path, lora.weight, expert=lora.expert):
                (note or _silent)(f"{lora.path}: {words}")
        place(pipe, loading.device, loading.offload)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"backbone {loading.backbone} does not fit into the memory of {loading.device} as {loading.dtype}; "
            "use --offload model, group or sequential, --quantize fp8 or nf4"
        ) from error
    return pipe


def _silent(_words: str) -> None:
    """Tell nobody."""


def place(pipe: ControlledWan, device: str, offload: str) -> None:
    """Move a pipeline to a device, or let its parts move there when they are used."""
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "group":  # a block of a transformer at a time; on CUDA the next one comes while one computes
        streams = torch.device(device).type == "cuda"
        pipe.enable_group_offload(
            torch.device(device),
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=streams,
            low_cpu_mem_usage=streams,
            exclude_modules=["vae"],
        )
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


def default_sampling(pipe: WanPipeline, card: AdapterCard) -> Sampling:
    """Return the sampling of what was not asked for: Wan's own, a small one for toy backbones; text as long as in training."""
    config = next(iter(experts(pipe).values())).config
    toy = config.num_attention_heads * config.attention_head_dim < TOY_WIDTH
    base = TOY if toy else Sampling()
    return replace(base, text_tokens=card.text_tokens) if card.text_tokens is not None else base


def _one_of(option: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise InputError(f"--{option} {word} is unknown{closest(word, allowed)}; allowed are {', '.join(allowed)}")
