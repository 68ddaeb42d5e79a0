"""Counts the floating point operations of a training step by formula: what utilisation is reckoned from.

A multiplication with its addition counts 2; norms, activations and other element-wise work count nothing. For a linear
layer of `in` x `out` weights on `n` tokens, forward 2·n·in·out. Backward of a *frozen* layer: the gradient of its input,
another 2·n·in·out, and none for its weight; where nothing before the layer trains (the first block's self-attention, text
keys and values, whose text is frozen) not even that. LoRA and control layers train, so they pay forward, input and weight.
Attention of S queries and K keys at width D: forward 4·S·K·D, backward 8·S·K·D (kernels that recompute scores do more; that
is not counted, as in the PaLM paper, appendix B). Gradient checkpointing adds a forward pass of the blocks that utilisation
of the model does not count and utilisation of the hardware does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from diffusers import WanTransformer3DModel

from trainer.backbones.wan_configs import TEXT_LENGTH
from trainer.control.config import AdapterConfig

# Dense bf16 tensor peak, operations per second, by a part of the device's name; the makers' data sheets, without sparsity.
PEAKS: Mapping[str, float] = MappingProxyType(
    {
        "H200": 989e12,
        "H100 PCIe": 756e12,
        "H100 NVL": 835e12,
        "H100": 989e12,
        "B200": 2250e12,
        "A100": 312e12,
        "L40S": 362e12,
        "RTX 5090": 209e12,
        "RTX 4090": 165e12,
        "RTX 3090": 71e12,
    }
)


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Operations of a forward and backward pass; `recompute` is what gradient checkpointing adds."""

    forward: int
    backward: int
    recompute: int

    @property
    def model(self) -> int:
        """What the step needs: the numerator of model FLOP utilisation."""
        return self.forward + self.backward

    @property
    def hardware(self) -> int:
        """What the step does: the numerator of hardware FLOP utilisation."""
        return self.model + self.recompute


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Wan transformer that decide its operations."""

    width: int
    ffn_dim: int
    layers: int
    channels_in: int
    channels_out: int
    text_dim: int
    freq_dim: int
    patch: int  # latent values per channel and token

    @classmethod
    def of(cls, transformer: WanTransformer3DModel) -> Shape:
        """Return the sizes of a transformer (also one on the meta device)."""
        config = transformer.config
        return cls(
            width=config.num_attention_heads * config.attention_head_dim,
            ffn_dim=config.ffn_dim,
            layers=config.num_layers,
            channels_in=config.in_channels,
            channels_out=config.out_channels,
            text_dim=config.text_dim,
            freq_dim=config.freq_dim,
            patch=config.patch_size[0] * config.patch_size[1] * config.patch_size[2],
        )


def video_tokens(height: int, width: int, frames: int, *, spatial: int = 8, temporal: int = 4, patch: int = 2) -> int:
    """Return the tokens of a video of pixels: latent frames times latent rows and columns over the patch."""
    return ((frames - 1) // temporal + 1) * (height // spatial // patch) * (width // spatial // patch)


def step_flops(
    shape: Shape,
    config: AdapterConfig,
    *,
    tokens: int,
    batch: int = 1,
    text_tokens: int = TEXT_LENGTH,
    checkpointing: bool = False,
) -> StepFlops:
    """Return the operations of a training step of an adapter on a frozen backbone, control attention at work."""
    backward = blocks_forward = again = 0
    for block in range(shape.layers):
        ahead, back = _block(shape, config, block, tokens, text_tokens)
        blocks_forward += ahead
        again += ahead * (back > 0)  # nothing of a block without a backward pass is computed again
        backward += back
    forward = blocks_forward + _outside(shape, tokens, text_tokens)
    backward += 2 * tokens * shape.width * shape.channels_out * shape.patch
    if config.control is not None:
        hidden = config.control.hidden_dim
        ahead = 2 * hidden * (len(config.control.axes) + config.control.embed_dim)
        forward += ahead
        backward += 2 * ahead - 2 * hidden * len(config.control.axes)  # controls need no gradient
    return StepFlops(forward=batch * forward, backward=batch * backward, recompute=batch * again * checkpointing)


def _outside(shape: Shape, tokens: int, text_tokens: int) -> int:
    """Return the forward operations outside the blocks: patches, text and time embedding, projection to latents."""
    d = shape.width
    patches = 2 * tokens * d * shape.patch * (shape.channels_in + shape.channels_out)
    text = 2 * text_tokens * (shape.text_dim * d + d * d)
    return patches + text + 2 * (shape.freq_dim * d + d * d + 6 * d * d)


def _block(shape: Shape, config: AdapterConfig, block: int, tokens: int, text_tokens: int) -> tuple[int, int]:
    """Return the forward and backward operations of a block."""
    d, f = shape.width, shape.ffn_dim
    rank = config.lora.rank if config.lora is not None else 0
    conditioned = config.control.blocks if config.control is not None else ()
    reached = block > (0 if rank else min(conditioned))  # whether what enters the block depends on anything that trains
    video = reached or bool(rank)  # whether what enters its cross-attention does
    forward = backward = 0
    layers = [
        *[(d, d, tokens, reached)] * 3,  # self-attention: q, k, v
        (d, d, tokens, video),
        (d, d, tokens, video),  # cross-attention: q
        *[(d, d, text_tokens, False)] * 2,  # k, v
        (d, d, tokens, video or block in conditioned),
        (d, f, tokens, video or block in conditioned),
        (f, d, tokens, video or block in conditioned),
    ]
    for inputs, outputs, count, flows in layers:
        forward += 2 * count * (inputs * outputs + rank * (inputs + outputs))
        # LoRA's A and B: weight gradients of both, B's input, and A's input where it is wanted.
        backward += 2 * count * (rank * (inputs + outputs) + rank * outputs + (inputs * outputs + rank * inputs) * flows)
    self_attention, cross = 4 * tokens * tokens * d, 4 * tokens * text_tokens * d
    forward += self_attention + cross
    backward += 2 * self_attention * video + (2 if rank else 1) * cross * video  # without LoRA no text key or value trains
    if config.control is not None and block in conditioned:
        control = config.control
        layers_forward = 2 * 2 * control.rank * (control.embed_dim + control.tokens * d)
        attention = 4 * tokens * control.tokens * d
        forward += layers_forward + attention
        backward += 2 * layers_forward + (4 if video else 3) * attention // 2  # the query's gradient only where wanted
    return forward, backward
