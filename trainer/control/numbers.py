"""What counts as a number where a person gives one: Python's own, numpy's scalars, 0-d arrays and tensors; True is none."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from scenes.errors import InputError


def is_number(value: Any) -> bool:
    """Return whether a value is one number."""
    torch = sys.modules.get("torch")  # who gives a tensor has loaded it
    if torch is not None and isinstance(value, torch.Tensor):
        return value.ndim == 0 and value.dtype != torch.bool and not value.is_complex()
    if isinstance(value, np.ndarray | np.generic):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max  # a larger one is no float
    return isinstance(value, float)


def finite_number(value: Any, name: str) -> float:
    """Return a number as a float; raises InputError naming what it is of for anything else."""
    if not is_number(value) or not math.isfinite(float(value)):
        raise InputError(f"control {value!r} of {name} is not a number; give a finite one, trained were -1 to 1")
    return float(value)
