"""From finished videos to numbers: reads every sweep with the probes and compares arms.

Shapes: P prompts, S seeds, K sweeps, N controls; T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.media.video import decode
from scenes.arrays import Bytes
from scenes.axes import AXES
from trainer.adapters.card import AdapterCard
from trainer.control.laws import AxisControl, axis_control
from trainer.evaluation.accuracy import AxisReads, accuracy, leakage
from trainer.evaluation.arms import PlannedSweep
from trainer.evaluation.content import Describer, Shelf, VideoKey, by_prompt_and_seed, consistency, grouped, key_of, svp_scores
from trainer.evaluation.features.extractors import VideoFeatures
from trainer.evaluation.results import (
    Accuracy,
    Consistency,
    Flicker,
    Leakage,
    Svp,
    SweepReading,
    VideoReading,
    finite,
)
from trainer.probing.cached import FILE as READINGS
from trainer.probing.cached import Prober, SweepReads
from trainer.probing.statistics import rank_correlation, slope

KEPT_BYTES = 2_000_000_000  # of decoded videos, in memory
SEED = 0  # of the resampling
UNCONTROLLED = "this arm knows no control: its video is the same at every value"
WORDED = "three levels only: words for less, none, words for more, held against c = -1, 0, 1"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the finished videos say."""

    accuracy: tuple[Accuracy, ...]
    leakage: tuple[Leakage, ...]
    consistency: tuple[Consistency, ...]
    svp: tuple[Svp, ...]
    flicker: tuple[Flicker, ...]
    sweeps: tuple[SweepReading, ...]


class VideoShelf:
    """Decoded videos of an evaluation's folder; those used last are kept, up to `KEPT_BYTES`."""

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self.folder = folder
        self.kept_bytes = kept_bytes
        self._kept: OrderedDict[VideoKey, Bytes] = OrderedDict()

    def __call__(self, key: VideoKey) -> Bytes:
        """Return the frames [T, H, W, 3] of a video; raises DamagedError for one that cannot be decoded."""
        if key not in self._kept:
            place, name = key
            self._kept[key] = decode(self.folder / place / f"{name}.mp4")
            while sum(frames.nbytes for frames in self._kept.values()) > self.kept_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def other_axes(card: AdapterCard) -> tuple[AxisControl, ...]:
    """Return every axis of this installation, as the adapter has it, or under its default law: leakage is read on all."""
    own = {axis.name: axis for axis in (card.config.control.axes if card.config.control is not None else ())}
    return tuple(own.get(name) or axis_control(name) for name in AXES)


def measure(
    sweeps: Sequence[PlannedSweep],
    every_axis: Sequence[AxisControl],
    folder: Path,
    fps: float,
    extractors: Sequence[VideoFeatures],
    note: Callable[[str], None],
) -> Measured:
    """Read the videos of sweeps that lie in an evaluation's folder and return what they say together."""
    shelf = VideoShelf(folder)
    prober, describer = Prober(folder / READINGS, fps), Describer(extractors, shelf)
    rng = np.random.default_rng(SEED)
    accuracies: list[Accuracy] = []
    leaks: list[Leakage] = []
    kept: list[Consistency] = []
    readings: list[SweepReading] = []
    for (arm, axis), members in grouped(sweeps).items():
        note(f"reading {arm}: {axis}, {len(members)} sweeps")
        rows = by_prompt_and_seed(members)
        reads_PS = [[_reads(prober, sweep.axis, sweep, shelf) for sweep in row] for row in rows]
        reads = AxisReads.of(members[0].axis, members[0].controls, reads_PS)
        accuracies.append(accuracy(arm, reads, rng, note=_arm_note(members[0])))
        readings += [
            _sweep_reading(sweep, read)
            for row, found in zip(rows, reads_PS, strict=True)
            for sweep, read in zip(row, found, strict=True)
        ]
        if members[0].arm.controlled:
            leaks += _leaks(prober, every_axis, members, shelf)
            kept.append(consistency(arm, axis, rows, describer, rng))
    svps: list[Svp] = []
    flickers: list[Flicker] = []
    for arm in dict.fromkeys(sweep.arm.name for sweep in sweeps):
        note(f"describing {arm}")
        scores, unsteady = svp_scores(arm, [sweep for sweep in sweeps if sweep.arm.name == arm], describer, rng)
        svps += scores
        flickers.append(unsteady)
    return Measured(
        accuracy=tuple(accuracies),
        leakage=tuple(leaks),
        consistency=tuple(kept),
        svp=tuple(svps),
        flicker=tuple(flickers),
        sweeps=tuple(readings),
    )


def _reads(prober: Prober, axis: AxisControl, sweep: PlannedSweep, shelf: Shelf) -> SweepReads:
    """Return an axis's readings over a sweep, of the axis that is swept or of another."""
    videos = [shelf(key_of(sweep, place)) for place in range(len(sweep.videos))]
    return prober.sweep(axis, sweep.controls, videos, shelf((sweep.arm.folder, sweep.reference.name)))


def _leaks(prober: Prober, every_axis: Sequence[AxisControl], members: Sequence[PlannedSweep], shelf: Shelf) -> list[Leakage]:
    first = members[0]
    found = []
    for axis in every_axis:
        readings_KN = np.stack([_reads(prober, axis, sweep, shelf).relative_N for sweep in members])
        found.append(leakage(first.arm.name, first.axis.name, axis, np.array(first.controls), readings_KN))
    return found


def _sweep_reading(sweep: PlannedSweep, reads: SweepReads) -> SweepReading:
    trained = np.abs(np.array(sweep.controls)) <= 1.0 + 1e-9
    videos = tuple(
        VideoReading(
            control=control,
            label=sweep.axis.format(control),
            video=f"{sweep.arm.folder}/{sweep.videos[place].name}.mp4",
            measured=finite(float(reads.relative_N[place])),
            absolute=finite(float(reads.values_N[place])),
            expected=finite(float(reads.expected_N[place])),
            note=reads.notes[place],
        )
        for place, control in enumerate(sweep.controls)
    )
    return SweepReading(
        arm=sweep.arm.name,
        axis=sweep.axis.name,
        prompt=sweep.prompt,
        seed=sweep.seed,
        videos=videos,
        rho=finite(rank_correlation(np.array(sweep.controls)[trained], reads.relative_N[trained])),
        slope=finite(slope(reads.expected_N[trained], reads.relative_N[trained])),
    )


def _arm_note(sweep: PlannedSweep) -> str:
    if sweep.arm.words:
        return WORDED
    return "" if sweep.arm.controlled else UNCONTROLLED
