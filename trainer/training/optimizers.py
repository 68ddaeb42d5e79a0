"""The optimizers by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer

from scenes.errors import InputError
from trainer.config.train import OptimizerSettings

Parameters = Sequence[nn.Parameter]


class MuonAdamW(Optimizer):
    """Muon for matrices and AdamW for the rest, as one group under one learning rate.

    Muon's steps are scaled to the root mean square of AdamW's (`match_rms_adamw`), so that a rate means the same to both. After
    Keller Jordan and others, "Muon: An optimizer for hidden layers" (2024), and Liu and others, "Muon is scalable for LLM
    training" (2025). Raises InputError for matrices that are spread over processes.
    """

    def __init__(self, parameters: Parameters, settings: OptimizerSettings) -> None:
        super().__init__(parameters, {"lr": settings.learning_rate})
        rate, decay = settings.learning_rate, settings.weight_decay
        matrices, others = self._parts()
        self._inner: list[tuple[Optimizer, int]] = []
        if matrices:
            self._inner.append((Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"), 0))
        if others:
            self._inner.append((AdamW(others, lr=rate, betas=settings.betas, weight_decay=decay), 1))

    def _parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return matrices, and the rest."""
        parameters = self.param_groups[0]["params"]
        if any(isinstance(parameter, DTensor) for parameter in parameters):
            raise InputError("optimizer.name = 'muon' needs whole matrices, and FSDP spreads them; use 'adamw', or no FSDP")
        return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Make one step."""
        parts = self._parts()
        for optimizer, place in self._inner:
            optimizer.state = self.state  # which load_state_dict replaces
            optimizer.param_groups[0].update(params=parts[place], lr=self.param_groups[0]["lr"])
            optimizer.step()


def _adamw(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=False
    )


def _adamw_fused(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )


def check_optimizer(settings: OptimizerSettings) -> None:
    """Raise InputError for an optimizer whose package is missing."""
    if settings.name == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "optimizer.name = 'adamw_8bit' needs bitsandbytes, which is not installed; pip install bitsandbytes, or use 'adamw'"
        )


def _adamw_8bit(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    check_optimizer(settings)
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
    "muon": MuonAdamW,
}


def make_optimizer(parameters: Parameters, settings: OptimizerSettings) -> Optimizer:
    """Return the optimizer of the settings' name; raises InputError if a package for it is missing."""
    return OPTIMIZERS[settings.name](parameters, settings)
