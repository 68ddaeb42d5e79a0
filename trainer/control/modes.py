"""The inference modes of DESIGN section 4: which parts of an adapter act, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from scenes.errors import InputError, closest
from trainer.control.config import AdapterConfig


class Mode(StrEnum):
    """How much of an adapter acts. `decoupled` drops the LoRA outside the conditioned blocks, so the backbone's look stays."""

    DECOUPLED = "decoupled"
    JOINT = "joint"
    CONTROL_ONLY = "control_only"
    LORA_ONLY = "lora_only"
    BACKBONE_ONLY = "backbone_only"


@dataclass(frozen=True, kw_only=True)
class ModeParts:
    """What a mode switches on: the control attention, and the LoRA nowhere, in the conditioned blocks, or in all."""

    control: bool
    lora: Literal["none", "conditioned", "all"]


PARTS: dict[Mode, ModeParts] = {
    Mode.DECOUPLED: ModeParts(control=True, lora="conditioned"),
    Mode.JOINT: ModeParts(control=True, lora="all"),
    Mode.CONTROL_ONLY: ModeParts(control=True, lora="none"),
    Mode.LORA_ONLY: ModeParts(control=False, lora="all"),
    Mode.BACKBONE_ONLY: ModeParts(control=False, lora="none"),
}


def default_mode(config: AdapterConfig) -> Mode:
    """Return the mode an adapter is meant for: `decoupled`, or the one of the only part that it has."""
    if config.control is None:
        return Mode.LORA_ONLY
    return Mode.CONTROL_ONLY if config.lora is None else Mode.DECOUPLED


def check_mode(mode: str, config: AdapterConfig) -> ModeParts:
    """Return a mode's parts; raises InputError for an unknown mode and for one that needs a part the adapter lacks."""
    if mode not in list(Mode):
        raise InputError(f"mode '{mode}' is unknown{closest(mode, list(Mode))}; allowed are {', '.join(Mode)}")
    parts = PARTS[Mode(mode)]
    lacks = []
    if parts.control and config.control is None:
        lacks.append("control adapter")
    if parts.lora != "none" and config.lora is None:
        lacks.append("LoRA")
    if lacks:
        raise InputError(f"mode '{mode}' needs a {' and a '.join(lacks)}, this adapter has none; use '{default_mode(config)}'")
    return parts
