"""What there is to say of an adapter, as a tree that a command prints or gives to machines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scenes.errors import InputError
from trainer.adapters.conversion.convert import written_axes
from trainer.adapters.conversion.sources import (
    AXES_KEY,
    EMBEDDING,
    AdapterFormat,
    format_of,
    is_whole,
    malformed,
    read_file,
    read_source,
)
from trainer.adapters.saved import SavedAdapter
from trainer.control.config import AdapterConfig
from trainer.control.modes import default_mode
from trainer.formats.foreign_lora import read_lora
from trainer.formats.published import LORA_BLOCK


def describe(path: Path, axes: Sequence[str] | None = None, alpha: float | None = None) -> dict[str, Any]:
    """Return what a folder or file says of itself, weights checked; raises InputError as `read_source` does.

    A published file that does not name its axes, and for which none are named, is described without them.
    """
    if path.is_dir():
        return _folder(path)
    weights, metadata = read_file(path)
    if EMBEDDING not in weights and not is_whole(path):
        return _other_lora(path)
    kind = format_of(weights, path)
    tree: dict[str, Any] = {"adapter": str(path), "format": str(kind)}
    try:
        source = read_source(path, axes=axes, alpha=alpha)
        tree |= {**_config(source.config), "axes": _axes(source.config)}
    except InputError:
        if kind is not AdapterFormat.PUBLISHED or axes is not None or AXES_KEY in metadata:
            raise
        with malformed(path):
            count = weights[EMBEDDING].shape[1]
        tree |= {
            "axes": [],
            "controls": f"{count} axes, which the file does not name; give --axes",
            "lora_blocks": sum(LORA_BLOCK.fullmatch(name) is not None for name in weights) or None,
        }
    return tree | {"parameters": _parameters(weights), "bytes": {path.name: path.stat().st_size}}


def _other_lora(path: Path) -> dict[str, Any]:
    """Return what a LoRA says that is none of this project's formats: `stopdown generate --lora` takes it as it is."""
    lora = read_lora(path)
    ranks = sorted({module.down.shape[0] for module in lora.modules.values()})
    alphas = sorted({module.alpha for module in lora.modules.values()})
    kinds = Counter(re.sub(r"^blocks\.\d+\.", "", name) for name in lora.modules)
    return {
        "adapter": str(path),
        "format": "a LoRA of another program, for stopdown generate --lora or adapter convert",
        "lora_rank": ranks[0] if len(ranks) == 1 else ranks,
        "lora_alpha": alphas[0] if len(alphas) == 1 else alphas[:8],
        "projections": dict(kinds),
        "notes": "; ".join(lora.notes) or None,
        "axes": [],
        "parameters": sum(module.down.numel() + module.up.numel() for module in lora.modules.values()),
        "bytes": {path.name: path.stat().st_size},
    }


def _folder(path: Path) -> dict[str, Any]:
    saved = SavedAdapter.open(path)
    card, parts = saved.card, saved.weights().values()
    merged = (card.recipe or {}).get("merged")
    return {
        "adapter": str(path),
        "format": str(AdapterFormat.DIFFUSERS),
        "sha256": saved.digest,
        "hashes": "no hashes, not verified" if card.weights is None else f"{len(card.weights)} weight files, verified",
        "backbone": card.backbone.id,
        "fingerprints": card.backbone.fingerprints,
        **_config(card.config),
        "axes": _axes(card.config),
        "step": card.step,
        "dataset_version": card.dataset_version,
        "merged": merged if isinstance(merged, Mapping) else None,
        "parameters": {
            "control": sum(_parameters(part.control) for part in parts),
            "lora": sum(_parameters(part.lora) for part in parts),
        },
        "bytes": {file.relative_to(path).as_posix(): file.stat().st_size for file in sorted(path.rglob("*.safetensors"))},
        "versions": card.versions,
    }


def _config(config: AdapterConfig) -> dict[str, Any]:
    control, lora = config.control, config.lora
    tree: dict[str, Any] = {"default_mode": str(default_mode(config))}
    if control is not None:
        tree |= {
            "conditioned_blocks": list(control.blocks),
            "control_rank": control.rank,
            "control_alpha": control.alpha,
            "control_tokens": control.tokens,
            "gate": f"{control.gate} {control.gate_value:g}",
        }
    return tree | ({"lora_rank": lora.rank, "lora_alpha": lora.alpha} if lora is not None else {})


def _axes(config: AdapterConfig) -> list[dict[str, str]]:
    return written_axes(config.control.axes) if config.control is not None else []


def _parameters(weights: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in weights.values())
