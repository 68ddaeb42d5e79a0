"""Tensors that FSDP2 spreads over processes: put together for a file, and cut up again. Others pass through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together; all processes must call it for a sharded one. It may have any shape `[...]`."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(value: Any, model: Tensor) -> Any:
    """Return a tensor of `model`'s shape `[...]` spread as `model` is and in its order in memory; anything else as it is.

    Fused optimizers go through memory and would pair other elements where the orders differ.
    """
    if not isinstance(value, Tensor) or value.shape != model.shape:
        return value
    if isinstance(model, DTensor):
        return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
    return value if value.stride() == model.stride() else torch.empty_like(model, dtype=value.dtype).copy_(value)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Hold a sharded module whole on every process, all of which must enter; others are whole already."""
    shards = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in shards:
        part.unshard()
    try:
        yield
    finally:
        for part in shards:
            part.reshard()
