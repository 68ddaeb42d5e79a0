"""The optimizers by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from scenes.errors import InputError
from trainer.settings import OptimizerSettings

Parameters = Sequence[nn.Parameter]


def _adamw(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=False
    )


def _adamw_fused(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def _adamw_8bit(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "optimizer.name = 'adamw_8bit' needs bitsandbytes, which is not installed; pip install bitsandbytes, or use 'adamw'"
        )
    import bitsandbytes  # slow to import and optional

    return bitsandbytes.optim.AdamW8bit(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )


def _adafactor(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.Adafactor(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[Parameters, OptimizerSettings], Optimizer]] = {
    "adamw": _adamw,
    "adamw_fused": _adamw_fused,
    "adamw_8bit": _adamw_8bit,
    "adafactor": _adafactor,
}


def make_optimizer(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    """Return the optimizer of the settings' name; raises InputError if a package for it is missing."""
    return OPTIMIZERS[settings.name](parameters, settings)
