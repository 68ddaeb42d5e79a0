"""How a control is written for a trainer that reads it as a bare number: named presets of sign and scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scenes.axes import AXES
from scenes.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ControlPreset:
    """`scalar` takes axis, physical value and Stopdown's control, and returns the number that the trainer shall see."""

    summary: str
    scalar: Callable[[str, float, float], float]


def _own(axis: str, value: float, control: float) -> float:
    return control


def _less_is_more(axis: str, value: float, control: float) -> float:
    """Return the scalar of the published checkpoints of arXiv 2511.17844, whose -1 is blurry, wide open and warm.

    exposure = 20 ms * 5 ** -c, mired = 275 - 225 * c (DESIGN section 4). The aperture's scale was not published: Stopdown's
    default law is used, with their sign.
    """
    if axis == "shutter":
        return -math.log(value / 0.020) / math.log(5.0)
    if axis == "temperature":
        return (275.0 - 1e6 / value) / 225.0
    if axis == "aperture":
        return -AXES["aperture"].default_law.control(value)
    raise InputError(f"the preset less-is-more has no scale for the axis '{axis}'; it knows shutter, aperture, temperature")


CONTROL_PRESETS: Mapping[str, ControlPreset] = MappingProxyType(
    {
        "stopdown": ControlPreset(summary="c as labelled: -1 sharp, deep, cool; +1 blurry, shallow, warm", scalar=_own),
        "less-is-more": ControlPreset(
            summary="the published checkpoints' scalar: -1 blurry, shallow, warm; +1 sharp, deep, cool", scalar=_less_is_more
        ),
    }
)


def written(scalar: float) -> str:
    """Return a scalar as a folder name that `float` reads: six decimals, no exponent, no negative zero."""
    text = f"{scalar:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
