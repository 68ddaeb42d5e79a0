"""The true configurations of the Wan text-to-video backbones, as data: what a folder of this name holds, without its weights.

Source: the `config.json` files of the Wan-AI repositories on the Hugging Face hub that are named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

TEXT_LENGTH = 512  # tokens that the text is padded to


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """One backbone: where it is published and what WanTransformer3DModel and AutoencoderKLWan are built with.

    `experts` names the pipeline's transformers (two for a mixture by noise level); `boundary_ratio` is where they change over.
    """

    hub_id: str
    num_attention_heads: int
    ffn_dim: int
    num_layers: int
    attention_head_dim: int = 128
    channels: int = 16
    experts: tuple[str, ...] = ("transformer",)
    boundary_ratio: float | None = None
    expand_timesteps: bool = False
    vae: Mapping[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The model width."""
        return self.num_attention_heads * self.attention_head_dim

    def transformer_arguments(self) -> dict[str, Any]:
        """Return WanTransformer3DModel's arguments."""
        return {
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "in_channels": self.channels,
            "out_channels": self.channels,
            "text_dim": 4096,
            "freq_dim": 256,
            "ffn_dim": self.ffn_dim,
            "num_layers": self.num_layers,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "eps": 1e-6,
        }


WAN22_VAE = MappingProxyType(
    {
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "in_channels": 12,
        "out_channels": 12,
        "is_residual": True,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "scale_factor_temporal": 4,
    }
)

UMT5_XXL = MappingProxyType(  # the text encoder of all of them
    {
        "vocab_size": 256384,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    }
)

WAN_CONFIGS: Mapping[str, WanConfig] = MappingProxyType(
    {
        "wan2.1-t2v-1.3b": WanConfig(
            hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", num_attention_heads=12, ffn_dim=8960, num_layers=30
        ),
        "wan2.1-t2v-14b": WanConfig(
            hub_id="Wan-AI/Wan2.1-T2V-14B-Diffusers", num_attention_heads=40, ffn_dim=13824, num_layers=40
        ),
        "wan2.2-t2v-a14b": WanConfig(
            hub_id="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            num_attention_heads=40,
            ffn_dim=13824,
            num_layers=40,
            experts=("transformer", "transformer_2"),
            boundary_ratio=0.875,
        ),
        "wan2.2-ti2v-5b": WanConfig(
            hub_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            num_attention_heads=24,
            ffn_dim=14336,
            num_layers=30,
            channels=48,
            expand_timesteps=True,
            vae=WAN22_VAE,
        ),
    }
)


def known_config(hub_id: str) -> WanConfig | None:
    """Return the configuration of a hub id, None for one that the table lacks."""
    return next((config for config in WAN_CONFIGS.values() if config.hub_id == hub_id), None)


def random_transformer(
    config: WanConfig, *, device: str = "meta", dtype: torch.dtype = torch.float32, seed: int = 0, num_layers: int | None = None
) -> WanTransformer3DModel:
    """Return a transformer of a true configuration with random weights, on the meta device without any.

    `num_layers` cuts the depth and nothing else, for a real run where the whole does not fit.
    """
    arguments = config.transformer_arguments() | ({"num_layers": num_layers} if num_layers is not None else {})
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(seed)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return WanTransformer3DModel(**arguments)
        finally:
            torch.set_default_dtype(default)


def meta_vae(config: WanConfig) -> AutoencoderKLWan:
    """Return the autoencoder of a true configuration on the meta device."""
    arguments = dict(config.vae)
    if "z_dim" in arguments:  # the statistics of the latents are per channel and are not architecture
        arguments |= {"latents_mean": [0.0] * arguments["z_dim"], "latents_std": [1.0] * arguments["z_dim"]}
    with torch.device("meta"):
        return AutoencoderKLWan(**arguments)
