"""A micro-batch, as every task hands it to the training loop.

Shapes: B the clips of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The clips of one micro-batch: their ids, and their tensors by name, each with a first dimension of B, on the CPU."""

    clip_ids: tuple[str, ...]
    tensors: Mapping[str, Tensor]
