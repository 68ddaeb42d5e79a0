"""The control method on diffusers' Wan: control tokens beside the text, LoRA, inference modes, laws in units.

Importing this package needs torch; `trainer.config.requirements` says so if it is absent.
Not here: its loss and sampling loop (`trainer/methods/control/`), saved adapters (`trainer/adapters/`), `trainer/pipelines/`.
"""

from __future__ import annotations

from trainer.control.attach import CONTROLS, WanAdapter, attach
from trainer.control.config import AdapterConfig, ControlConfig, LoraSettings, resolve_blocks
from trainer.control.laws import AxisControl, LogLaw, MiredLaw, NoLaw, StepLaw, axis_control
from trainer.control.modes import Mode, default_mode

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
    "StepLaw",
    "WanAdapter",
    "attach",
    "axis_control",
    "default_mode",
    "resolve_blocks",
]
