"""Reads a sweep with the blind probes: what came out, in stops or mired, against what was asked for.

Readings are relative to the video at c = 0 of the same content, because a scale (distances, the white reference) is not always
in the pixels. A probe that refuses leaves a gap; nothing is put in its place.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scenes.arrays import Bytes, Floats
from scenes.control_axis import ErrorUnit
from scenes.errors import InputError
from trainer.control.laws import AxisControl, NoLaw
from trainer.probing.statistics import rank_correlation, slope

NEUTRAL = 1e-9  # a control this near 0 is the reference


@dataclass(frozen=True, kw_only=True)
class ValueReading:
    """One video of a sweep. `expected` and `measured` are distances from the video at c = 0, positive: the stronger effect.

    `expected` is None where the axis's law has no unit, `measured` where the probe refuses, and then `note` says why.
    """

    control: float
    value: float | None  # what was asked for, in the axis's unit
    expected: float | None
    measured: float | None
    note: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether it is the video that the others are compared with; its distance is 0 by construction."""
        return abs(self.control) <= NEUTRAL

    @property
    def error(self) -> float | None:
        """Measured less expected; None where either is missing, and for the reference."""
        if self.expected is None or self.measured is None or self.is_reference:
            return None
        return self.measured - self.expected


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The readings of one sweep, ascending in control, and what they say together.

    `rho` is Spearman's correlation of control and measured (None below three readings, 0 where all are equal), `slope` that of
    measured over expected (1 is right), `median_error` the median absolute error with no fit at all, the reference left out.
    """

    axis: str
    unit: ErrorUnit
    readings: tuple[ValueReading, ...]
    rho: float | None
    slope: float | None
    median_error: float | None

    @property
    def readable(self) -> int:
        """How many videos the probe read."""
        return sum(reading.measured is not None for reading in self.readings)

    def line(self) -> str:
        """Return the report as one line for people."""
        parts = [f"{self.readable} of {len(self.readings)} read"]
        parts += [] if self.rho is None else [f"rho {self.rho:.2f}"]
        parts += [] if self.slope is None else [f"slope {self.slope:.2f}"]
        parts += [] if self.median_error is None else [f"median error {self.median_error:.3g} {self.unit}"]
        return f"{self.axis}: {', '.join(parts)}"


def read_sweep(
    axis: AxisControl, controls: Sequence[float], videos: Sequence[Bytes], fps: float, *, reference: Bytes | None = None
) -> SweepReport:
    """Read a sweep of one axis: `videos[i]` [T, H, W, 3] was made at `controls[i]`, all with the same content.

    `reference` is the video at c = 0 if the sweep itself has none. Raises InputError for numbers of controls and videos that
    differ, a control that stands twice, and a sweep without a reference.
    """
    if len(controls) != len(videos) or len(set(controls)) != len(controls):
        raise InputError(
            f"{len(videos)} videos at controls {list(controls)} are no sweep; give each video a control of its own"
        )
    own = [video for control, video in zip(controls, videos, strict=True) if abs(control) <= NEUTRAL]
    if reference is None and not own:
        raise InputError(f"a sweep of {axis.name} at {list(controls)} has no video at c = 0; give one as the reference")
    base_THW3 = reference if reference is not None else own[0]
    pairs = sorted(zip(controls, videos, strict=True), key=lambda pair: pair[0])
    readings = tuple(_read(axis, control, video_THW3, base_THW3, fps) for control, video_THW3 in pairs)
    errors = [abs(reading.error) for reading in readings if reading.error is not None]
    return SweepReport(
        axis=axis.name,
        unit=axis.axis.error_unit,
        readings=readings,
        rho=_rho(readings),
        slope=_slope(readings),
        median_error=statistics.median(errors) if errors else None,
    )


def _read(axis: AxisControl, control: float, video_THW3: Bytes, base_THW3: Bytes, fps: float) -> ValueReading:
    value = None if isinstance(axis.law, NoLaw) else axis.law.value(control)
    expected = None if value is None else axis.axis.distance(value, axis.law.value(0.0))
    measured = axis.axis.relative(video_THW3, base_THW3, fps)
    note = "" if measured is not None else _why(axis, video_THW3, base_THW3, fps)
    return ValueReading(control=control, value=value, expected=expected, measured=measured, note=note)


def _why(axis: AxisControl, video_THW3: Bytes, base_THW3: Bytes, fps: float) -> str:
    """Return why a video could not be compared: what the probe says of it, or of the reference."""
    for what, frames_THW3 in (("", video_THW3), ("the video at c = 0: ", base_THW3)):
        note = axis.axis.probe(frames_THW3, fps).note
        if note:
            return what + note
    return "the two videos show nothing that can be compared"


def _rho(readings: Sequence[ValueReading]) -> float | None:
    return _number(rank_correlation(_column([reading.control for reading in readings]), _measured(readings)))


def _slope(readings: Sequence[ValueReading]) -> float | None:
    known = [reading for reading in readings if reading.expected is not None]
    return _number(slope(_column([reading.expected for reading in known]), _measured(known)))


def _measured(readings: Sequence[ValueReading]) -> Floats:
    return _column([reading.measured for reading in readings])


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
