"""Control adapters on diffusers' Wan. Importing this package needs torch; `trainer.requirements` says so if it is absent."""

from __future__ import annotations

from trainer.adapter.attach import CONTROLS, WanAdapter, attach
from trainer.adapter.config import AdapterConfig, ControlConfig, LoraSettings, resolve_blocks
from trainer.adapter.laws import AxisControl, LogLaw, MiredLaw, NoLaw, axis_control
from trainer.adapter.modes import Mode, default_mode

__all__ = [
    "CONTROLS",
    "AdapterConfig",
    "AxisControl",
    "ControlConfig",
    "LogLaw",
    "LoraSettings",
    "MiredLaw",
    "Mode",
    "NoLaw",
    "WanAdapter",
    "attach",
    "axis_control",
    "default_mode",
    "resolve_blocks",
]
