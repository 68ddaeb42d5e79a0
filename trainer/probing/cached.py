"""Reads generated sweeps with the blind probes, and remembers what was read, so that an interrupted evaluation goes on.

READINGS.jsonl holds a line per reading, keyed by the hashes of the frames, the axis and the version of the probes. Each line
has a checksum; what is not verified is read again.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8); N controls.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generator.io.checksummed_json import checksummed_line, parse_checksummed_line
from scenes.arrays import Bytes, Floats
from scenes.axes import AXES
from scenes.control_axis import PROBES_VERSION, Reading, Unread
from trainer.control.laws import AxisControl, NoLaw

FILE = "readings.jsonl"
LOG = logging.getLogger("stopdown.readings")


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a probe says of a video: its distance from the reference, its own value, and why either is missing."""

    relative: float | None
    value: float | None
    unread: Unread | None  # why there is no value of its own
    note: str

    @property
    def sharp(self) -> bool:
        """Whether it could not be read because there is less blur than can be: an upper bound, no reading."""
        return self.unread is Unread.TOO_SHARP


@dataclass(frozen=True, kw_only=True)
class SweepReads:
    """The readings of one sweep in an axis's error unit, relative to c = 0, NaN where refused; `sharp_N`: upper bounds.

    `absolute_N` comes from the probe's own scale, `expected_N` from the unit law; both are all NaN where there is none.
    """

    expected_N: Floats
    relative_N: Floats
    absolute_N: Floats
    values_N: Floats
    sharp_N: NDArray[np.bool_]
    notes: tuple[str, ...]


class Prober:
    """Reads videos and remembers it in a file."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self._known: dict[str, Read] = dict(_stored(path))
        # a line that a kill cut short must not swallow the next one
        self._lead = "\n" if path.is_file() and not path.read_bytes().endswith(b"\n") else ""

    def read(self, axis: str, video_THW3: Bytes, reference_THW3: Bytes) -> Read:
        """Return what the probe of an axis says of a video against the one at c = 0."""
        key = self._key(axis, video_THW3, reference_THW3)
        if key not in self._known:
            self._known[key] = _read(axis, video_THW3, reference_THW3, self.fps)
            self._remember(key, self._known[key])
        return self._known[key]

    def sweep(self, axis: AxisControl, controls: Sequence[float], videos: Sequence[Bytes], reference_THW3: Bytes) -> SweepReads:
        """Return the readings of an axis over videos made at `controls` of that axis. Videos are sRGB frames `[T, H, W, 3]`."""
        reads = [self.read(axis.name, video_THW3, reference_THW3) for video_THW3 in videos]
        law = None if isinstance(axis.law, NoLaw) else axis.law
        neutral = None if law is None else law.value(0.0)
        measure = AXES[axis.name].distance

        def absolute(value: float | None) -> float:
            return np.nan if value is None or neutral is None else measure(value, neutral)

        return SweepReads(
            expected_N=np.array([np.nan if law is None else absolute(law.value(control)) for control in controls]),
            relative_N=np.array([np.nan if read.relative is None else read.relative for read in reads]),
            absolute_N=np.array([absolute(read.value) for read in reads]),
            values_N=np.array([np.nan if read.value is None else read.value for read in reads]),
            sharp_N=np.array([read.sharp for read in reads]),
            notes=tuple(read.note for read in reads),
        )

    def _key(self, axis: str, video_THW3: Bytes, reference_THW3: Bytes) -> str:
        return f"{axis}/{PROBES_VERSION}/{self.fps:g}/{_digest(video_THW3)}/{_digest(reference_THW3)}"

    def _remember(self, key: str, read: Read) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            tree = {
                "key": key,
                "relative": read.relative,
                "value": read.value,
                "unread": read.unread and read.unread.name,
                "note": read.note,
            }
            file.write(f"{self._lead}{checksummed_line(tree).decode()}\n")
        self._lead = ""


def _read(axis: str, video_THW3: Bytes, reference_THW3: Bytes, fps: float) -> Read:
    own: Reading = AXES[axis].probe(video_THW3, fps)
    relative = AXES[axis].relative(video_THW3, reference_THW3, fps)
    note = own.note
    if relative is None and not note:
        other = AXES[axis].probe(reference_THW3, fps).note
        note = f"the video at c = 0: {other}" if other else "the two videos show nothing that can be compared"
    return Read(relative=relative, value=own.value, unread=own.unread, note=note)


def _stored(path: Path) -> list[tuple[str, Read]]:
    """Return what an earlier evaluation read; a line that is damaged, cut short or has no checksum is said, and left out.

    What an earlier version could not read is read again: it did not record why.
    """
    if not path.is_file():
        return []
    found: list[tuple[str, Read | None]] = []
    lines = path.read_bytes().split(b"\n")
    for line in lines:
        try:
            tree = parse_checksummed_line(line)
            unread = None if tree.get("unread") is None else Unread[tree["unread"]]
            told = Read(relative=tree["relative"], value=tree["value"], unread=unread, note=str(tree["note"]))
            found.append((str(tree["key"]), told if "unread" in tree or told.value is not None else None))
        except (ValueError, KeyError, TypeError):
            continue
    if len(found) < sum(line != b"" for line in lines):
        LOG.warning("%s has lines that are not as they were written; what they are about is read again", path)
    return [(key, read) for key, read in found if read is not None]


def _digest(frames_THW3: Bytes) -> str:
    shape = "x".join(map(str, frames_THW3.shape))
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(frames_THW3).tobytes()).hexdigest()[:20]
