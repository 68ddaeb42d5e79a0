"""What the blind probes say of one generated video, in units, beside what was asked for.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from scenes.arrays import Bytes
from scenes.control_axis import ErrorUnit, Reading
from trainer.control.laws import AxisControl, NoLaw

HEADINGS = ("axis", "asked", "c", "probe reads", "asked from c = 0", "read from c = 0")
NO_PAIR = "the two videos show nothing that can be compared"


@dataclass(frozen=True, kw_only=True)
class AxisReading:
    """One axis in one video: `value` in the axis's unit, distances from c = 0 in `unit`; None where there is none.

    `note` says why the probe refuses; nothing is put in the place of what it does not read.
    """

    axis: str
    asked: str
    control: float
    value: float | None
    reads: str
    confidence: float
    unit: ErrorUnit
    asked_distance: float | None
    read_distance: float | None
    note: str

    def cells(self) -> list[str]:
        """Return the reading as a line of a table under `HEADINGS`."""
        distances = (self.asked_distance, self.read_distance)
        written = ["" if distance is None else _distance(distance, self.unit) for distance in distances]
        return [self.axis, self.asked, f"{self.control:+.2f}", self.reads, *written]


def read_axis(axis: AxisControl, control: float, video_THW3: Bytes, neutral_THW3: Bytes | None, fps: float) -> AxisReading:
    """Read one axis of a video made at a control; with the same content at c = 0, also the distance from that."""
    own = axis.axis.probe(video_THW3, fps)
    relative = None if neutral_THW3 is None else axis.axis.relative(video_THW3, neutral_THW3, fps)
    law = None if isinstance(axis.law, NoLaw) else axis.law
    return AxisReading(
        axis=axis.name,
        asked=axis.format(control),
        control=control,
        value=own.value,
        reads="refuses" if own.value is None else axis.axis.format(own.value),
        confidence=own.confidence,
        unit=axis.axis.error_unit,
        asked_distance=None if law is None else axis.axis.distance(law.value(control), law.value(0.0)),
        read_distance=relative,
        note=_note(axis, own, neutral_THW3, relative, fps),
    )


def _note(axis: AxisControl, own: Reading, neutral_THW3: Bytes | None, relative: float | None, fps: float) -> str:
    """Return why there is no value, or no distance although there is something to compare with."""
    parts = [own.note] if own.note else []
    if own.value is None and own.detections:
        size_px = statistics.median(detection.size_px for detection in own.detections)
        hint = "" if neutral_THW3 is not None else ": compare with c = 0"
        parts.append(f"{len(own.detections)} blurs, {size_px:.1f} px at the middle, with no scale in the picture{hint}")
    if neutral_THW3 is not None and relative is None:
        other = axis.axis.probe(neutral_THW3, fps).note
        parts += [f"the video at c = 0: {other}"] if other and other != own.note else []
        parts = parts or [NO_PAIR]
    return "; ".join(parts)


def _distance(distance: float, unit: ErrorUnit) -> str:
    return f"{distance:+.0f} {unit}" if unit == "mired" else f"{distance:+.2f} {unit}"
