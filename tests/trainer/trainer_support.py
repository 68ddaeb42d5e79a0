"""Tiny backbones and adapters with nothing at zero, for the tests of the trainer.

Shapes: B batch, C channels, T latent frames, H rows, W columns, L text tokens, X text width, A axes.
"""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from trainer.control import AdapterConfig, ControlConfig, LoraSettings, WanAdapter, attach, axis_control, resolve_blocks

LAYERS = 4


def tiny_transformer(seed: int = 0, *, heads: int = 2, head_dim: int = 16, layers: int = LAYERS) -> WanTransformer3DModel:
    """Return a small text-to-video transformer of true architecture, random weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=head_dim,
            in_channels=4,
            out_channels=4,
            text_dim=24,
            freq_dim=32,
            ffn_dim=48,
            num_layers=layers,
        ).eval()


def tiny_config(
    *axes: str, blocks: tuple[int, ...] = (2, 3), gate: str = "fixed", control: bool = True, lora: bool = True
) -> AdapterConfig:
    """Return a small adapter's configuration; alpha differs from rank everywhere."""
    return AdapterConfig(
        control=ControlConfig(
            axes=tuple(axis_control(name) for name in axes or ("shutter", "temperature")),
            blocks=resolve_blocks(blocks, LAYERS),
            rank=5,
            alpha=7.0,
            tokens=3,
            embed_dim=40,
            hidden_dim=8,
            gate=gate,
        )
        if control
        else None,
        lora=LoraSettings(rank=4, alpha=6.0) if lora else None,
    )


def scramble(adapter: WanAdapter, seed: int = 3, scale: float = 0.3) -> WanAdapter:
    """Give every adapter parameter random values, as after training; returns the adapter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, scale, generator=generator))
    return adapter


def adapted(config: AdapterConfig | None = None, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> WanAdapter:
    """Return a scrambled adapter on a tiny transformer."""
    transformer = tiny_transformer(seed).to(dtype)
    return scramble(attach(transformer, config or tiny_config()))


def tiny_inputs(batch: int = 2, seed: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return a transformer's inputs: latents [B, C, T, H, W], text [B, L, X] and timesteps [B]."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 4, 2, 4, 6, generator=generator).to(dtype),
        "encoder_hidden_states": torch.randn(batch, 7, 24, generator=generator).to(dtype),
        "timestep": torch.linspace(20, 950, batch),
    }


def predict(transformer: torch.nn.Module, inputs: dict[str, Tensor], controls: object = None) -> Tensor:
    """Return the prediction of a transformer, with controls [B, A] if any."""
    extra = {"attention_kwargs": {"controls": torch.tensor(controls)}} if controls is not None else {}
    return transformer(**inputs, return_dict=False, **extra)[0]
