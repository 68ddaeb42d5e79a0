"""The method's published checkpoints: LoRA and control adapter in one file, and what their scalar means (DESIGN section 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scenes.errors import InputError
from trainer.control.config import AdapterConfig, ControlConfig, LoraSettings
from trainer.control.laws import AxisControl, Law, LogLaw, MiredLaw, NoLaw
from trainer.weights.key_names import inverse, lora_names
from trainer.weights.strict import check_exact, rename

PROCESSOR_TENSORS = {
    "k_fps_down.weight": "key_down.weight",
    "k_fps_up.weight": "key_up.weight",
    "norm_k_fps.weight": "key_norm.weight",
    "v_fps_down.weight": "value_down.weight",
    "v_fps_up.weight": "value_up.weight",
}
EMBEDDING_TENSORS = ("lin1.weight", "lin1.bias", "lin2.weight", "lin2.bias")
ADAPTED_BLOCK = re.compile(r"diffusion_model\.blocks\.(\d+)\.fps_adapter\.k_fps_down\.weight")
LORA_BLOCK = re.compile(r"diffusion_model\.blocks\.(\d+)\.self_attn\.q\.lora_A\.weight")
DEFAULT_ALPHA = 32.0  # of the method's checkpoints, whose files do not say

# What c means in the published checkpoints; it runs the other way round: their c = -1 is blurry, wide open, warm.
PUBLISHED_LAWS: dict[str, Law] = {
    "shutter": LogLaw(neutral=0.020, ratio=1 / 5),
    "temperature": MiredLaw(neutral_mired=275.0, mired_per_control=-225.0),
    "aperture": NoLaw(),  # no f-number is published for it
}


@dataclass(frozen=True, kw_only=True)
class PublishedAdapter:
    """A published checkpoint under this project's names: configuration, control weights and LoRA weights (peft's names)."""

    config: AdapterConfig
    control: dict[str, Tensor]
    lora: dict[str, Tensor]


def published_axes(names: Sequence[str]) -> tuple[AxisControl, ...]:
    """Return the axes of a published checkpoint under the published laws; raises InputError for an axis without one."""
    unknown = [name for name in names if name not in PUBLISHED_LAWS]
    if unknown:
        raise InputError(f"no published checkpoint controls '{unknown[0]}'; allowed are {', '.join(PUBLISHED_LAWS)}")
    return tuple(AxisControl(name=name, law=PUBLISHED_LAWS[name]) for name in names)


def read_published(
    weights: Mapping[str, Tensor], axes: Sequence[AxisControl], *, settings: Mapping[str, Any] | None = None, source: str
) -> PublishedAdapter:
    """Return a published checkpoint's configuration and weights.

    The file does not name its axes: `axes` does, in the order of the scalar's components. `settings` are the original
    settings where known (`fps_lora_alpha`, `fps_gate_fixed_value`, …); alpha is 32 otherwise, and only for rank 32. Raises
    InputError for missing, unexpected or misshapen tensors, another number of axes, and settings that have no equal here.
    """
    blocks = _indices(ADAPTED_BLOCK, weights)
    layers = _indices(LORA_BLOCK, weights)
    if not blocks:
        raise InputError(f"{source} has no tensor named like diffusion_model.blocks.0.fps_adapter.k_fps_down.weight")
    if layers and layers != tuple(range(len(layers))):
        raise InputError(f"{source} has LoRA in blocks {list(layers)}; it must be in all blocks from 0")
    table = control_names(blocks) | (lora_names(len(layers)) if layers else {})
    renamed = rename(source, table, weights)
    control = {name: renamed[name] for name in control_names(blocks).values()}
    lora = {name: tensor for name, tensor in renamed.items() if name not in control}
    config = AdapterConfig(
        control=_control_config(control, blocks, axes, settings or {}, source), lora=_lora_settings(lora, source)
    )
    return PublishedAdapter(config=config, control=control, lora=lora)


def write_published(config: AdapterConfig, control: Mapping[str, Tensor], lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an adapter's weights under the published names.

    Raises InputError for what that format cannot say: no control part, a learned gate, a LoRA alpha other than its rank.
    """
    if config.control is None:
        raise InputError("the published format holds a control adapter, this one has none; export it to ComfyUI's format")
    if config.control.gate != "fixed":
        raise InputError("the published format has no learned gate; train with gate = 'fixed' to export to it")
    if config.lora is not None and config.lora.alpha != config.lora.rank:
        raise InputError(
            f"the published format has no LoRA alpha: it must equal the rank {config.lora.rank}, not {config.lora.alpha:g}"
        )
    weights = rename("control adapter", inverse(control_names(config.control.blocks)), control)
    if config.lora is not None:
        weights |= rename("LoRA", inverse(lora_names(len(lora) // 20)), lora)
    return weights


def original_settings(config: ControlConfig) -> dict[str, Any]:
    """Return the original code's settings of a control adapter, as its checkpoints' users must give them."""
    count = len(config.axes)
    return {
        "fps_adapter_rank": config.rank,
        "fps_adapter_num_tokens": config.tokens,
        "fps_embed_dim": config.embed_dim,
        "fps_condition_hidden": config.hidden_dim,
        "fps_lora_alpha": config.alpha,
        "fps_gate_mode": "fixed",
        "fps_gate_fixed_value": config.gate_value,
        "fps_tau_transform": "raw" if count == 1 else ["raw"] * count,
        "fps_tau_scale": 1.0 if count == 1 else [1.0] * count,
    }


def control_names(blocks: Sequence[int]) -> dict[str, str]:
    """Return published name → this project's name for every tensor of a control adapter on these blocks."""
    names = {f"diffusion_model.fps_conditioning.{name}": f"embedding.{name}" for name in EMBEDDING_TENSORS}
    for block in blocks:
        names |= {
            f"diffusion_model.blocks.{block}.fps_adapter.{old}": f"blocks.{block}.{new}"
            for old, new in PROCESSOR_TENSORS.items()
        }
    return names


def _indices(pattern: re.Pattern[str], names: Mapping[str, Tensor]) -> tuple[int, ...]:
    return tuple(sorted(int(match[1]) for match in map(pattern.fullmatch, names) if match is not None))


def _control_config(
    control: Mapping[str, Tensor],
    blocks: tuple[int, ...],
    axes: Sequence[AxisControl],
    settings: Mapping[str, Any],
    source: str,
) -> ControlConfig:
    """Read the sizes off the tensors, the rest off the settings."""
    first = control[f"blocks.{blocks[0]}.key_down.weight"]
    width = control[f"blocks.{blocks[0]}.key_norm.weight"].shape[0]
    rank, embed_dim = first.shape
    hidden_dim, count = control["embedding.lin1.weight"].shape
    tokens = control[f"blocks.{blocks[0]}.key_up.weight"].shape[0] // width
    if count != len(axes):
        raise InputError(
            f"{source} controls {count} axes, {len(axes)} were named ({', '.join(a.name for a in axes)}); name each once"
        )
    _check_settings(settings, count, source)
    if "fps_lora_alpha" not in settings and rank != DEFAULT_ALPHA:
        raise InputError(
            f"{source} does not say its alpha and has rank {rank}, not 32; give --alpha or its TOML (fps_lora_alpha)"
        )
    config = ControlConfig(
        axes=tuple(axes),
        blocks=blocks,
        rank=rank,
        alpha=float(settings.get("fps_lora_alpha", DEFAULT_ALPHA)),
        tokens=tokens,
        embed_dim=embed_dim,
        hidden_dim=hidden_dim,
        gate_value=float(settings.get("fps_gate_fixed_value", 0.5)),
    )
    check_exact(source, control_shapes(config, width), control)
    return config


def _check_settings(settings: Mapping[str, Any], count: int, source: str) -> None:
    """Refuse what the original code can do and this adapter cannot."""
    if settings.get("fps_gate_mode", "fixed") != "fixed":
        raise InputError(f"{source} has gate mode '{settings['fps_gate_mode']}'; only 'fixed' is supported")
    if settings.get("fps_scale", False):
        raise InputError(f"{source} was trained with fps_scale, which is not supported")
    for key, neutral in (("fps_tau_transform", "raw"), ("fps_tau_scale", 1.0)):
        given = settings.get(key, neutral)
        if any(item != neutral for item in (given if isinstance(given, list) else [given])):
            raise InputError(f"{source} has {key} = {given}; only {neutral} is supported, for each of its {count} axes")


def _lora_settings(lora: Mapping[str, Tensor], source: str) -> LoraSettings | None:
    if not lora:
        return None
    ranks = {tensor.shape[0] for name, tensor in lora.items() if name.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise InputError(f"{source} has LoRA of ranks {sorted(ranks)}; one rank is supported")
    rank = ranks.pop()
    return LoraSettings(rank=rank, alpha=float(rank))


def control_shapes(config: ControlConfig, width: int) -> dict[str, tuple[int, ...]]:
    """Return name → shape of every tensor of `control_adapter.safetensors` for a model width."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.lin1.weight": (config.hidden_dim, len(config.axes)),
        "embedding.lin1.bias": (config.hidden_dim,),
        "embedding.lin2.weight": (config.embed_dim, config.hidden_dim),
        "embedding.lin2.bias": (config.embed_dim,),
    }
    for block in config.blocks:
        for part in ("key", "value"):
            shapes[f"blocks.{block}.{part}_down.weight"] = (config.rank, config.embed_dim)
            shapes[f"blocks.{block}.{part}_up.weight"] = (config.tokens * width, config.rank)
        shapes[f"blocks.{block}.key_norm.weight"] = (width,)
        if config.gate == "learned":
            shapes[f"blocks.{block}.gate.value"] = ()
    return shapes
