"""Parameters put in the place of a module's own while something is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scenes.errors import StopdownError


@contextmanager
def swapped(parameters: Mapping[str, nn.Parameter], averaged: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Give parameters the averaged values, where there are such, and their own back afterwards, bit for bit.

    Raises StopdownError where the averaged weights are not those that train.
    """
    if averaged is None:
        yield
        return
    if set(averaged) != set(parameters):
        stranger = min(set(averaged) ^ set(parameters))
        raise StopdownError(f"the averaged weights are not those that train; first difference: {stranger}")
    own = {name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()}
    try:
        _copy(parameters, averaged)
        yield
    finally:
        _copy(parameters, own)


@torch.no_grad()
def _copy(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
