"""Averaged weights: an exponential moving average of what trains, in float32 beside it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def start_average(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return an average that begins at the parameters' values."""
    return {name: parameter.detach().to(torch.float32, copy=True) for name, parameter in parameters.items()}


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], decay: float, step: int) -> None:
    """Move the average towards the parameters after optimizer step number `step`, counted from 1.

    The decay is at most (1 + step) / (10 + step), so that the start is forgotten even in a short run.
    """
    used = min(decay, (1 + step) / (10 + step))
    for name, parameter in parameters.items():
        average[name].lerp_(parameter.detach().float(), 1 - used)
