"""Values of an axis as people write them: one, a list, a sweep, a curve.

`1/50` is one value, `1/400,1/80,1/16` a list, `1/400..1/16:7` seven values evenly spaced in control, that is in the logarithm
of the value. `f/8@0s f/1.4@0.5s` is a curve: a value that changes over the video (`trainer.control.curve`). `--control` takes
the same with normalised scalars: `0.7`, `shutter=-1..1:5`, `shutter=-1@0s 1@0.5s`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from scenes.axes import AXES
from scenes.errors import InputError
from trainer.control.curve import Control, furthest, is_curve, parse_curve
from trainer.control.laws import AxisControl, NoLaw

MOST_VALUES = 1000  # of one sweep; more is a slip of the finger


def controls_of(axis: AxisControl, written: str) -> tuple[float, ...]:
    """Return the controls of values, lists and sweeps written in an axis's unit, in the order written.

    Raises InputError for what the axis cannot parse (naming the axis whose unit it is, if another's), and for a sweep that is
    no START..END:COUNT.
    """
    return _parsed(axis, written, lambda text: _in_units(axis, text))


def plain_controls(axis: AxisControl, written: str) -> tuple[float, ...]:
    """Return the controls of normalised scalars, lists and sweeps of them; raises InputError as `controls_of` does."""
    return _parsed(axis, written, lambda text: _number(axis, text))


def given_controls(
    axes: Sequence[AxisControl],
    values: Mapping[str, str],
    control: Sequence[str] = (),
    *,
    limit: float | None = None,
    source: str = "this adapter",
) -> dict[str, tuple[Control, ...]]:
    """Return the controls and curves per axis, in the order of `axes`, of values in units and of `--control` words.

    Words are `0.7` or `shutter=0.7`. An axis that nothing was given for is absent. Raises InputError for an axis that is not
    among `axes`, one given twice, what cannot be parsed, and a control beyond `limit` (none by default).
    """
    by_name = {axis.name: axis for axis in axes}
    found: dict[str, tuple[Control, ...]] = {}
    words = [(name, text, _in_units) for name, text in values.items()]
    words += [(*_named(word, axes, source), _number) for word in control]
    for name, text, parse in words:
        if name not in by_name:
            raise InputError(f"{source} does not control '{name}'; it controls {', '.join(by_name) or 'nothing'}")
        if name in found:
            raise InputError(f"{name} was given twice; write all its values as one list, such as {_example(by_name[name])}")
        found[name] = _with_curves(by_name[name], text, parse)
        for one in found[name]:
            check_limit(by_name[name], furthest(one), limit)
    return {name: found[name] for name in by_name if name in found}


def check_limit(axis: AxisControl, control: float, limit: float | None) -> None:
    """Raise InputError for a control beyond `limit` either way."""
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise InputError(f"limit {limit:g} is no bound; give a number above 0, 1 for the trained range")
    if limit is not None and abs(control) > limit:
        ends = " to ".join(axis.format(end) for end in (-limit, limit))
        raise InputError(
            f"{axis.name} {axis.format(control)} is control {control:.3g}, beyond the limit {limit:g} ({ends}); "
            "come nearer, or raise --limit"
        )


def _parsed(axis: AxisControl, written: str, one: Callable[[str], float]) -> tuple[float, ...]:
    parts = [part.strip() for part in written.split(",")]
    if not all(parts):
        raise InputError(f"'{written}' is no list of {axis.name} values; write it like {_example(axis)}")
    return tuple(control for part in parts for control in (_sweep(axis, part, one) if ".." in part else (one(part),)))


def _with_curves(axis: AxisControl, written: str, one: Callable[[AxisControl, str], float]) -> tuple[Control, ...]:
    """Return the controls of a list of values, sweeps and curves."""

    def read(text: str) -> float:
        return one(axis, text)

    if not is_curve(written):
        return _parsed(axis, written, read)
    parts = [part.strip() for part in written.split(",")]
    several = [[parse_curve(part, read, axis.name)] if is_curve(part) else _parsed(axis, part, read) for part in parts]
    return tuple(control for some in several for control in some)


def _sweep(axis: AxisControl, written: str, one: Callable[[str], float]) -> tuple[float, ...]:
    ends, colon, count_text = written.rpartition(":")
    start, _, end = (ends if colon else written).partition("..")
    right = f"write START..END:COUNT, such as {_example(axis, sweep=True)}"
    if not colon or not start.strip() or not end.strip() or ".." in end:
        raise InputError(f"'{written}' is no sweep of {axis.name}; {right}")
    if not count_text.strip().isdigit() or not 2 <= int(count_text) <= MOST_VALUES:
        raise InputError(f"sweep '{written}' of {axis.name} has count '{count_text}', allowed is 2 to {MOST_VALUES}; {right}")
    first, last, count = one(start.strip()), one(end.strip()), int(count_text)
    return (*(first + (last - first) * step / (count - 1) for step in range(count - 1)), last)


def _in_units(axis: AxisControl, text: str) -> float:
    try:
        return axis.control(text)
    except InputError as error:
        others = [name for name in AXES if name != axis.name and _parses(name, text)]
        if isinstance(axis.law, NoLaw) or len(others) != 1 or _parses(axis.name, text):
            raise
        raise InputError(f"'{text}' is no {axis.name} but reads as {others[0]}; {error}") from error


def _parses(name: str, text: str) -> bool:
    try:
        AXES[name].parse(text)
    except InputError:
        return False
    return True


def _number(axis: AxisControl, text: str) -> float:
    try:
        control = float(text)
    except ValueError:
        control = math.nan
    if not math.isfinite(control):
        raise InputError(f"control '{text}' of {axis.name} is not a finite number; trained were -1 to 1, 0 is neutral")
    return control


def _named(word: str, axes: Sequence[AxisControl], source: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if equals:
        return name.strip(), text
    if len(axes) != 1:
        names = ", ".join(axis.name for axis in axes) or "nothing"
        raise InputError(f"--control {word} names no axis and {source} controls {names}; write it like --control AXIS={word}")
    return axes[0].name, word


def _example(axis: AxisControl, *, sweep: bool = False) -> str:
    if isinstance(axis.law, NoLaw):
        return "-1..1:5" if sweep else "-1,0,1"
    low, middle, high = (axis.format(control).replace(" ", "") for control in (-1.0, 0.0, 1.0))
    return f"{low}..{high}:7" if sweep else f"{low},{middle},{high}"
