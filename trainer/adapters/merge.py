"""Folds an adapter's LoRA into the backbone's weights: an ordinary WanPipeline again, and a control-only adapter for it.

OUT/model_index.json, transformer/ …      the merged backbone, with the parts of the original
OUT/README.md                             what was merged
OUT/adapter/                              control attention alone, which belongs to the merged backbone

Merging two adapters into one is left out: the first layer of an embedding mixes its axes, and the two LoRAs were trained
against different control attention, so that no sum of the weights gives what either did.

Shapes: O output width, I input width.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import WanPipeline
from peft.tuners.lora import LoraLayer

from generator.io.atomic import share
from generator.io.scratch import scratch_folder
from scenes.errors import InputError
from trainer.adapters.card import AdapterCard
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.hub import repository
from trainer.backbones.load import MERGED, experts, fingerprint, forget_written
from trainer.control.attach import WanAdapter, attach
from trainer.control.config import AdapterConfig
from trainer.control.lora import LORA_NAME, block_of, lora_layers
from trainer.control.modes import check_mode, default_mode

ADAPTER = "adapter"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge left: the backbone's folder, the control-only adapter's (if there is control), projections changed."""

    backbone: Path
    adapter: Path | None
    projections: int
    blocks: tuple[int, ...]
    mode: str
    strength: float


def merge(
    pipe: WanPipeline,
    saved: SavedAdapter,
    out: Path,
    *,
    backbone: str,
    mode: str | None = None,
    strength: float = 1.0,
    allow_other_backbone: bool = False,
) -> Merged:
    """Fold an adapter's LoRA into a bare, unpacked pipeline and save it to a new folder; the pipeline is changed.

    `mode` decides where, as at inference: `decoupled` in the conditioned blocks, `joint` and `lora_only` in all. With the
    control-only adapter at the same strength, the merged backbone gives what the unmerged one gave. Raises InputError for a
    folder that exists, an adapter without LoRA or of another backbone, and a mode that merges nothing.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} exists; give a new folder")
    card = saved.card
    chosen = mode if mode is not None else default_mode(card.config)
    parts = check_mode(chosen, card.config)
    if parts.lora == "none" or strength == 0:
        raise InputError(f"mode '{chosen}' at strength {strength:g} has no LoRA to merge; use decoupled, joint or lora_only")
    adapters = attach_saved(experts(pipe), saved, allow_other_backbone=allow_other_backbone, dtype=torch.float32)
    changed: list[str] = []
    kept: dict[str, WanAdapter] = {}
    for name, adapter in adapters.items():
        adapter.set_mode(chosen, strength)
        before = fingerprint(adapter.transformer)
        forget_written(adapter.transformer)  # what is saved has the values in memory
        changed += fold(adapter, all_blocks=parts.lora == "all")
        identity = f"{before} {saved.digest} {chosen} {strength!r}"
        adapter.transformer.register_to_config(**{MERGED: hashlib.sha256(identity.encode()).hexdigest()})
        weights = {key: parameter.detach().clone() for key, parameter in adapter.control_parameters().items()}
        adapter.detach()
        if parts.control:
            config = AdapterConfig(control=card.config.control, lora=None)
            kept[name] = attach(adapter.transformer, config, dtype=torch.float32)
            kept[name].load(weights, {}, str(saved.folder))
    blocks = tuple(sorted({block_of(name) for name in changed}))
    facts = {"adapter": saved.digest, "backbone": backbone, "mode": str(chosen), "strength": strength}
    recipe = {**(card.recipe or {}), "merged": {**facts, "blocks": list(blocks)}}
    _save(pipe, kept, card, recipe, out, backbone)
    return Merged(
        backbone=out,
        adapter=out / ADAPTER if kept else None,
        projections=len(changed),
        blocks=blocks,
        mode=str(chosen),
        strength=strength,
    )


@torch.no_grad()
def fold(adapter: WanAdapter, *, all_blocks: bool) -> list[str]:
    """Add the LoRA at its present scale to the projections under it, in float32; returns the names of those changed."""
    conditioned = adapter.config.control.blocks if adapter.config.control is not None else ()
    changed = []
    for name, layer in lora_layers(adapter.transformer):
        if all_blocks or block_of(name) in conditioned:
            _add(layer)
            changed.append(name)
    return changed


def _add(layer: LoraLayer) -> None:
    base = layer.get_base_layer()
    if type(base) is not torch.nn.Linear or not base.weight.is_floating_point():
        raise InputError("this backbone's weights are packed; load it without quantization to merge")
    up_OR, down_RI = layer.lora_B[LORA_NAME].weight, layer.lora_A[LORA_NAME].weight
    added_OI = layer.scaling[LORA_NAME] * (up_OR.float() @ down_RI.float())
    base.weight.copy_((base.weight.float() + added_OI).to(base.weight.dtype))


def _save(
    pipe: WanPipeline, kept: Mapping[str, WanAdapter], card: AdapterCard, recipe: dict[str, object], out: Path, backbone: str
) -> None:
    """Write backbone and adapter beside the target, then move them there whole."""
    with scratch_folder(out) as scratch:
        if kept:
            save_adapter(
                scratch / ADAPTER,
                kept,
                backbone_id=str(out.resolve()),
                step=card.step,
                dataset_version=card.dataset_version,
                recipe=recipe,
            )
            for adapter in kept.values():
                adapter.detach()
        pipe.save_pretrained(scratch)
        (scratch / "README.md").write_text(merged_card(card, recipe, bool(kept), backbone))
        share(scratch)
        scratch.rename(out)


def merged_card(card: AdapterCard, recipe: Mapping[str, object], has_control: bool, backbone: str) -> str:
    """Return the README of a merged backbone."""
    facts = recipe["merged"]
    assert isinstance(facts, dict)
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-video"]
    if not Path(backbone).is_absolute():
        lines.append(f"base_model: {repository(backbone)}")
    blocks = facts["blocks"]
    lines += [
        "---",
        f"# {Path(repository(backbone)).name} with a Stopdown LoRA merged",
        "",
        f"- Merged into blocks {', '.join(map(str, blocks))} (mode `{facts['mode']}`, strength {facts['strength']:g}).",
        f"- The adapter was trained for {card.step} steps on dataset version {card.dataset_version or '(none recorded)'}.",
        f"- sha256 of the adapter: {facts['adapter']}.",
        f"- Backbone before: {backbone}.",
    ]
    if has_control:
        lines += ["", f"`{ADAPTER}/` holds the control attention, which is not merged and belongs to this backbone:", ""]
        lines += ["```", f'stopdown generate --backbone . --adapter {ADAPTER} --prompt "a ball rolls past"', "```"]
    return "\n".join([*lines, ""])
