"""What a training would take, reckoned from settings, labels and the backbone's configuration: nothing is loaded or encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffusers import WanPipeline, WanTransformer3DModel
from torch import nn

from trainer.backbones.load import experts
from trainer.backbones.quantize import Quantization
from trainer.config.train import TrainSettings
from trainer.control import AdapterConfig, AxisControl
from trainer.control.config import adapter_config
from trainer.estimates.flops import video_tokens
from trainer.estimates.footprint import RESERVED_BYTES, MemoryEstimate, estimate_memory
from trainer.estimates.live_bytes import encoding_peak
from trainer.training.setup import DTYPES, Opened, chosen_experts, task_parts

CARDS_GB = (80, 48, 32, 24, 16, 12)
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


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a training takes follows from these: `shapes` are frames, height and width of its clips; `pipe` needs no weights."""

    settings: TrainSettings
    pipe: WanPipeline
    axes: tuple[AxisControl, ...]
    shapes: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, opened: Opened) -> Sizes:
        """Return the sizes of an opened run."""
        shapes = tuple(record.shape for record in opened.data.train)
        return cls(settings=opened.settings, pipe=opened.pipe, axes=opened.axes, shapes=shapes)

    @property
    def experts(self) -> tuple[str, ...]:
        """The transformers that train."""
        return chosen_experts(self.settings, self.pipe)

    @property
    def transformer(self) -> WanTransformer3DModel:
        """One of them; all have the same sizes."""
        found: WanTransformer3DModel = getattr(self.pipe, self.experts[0])
        return found

    @property
    def adapter(self) -> AdapterConfig:
        """What is put on it."""
        return adapter_config(self.settings, self.axes, self.transformer.config.num_layers)

    def tokens(self, frames: int, height: int, width: int) -> int:
        """Return the video tokens of a clip."""
        return video_tokens(
            height,
            width,
            frames,
            spatial=self.pipe.vae_scale_factor_spatial,
            temporal=self.pipe.vae_scale_factor_temporal,
            patch=self.transformer.config.patch_size[1],
        )


def memory_by_packing(sizes: Sizes) -> tuple[PackedMemory, ...]:
    """Return what a control run takes for each way to hold the backbone, at its largest clip.

    bitsandbytes packs nf4 on the device, where the backbone then is while encoders work; else it is in main memory until then.
    """
    settings, pipe = sizes.settings, sizes.pipe
    text = parameter_count(pipe.text_encoder) * DTYPES[settings.backbone.dtype].itemsize
    vae = parameter_count(pipe.vae) * VAE_WEIGHT_BYTES
    frames, rows, columns = max(sizes.shapes, key=math.prod)
    clips = vae + encoding_peak(pipe.vae, rows, columns, frames) + (text if settings.backbone.offload == "none" else 0)
    found = []
    for kind in Quantization:
        training = training_memory(sizes, kind)
        beside = RESERVED_BYTES + (training.backbone if kind == Quantization.NF4 else 0)
        found.append(
            PackedMemory(packing=kind, training=training, encoders=text + vae, captions=text + beside, clips=clips + beside)
        )
    return tuple(found)


def training_memory(sizes: Sizes, packing: str | None = None, swapped: int | None = None) -> MemoryEstimate:
    """Return what the optimizer steps of a control run take on its device, at its largest clip, encoders out of memory.

    With the packing and the number of swapped blocks of the settings, if no others are given.
    """
    settings, pipe = sizes.settings, sizes.pipe
    if packing == Quantization.NF4:  # whose blocks stay
        swapped = 0
    return estimate_memory(
        sizes.transformer.config,
        sizes.adapter,
        tokens=max(sizes.tokens(*shape) for shape in sizes.shapes),
        batch=settings.batch_size,
        text_tokens=settings.backbone.text_max_length,
        weight_bytes=DTYPES[settings.backbone.dtype].itemsize,
        quantization=settings.backbone.quantization if packing is None else packing,
        checkpointing=settings.gradient_checkpointing,
        optimizer=settings.optimizer.name,
        averaged=bool(settings.optimizer.ema_decay),
        experts=len(experts(pipe)),
        swapped=settings.backbone.blocks_to_swap if swapped is None else swapped,
    )


def swap_for_cards(sizes: Sizes) -> dict[int, tuple[int, MemoryEstimate]]:
    """Return, by a card's GB, how many blocks must wait in main memory for a control run to fit, and what it needs then.

    Cards that the settings fit already, that nothing fits, and settings that swap nothing are left out.
    """
    if sizes.settings.backbone.quantization == "nf4" or sizes.settings.compile:
        return {}
    found = {}
    counts = range(sizes.transformer.config.num_layers + 1)
    for card in CARDS_GB:
        fits = ((count, training_memory(sizes, swapped=count)) for count in counts)
        least = next(((count, memory) for count, memory in fits if memory.total <= card * 1e9), None)
        if least is not None and least[0] and training_memory(sizes).total > card * 1e9:
            found[card] = least
    return found


def trainable_counts(sizes: Sizes) -> dict[str, int]:
    """Return how many parameters would train, by part."""
    return task_parts(sizes.settings).trainable(sizes)


def parameter_count(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
