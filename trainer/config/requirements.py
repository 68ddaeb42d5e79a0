"""Says which extra is missing where a machine has no torch; imports nothing heavy itself."""

from __future__ import annotations

import importlib.util

from scenes.errors import InputError

NEEDED = ("torch", "diffusers", "peft", "transformers", "accelerate", "safetensors")


def require_training_stack() -> None:
    """Raise InputError naming what is not installed of torch, diffusers, peft, transformers, accelerate and safetensors."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not installed; training and generation need the extra 'train': pip install 'stopdown[train]'"
        )
