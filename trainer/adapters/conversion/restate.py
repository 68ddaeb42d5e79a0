"""Changes what an adapter's scalar means without changing what it does: another neutral, another ratio, the other direction.

Where the old control is affine in the new one, that map folds into the embedding's first layer, which sees the controls
first; so an adapter of this project can be given to users of the method's code under their convention, and back.

Shapes: A axes, H hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from scenes.errors import InputError
from trainer.control.laws import AxisControl, Law, LogLaw, MiredLaw, NoLaw, StepLaw, axis_control
from trainer.formats.published import PUBLISHED_LAWS, published_axes

PRESETS = {
    "keep": "the scalar as it is",
    "stopdown": "c = +1 is the stronger effect: 1/80 s x 5^c, f/5.6 x 4^-c, 6500 K x 3.25^-c",
    "published": "as in the method's checkpoints, the other way round: 20 ms x 5^-c, 275 - 225 c mired",
}


def preset_axes(axes: Sequence[AxisControl], preset: str) -> tuple[AxisControl, ...]:
    """Return axes under the laws of a preset; raises InputError for an unknown one, and an axis it has no law for."""
    if preset not in PRESETS:
        raise InputError(f"preset '{preset}' is unknown; allowed are {', '.join(PRESETS)}")
    if preset == "keep":
        return tuple(axes)
    if preset == "stopdown":
        return tuple(axis_control(axis.name) for axis in axes)
    lawless = [axis.name for axis in axes if isinstance(PUBLISHED_LAWS.get(axis.name), NoLaw)]
    if lawless:
        raise InputError(f"no unit law is published for {lawless[0]}; use --preset keep")
    return published_axes([axis.name for axis in axes])


def restate(control: Mapping[str, Tensor], old: Sequence[AxisControl], new: Sequence[AxisControl]) -> dict[str, Tensor]:
    """Return a control adapter's weights for controls under the laws of `new`: the same picture at the same physical value.

    Raises InputError where a law is no affine function of the other (a logarithm against mired), or there is none.
    """
    weight_HA = control["embedding.lin1.weight"].double().clone()
    bias_H = control["embedding.lin1.bias"].double().clone()
    for column, (before, after) in enumerate(zip(old, new, strict=True)):
        slope, offset = _affine(before, after.law)
        bias_H += offset * weight_HA[:, column]
        weight_HA[:, column] *= slope
    return {
        **control,
        "embedding.lin1.weight": weight_HA.to(control["embedding.lin1.weight"].dtype),
        "embedding.lin1.bias": bias_H.to(control["embedding.lin1.bias"].dtype),
    }


def _affine(axis: AxisControl, new: Law) -> tuple[float, float]:
    """Return slope and offset of the old control as a function of the new one."""
    old = axis.law
    if old == new:
        return 1.0, 0.0
    if isinstance(old, LogLaw) and isinstance(new, LogLaw):
        per_old = math.log(old.ratio)
        return math.log(new.ratio) / per_old, math.log(new.neutral / old.neutral) / per_old
    if isinstance(old, StepLaw) and isinstance(new, StepLaw):
        return new.step / old.step, (new.neutral - old.neutral) / old.step
    if isinstance(old, MiredLaw) and isinstance(new, MiredLaw):
        return new.mired_per_control / old.mired_per_control, (new.neutral_mired - old.neutral_mired) / old.mired_per_control
    raise InputError(
        f"{axis.name} has a law of kind '{old.kind}', the preset one of kind '{new.kind}'; they are no straight line of each "
        "other, so that the weights cannot carry it: use --preset keep"
    )
