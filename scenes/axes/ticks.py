"""Values to engrave on a scale of an axis, as photographers know them: 1/80, 1/40 …, f/2.8, f/5.6 …, 3000 K …, -1 EV …."""

from __future__ import annotations

import itertools
import math

from scenes.axes import AXES

_SERIES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)


def scale_values(axis: str, low: float, high: float, most: int = 7) -> list[float]:
    """Return at most `most` ascending values of an axis within [low, high], for a logarithmic scale, a linear one where the
    axis's law is additive.

    Additive axes: multiples of a round step. Axes in stops: whole powers of 2 from neutral. Axes in mired:
    numbers of a round series, thinned.
    """
    if AXES[axis].default_law.additive:
        return even_values(low, high, most)
    if AXES[axis].error_unit == "stop":
        neutral = AXES[axis].default_law.neutral
        powers = range(math.ceil(math.log2(low / neutral)), math.floor(math.log2(high / neutral)) + 1)
        step = math.ceil(len(powers) / most) or 1
        return [neutral * 2.0**power for power in powers if power % step == 0]
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    values = [part * 10.0**decade for decade in decades for part in _SERIES if low <= part * 10.0**decade <= high]
    apart = math.log(high / low) / most
    kept: list[float] = []
    for value in values:
        if not kept or math.log(value / kept[-1]) >= apart:
            kept.append(value)
    return kept


def even_values(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` multiples of the smallest round step (…, 0.5, 1, 2, 5, …) that fits."""
    for power in itertools.count(math.floor(math.log10((high - low) / most)) if high > low else 0):
        for part in (1.0, 2.0, 5.0):
            step = part * 10.0**power
            places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
            if len(places) <= most:
                return [place * step for place in places]
    raise AssertionError  # a step larger than the range leaves one value at most
