"""The true configurations against what their makers publish, and pipelines of their kind at a reduced size.

The widths, layers, heads and strides of Wan2.1 and of TI2V-5B agree with the makers' own configuration files (`wan/configs/`
of the repositories Wan2.1 and Wan2.2 of Wan-Video). The A14B row, its boundary and TI2V's 48 channels were not looked up.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from trainer_support import scramble

from trainer.backbones.load import experts, load_backbone
from trainer.backbones.locate import KNOWN
from trainer.backbones.wan_configs import WAN_CONFIGS, meta_vae, random_transformer
from trainer.control import AdapterConfig, ControlConfig, LoraSettings, attach, axis_control, resolve_blocks
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.weights.key_names import backbone_names

PUBLISHED = {  # dim, ffn_dim, num_heads, num_layers, vae stride, boundary, vae z_dim
    "wan2.1-t2v-1.3b": (1536, 8960, 12, 30, (4, 8, 8), None, 16),
    "wan2.1-t2v-14b": (5120, 13824, 40, 40, (4, 8, 8), None, 16),
    "wan2.2-t2v-a14b": (5120, 13824, 40, 40, (4, 8, 8), 0.875, 16),
    "wan2.2-ti2v-5b": (3072, 14336, 24, 30, (4, 16, 16), None, 48),
}


def test_every_configuration_is_in_the_table_and_can_be_named() -> None:
    assert set(PUBLISHED) == set(WAN_CONFIGS)
    assert {config.hub_id for config in WAN_CONFIGS.values()} == set(KNOWN) - {"tiny", "tiny-random"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_configurations_are_the_published_ones(name: str) -> None:
    dim, ffn_dim, heads, layers, stride, boundary, z_dim = PUBLISHED[name]
    config = WAN_CONFIGS[name]
    assert (config.width, config.ffn_dim, config.num_attention_heads, config.num_layers) == (dim, ffn_dim, heads, layers)
    assert config.boundary_ratio == boundary
    assert config.experts == (("transformer", "transformer_2") if boundary is not None else ("transformer",))
    assert config.expand_timesteps == (name == "wan2.2-ti2v-5b")
    transformer = random_transformer(config)
    assert transformer.config.patch_size == (1, 2, 2) and transformer.config.text_dim == 4096
    assert transformer.config.freq_dim == 256 and transformer.config.eps == 1e-6
    assert transformer.config.cross_attn_norm and transformer.config.qk_norm == "rms_norm_across_heads"
    assert transformer.config.in_channels == transformer.config.out_channels == z_dim
    vae = meta_vae(config).config
    assert (vae.scale_factor_temporal, vae.scale_factor_spatial, vae.scale_factor_spatial) == stride
    assert vae.z_dim == z_dim and len(vae.latents_mean) == len(vae.latents_std) == z_dim


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_of_a_published_block(name: str) -> None:
    """By the original names of a block's weights, so that a checkpoint under either naming fits."""
    dim, ffn_dim, _, layers, _, _, z_dim = PUBLISHED[name]
    names = backbone_names(layers)
    state = random_transformer(WAN_CONFIGS[name]).state_dict()
    shapes = {original: tuple(state[own].shape) for original, own in names.items()}
    last = f"blocks.{layers - 1}"
    assert shapes[f"{last}.self_attn.q.weight"] == shapes[f"{last}.cross_attn.o.weight"] == (dim, dim)
    assert shapes[f"{last}.ffn.0.weight"] == (ffn_dim, dim) and shapes[f"{last}.ffn.2.weight"] == (dim, ffn_dim)
    assert shapes[f"{last}.modulation"] == (1, 6, dim) and shapes["head.modulation"] == (1, 2, dim)
    assert shapes["patch_embedding.weight"] == (dim, z_dim, 1, 2, 2) and shapes["head.head.weight"] == (z_dim * 4, dim)
    assert shapes["text_embedding.0.weight"] == (dim, 4096) and shapes["time_projection.1.weight"] == (6 * dim, dim)
    assert f"blocks.{layers}.self_attn.q.weight" not in shapes and len(shapes) == len(state)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_reduced_pipeline_of_every_kind_generates_under_control(name: str, tmp_path: Path) -> None:
    """Real weights, saved and loaded by diffusers, both guidance passes, all experts; depth, width and text are cut."""
    config = WAN_CONFIGS[name]
    base = load_backbone("tiny-random", cache=tmp_path)
    parts = {**base.components, "vae": reduced_vae(name)}
    for seed, expert in enumerate(config.experts):
        parts[expert] = reduced_transformer(name, seed)
    made = WanPipeline(**parts, boundary_ratio=config.boundary_ratio, expand_timesteps=config.expand_timesteps)
    made.save_pretrained(tmp_path / "reduced")
    pipe = load_backbone(str(tmp_path / "reduced"))
    assert tuple(experts(pipe)) == config.experts
    assert pipe.config.boundary_ratio == config.boundary_ratio and pipe.config.expand_timesteps == config.expand_timesteps
    adapter = AdapterConfig(
        control=ControlConfig(axes=(axis_control("shutter"),), blocks=resolve_blocks("deepest_third", 3), embed_dim=16),
        lora=LoraSettings(rank=2),
    )
    adapters = {expert: scramble(attach(part, adapter)) for expert, part in experts(pipe).items()}
    controlled = ControlledWan.around(pipe, adapters)
    controlled.set_progress_bar_config(disable=True)
    side = 2 * pipe.vae_scale_factor_spatial
    call = {"height": side, "width": 2 * side, "num_frames": 5, "num_inference_steps": 3, "max_sequence_length": 8}

    def frames(shutter: str, **options: object) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return controlled("a ball", shutter=shutter, guidance_scale=3.0, generator=generator, **call, **options).frames

    sharp, blurred, bare = frames("1/400"), frames("1/16"), frames("1/16", strength=0.0)
    assert sharp.shape == (1, 5, side, 2 * side, 3) and np.isfinite(sharp).all()
    assert not np.array_equal(sharp, blurred) and not np.array_equal(blurred, bare)
    for part in adapters.values():
        part.detach()
    plain = pipe("a ball", guidance_scale=3.0, generator=torch.Generator().manual_seed(0), **call).frames
    assert np.array_equal(plain, bare)


def reduced_transformer(name: str, seed: int) -> WanTransformer3DModel:
    """Return a named configuration at a width of 32 and three blocks; channels, norms and patches stay."""
    config = dataclasses.replace(WAN_CONFIGS[name], num_attention_heads=2, attention_head_dim=16, ffn_dim=48, num_layers=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WanTransformer3DModel(**{**config.transformer_arguments(), "text_dim": 32, "freq_dim": 32}).eval()


def reduced_vae(name: str) -> AutoencoderKLWan:
    """Return a named configuration's autoencoder with few channels inside; latents, strides and kind stay."""
    config = dict(WAN_CONFIGS[name].vae)
    z_dim = config.get("z_dim", 16)
    config |= {"base_dim": 8, "num_res_blocks": 1, "latents_mean": [0.0] * z_dim, "latents_std": [1.0] * z_dim}
    if "decoder_base_dim" in config:
        config["decoder_base_dim"] = 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoencoderKLWan(**config).eval()
