"""What a training would take, reckoned from settings, labels and the backbone's configuration: nothing is loaded or encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from trainer.data.records import ClipRecord
from trainer.flops import video_tokens
from trainer.footprint import RESERVED_BYTES, MemoryEstimate, adapter_counts, estimate_memory
from trainer.live_bytes import encoding_peak
from trainer.quantize import Quantization
from trainer.training.setup import DTYPES, Opened, adapter_config

VAE_WEIGHT_BYTES = 4  # it encodes in float32


@dataclass(frozen=True, kw_only=True)
class PackedMemory:
    """Bytes on the device with the backbone held in one way; `encoders` are text encoder and autoencoder, if they stay."""

    packing: Quantization
    training: MemoryEstimate
    encoders: int
    captions: int  # while captions are encoded
    clips: int  # while clips are encoded

    @property
    def with_encoders(self) -> int:
        """Training with text encoder and autoencoder kept beside it (backbone.offload = none)."""
        return self.training.total + self.encoders

    @property
    def encoding(self) -> int:
        """The most before training."""
        return max(self.captions, self.clips)


def memory_by_packing(opened: Opened) -> tuple[PackedMemory, ...]:
    """Return what a control run takes for each way to hold the backbone, at its largest clip.

    bitsandbytes packs nf4 on the device, where the backbone then is while encoders work; else it is in main memory until then.
    """
    settings, pipe = opened.settings, opened.pipe
    text = _size(pipe.text_encoder) * DTYPES[settings.backbone.dtype].itemsize
    vae = _size(pipe.vae) * VAE_WEIGHT_BYTES
    frames, rows, columns = max(_shapes(opened), key=lambda shape: shape[0] * shape[1] * shape[2])
    clips = vae + encoding_peak(pipe.vae, rows, columns, frames) + (text if settings.backbone.offload == "none" else 0)
    found = []
    for kind in Quantization:
        training = training_memory(opened, kind)
        beside = RESERVED_BYTES + (training.backbone if kind == Quantization.NF4 else 0)
        found.append(
            PackedMemory(packing=kind, training=training, encoders=text + vae, captions=text + beside, clips=clips + beside)
        )
    return tuple(found)


def training_memory(opened: Opened, packing: str | None = None) -> MemoryEstimate:
    """Return what the optimizer steps of a control run take on its device, at its largest clip, encoders out of memory."""
    settings, pipe = opened.settings, opened.pipe
    config = getattr(pipe, opened.experts[0]).config
    sizes = {"spatial": pipe.vae_scale_factor_spatial, "temporal": pipe.vae_scale_factor_temporal}
    return estimate_memory(
        config,
        adapter_config(settings, opened.axes, config.num_layers),
        tokens=max(video_tokens(rows, columns, n, patch=config.patch_size[1], **sizes) for n, rows, columns in _shapes(opened)),
        batch=settings.batch_size,
        text_tokens=settings.backbone.text_max_length,
        weight_bytes=DTYPES[settings.backbone.dtype].itemsize,
        quantization=settings.backbone.quantization if packing is None else packing,
        checkpointing=settings.gradient_checkpointing,
        optimizer=settings.optimizer.name,
        averaged=bool(settings.optimizer.ema_decay),
        experts=2 if getattr(pipe, "transformer_2", None) is not None else 1,
    )


def trainable_counts(opened: Opened) -> dict[str, int]:
    """Return how many parameters would train, by part."""
    if opened.settings.what == "vae":
        return {"vae": _size(opened.pipe.vae)}
    if opened.settings.what == "transformer":
        return {name: _size(getattr(opened.pipe, name)) for name in opened.experts}
    config = getattr(opened.pipe, opened.experts[0]).config
    control, lora = adapter_counts(config, adapter_config(opened.settings, opened.axes, config.num_layers))
    counts: dict[str, int] = {}
    for name in opened.experts:
        counts |= {f"{name}: control": control, f"{name}: LoRA": lora}
    return counts


def _shapes(opened: Opened) -> Sequence[tuple[int, int, int]]:
    records: Sequence[ClipRecord] = opened.data.train
    return [record.shape for record in records]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
