"""`control.json`: what an adapter is and where it comes from; and the model card that people read."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, NonNegativeInt, ValidationError

from scenes.errors import InputError
from trainer.adapter.config import AdapterConfig
from trainer.adapter.laws import FROZEN

CARD = "control.json"
PACKAGES = ("stopdown", "torch", "diffusers", "peft", "transformers")


class BackboneId(BaseModel):
    """The backbone an adapter was trained on: how it was named, and a fingerprint per adapted transformer."""

    model_config = FROZEN

    id: str
    fingerprints: dict[str, str]


class AdapterCard(BaseModel):
    """Everything about an adapter but its weights."""

    model_config = FROZEN

    format: Literal[1] = 1
    config: AdapterConfig
    backbone: BackboneId
    dataset_version: str | None
    recipe: dict[str, Any] | None
    step: NonNegativeInt
    versions: dict[str, str]


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that an adapter's numbers depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def read_card(folder: Path) -> AdapterCard:
    """Read a folder's `control.json`; raises InputError if the folder is no adapter or the file is not as it should be."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(
            f"adapter {folder} {'has no ' + CARD if folder.is_dir() else 'does not exist'}; give an adapter's folder"
        )
    try:
        return AdapterCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"{path}: {where}: {first['msg']}; restore the file that the trainer wrote") from error


def model_card(card: AdapterCard) -> str:
    """Return the README of an adapter, with the metadata that the hub reads."""
    return "\n".join([*_metadata(card), "", *_description(card), "", *_usage(card), ""])


def _metadata(card: AdapterCard) -> list[str]:
    lines = ["---", "library_name: diffusers", "pipeline_tag: text-to-video", "tags: [stopdown, lora, camera-control]"]
    if not Path(card.backbone.id).is_absolute():
        lines.append(f"base_model: {card.backbone.id}")
    return [*lines, "---"]


def _description(card: AdapterCard) -> list[str]:
    control, lora = card.config.control, card.config.lora
    lines = [f"# Stopdown adapter for {Path(card.backbone.id).name}", ""]
    if control is not None:
        lines += ["| axis | c = −1 | c = 0 | c = +1 |", "|---|---|---|---|"]
        lines += [f"| {axis.name} | {' | '.join(axis.format(c) for c in (-1.0, 0.0, 1.0))} |" for axis in control.axes]
        blocks = ", ".join(map(str, control.blocks))
        gate = f"gate {control.gate} ({control.gate_value:g})"
        lines += ["", f"Control attention in blocks {blocks}, rank {control.rank}, alpha {control.alpha:g}, {gate}."]
    if lora is not None:
        lines.append(f"LoRA on every projection of every block, rank {lora.rank}, alpha {lora.alpha:g}.")
    lines += ["", f"- Trained for {card.step} steps on dataset version {card.dataset_version or '(none recorded)'}."]
    lines += [f"- Backbone fingerprint of {name}: {digest}." for name, digest in card.backbone.fingerprints.items()]
    lines.append(f"- Made with {', '.join(f'{name} {version}' for name, version in card.versions.items())}.")
    return lines


def _usage(card: AdapterCard) -> list[str]:
    example = ""
    if card.config.control is not None:
        first = card.config.control.axes[0]
        written = first.format(0.5)
        example = f', {first.name}="{written}"' if not written.startswith("c = ") else ", control=0.5"
    return [
        "```python",
        "from trainer.pipeline import ControlledWan",
        "",
        f'pipe = ControlledWan.from_pretrained("{card.backbone.id}", "path/to/this/folder")',
        f'video = pipe("a ball rolls past"{example}).frames[0]',
        "```",
        "",
        "The LoRA alone loads in diffusers (`pipe.load_lora_weights`).",
    ]
