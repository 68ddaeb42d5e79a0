"""What the page asks for: values as written, and the points that they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scenes.errors import InputError
from trainer.control.laws import AxisControl, NoLaw
from trainer.generation.values import controls_of, plain_controls

REACH = 1.5  # of the sliders; a box beside one takes more
FURTHEST = 10.0  # beyond, no law means anything: 10 is 23 stops of shutter
SWEEP_COUNTS = (3, 5, 7, 9)  # odd, so that c = 0 is among them
PLAIN = re.compile(r"\s*c\s*=(.*)", re.DOTALL)
NEUTRAL = 1e-9  # a control this near 0 is the reference

Point = dict[str, float]  # axis -> control


@dataclass(frozen=True, kw_only=True)
class Form:
    """One request of the page; `controls` has every axis of the adapter."""

    prompt: str
    negative: str
    seed: int
    mode: str
    strength: float
    steps: int
    guidance: float
    controls: Mapping[str, float]


def slider_ends(axis: AxisControl) -> tuple[float, float]:
    """Return the controls between which an axis's slider moves: `REACH` either way, less where its law ends before."""
    return -_end(axis, -1), _end(axis, 1)


def control_of(axis: AxisControl, written: str) -> float:
    """Return the control of one value in an axis's unit (`1/50`), or written plainly (`c = 0.3`).

    Raises InputError for what is no value, several values, and a control beyond `FURTHEST`.
    """
    plain = PLAIN.fullmatch(written)
    if isinstance(axis.law, NoLaw) or plain is not None:
        found = plain_controls(axis, plain[1] if plain is not None else written)
    else:
        found = controls_of(axis, written)
    if len(found) != 1:
        raise InputError(f"'{written}' is {len(found)} values of {axis.name}; write one, the sweep button makes several")
    if not abs(found[0]) <= FURTHEST:
        raise InputError(f"{axis.name} '{written}' is control {found[0]:.3g}; come nearer, -{FURTHEST:g} to {FURTHEST:g}")
    axis.format(found[0])  # a law that ends before says so here
    return found[0] if abs(found[0]) > NEUTRAL else 0.0


def whole(name: str, given: Any, low: int, high: int) -> int:
    """Return a whole number of the page between two; raises InputError for an empty field and for anything else."""
    number = finite(name, given)
    if number != math.floor(number) or not low <= number <= high:
        raise InputError(f"{name} {number:g} cannot be; give a whole number from {low} to {high}")
    return int(number)


def finite(name: str, given: Any) -> float:
    """Return a number of the page; raises InputError for an empty field and for what is no finite number."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise InputError(f"{name} is {'empty' if given in (None, '') else repr(given)}; give a number")
    return given


def single_points(axes: Sequence[AxisControl], controls: Mapping[str, float], *, compare: bool) -> tuple[Point, ...]:
    """Return the point asked for and, to compare, the same with each axis in turn at c = 0; none twice."""
    asked = {axis.name: controls[axis.name] for axis in axes}
    others = [{**asked, axis.name: 0.0} for axis in axes] if compare else []
    return _distinct([asked, *others])


def sweep_points(
    axes: Sequence[AxisControl], controls: Mapping[str, float], axis: AxisControl, count: int
) -> tuple[Point, ...]:
    """Return `count` points evenly spaced over the trained range of one axis, the others as asked for.

    Raises InputError for a number of values that is not offered.
    """
    if count not in SWEEP_COUNTS:
        raise InputError(f"a sweep of {count} cannot be; give {', '.join(map(str, SWEEP_COUNTS))}")
    asked = {one.name: controls[one.name] for one in axes}
    return tuple({**asked, axis.name: control} for control in plain_controls(axis, f"-1..1:{count}"))


def beyond_trained(axes: Sequence[AxisControl], controls: Mapping[str, float]) -> str:
    """Return which values lie outside the trained range, as words; empty where none does."""
    far = [axis for axis in axes if abs(controls[axis.name]) > 1 + NEUTRAL]
    words = [f"{axis.name} {axis.format(controls[axis.name])} (trained {trained(axis)})" for axis in far]
    return f"beyond the trained range: {', '.join(words)}" if words else ""


def trained(axis: AxisControl) -> str:
    """Return the trained range of an axis in units."""
    return f"{axis.format(-1.0)} to {axis.format(1.0)}"


def _end(axis: AxisControl, sign: int) -> float:
    """Return how far an axis's law reaches on one side, up to `REACH` by tenths."""
    for tenths in range(round(REACH * 10), 10, -1):
        try:
            axis.format(sign * tenths / 10)
        except InputError:
            continue
        return tenths / 10
    return 1.0


def _distinct(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(point for at, point in enumerate(points) if point not in points[:at])
