"""What `verify` found, as plain data, and the statistics it is judged by: errors in physical units, rank within a scene."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, computed_field, model_serializer
from scipy import stats

from generator.recipe.label_proof import short_blurs, unproven
from generator.recipe.plan import ClipPlan, Plan
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import AXES
from scenes.control_axis import ErrorUnit, Measurement
from scenes.spec import Spec

LEAST_RANKED = 3  # a rank correlation of fewer values says nothing

ProblemKind = Literal[
    "missing", "bytes", "object", "swapped", "decode", "frames", "label", "caption", "count", "record", "reading", "truth"
]
Row = Mapping[str, Any]  # of the label table
Outcome = Literal["within", "past", "too small", "unreadable"]


class Problem(Spec):
    """One thing that is not as it should be: its kind, the clip (or file) it is about, and a line that says what."""

    kind: ProblemKind
    where: str
    message: str


class ClipMeasurement(Spec):
    """One axis of one clip: the label and the probe's reading in physical units; `error` in the axis's error unit."""

    clip_id: str
    scene_id: str
    layer: int
    axis: str
    control: float
    labelled: float
    measured: float | None
    error: float | None
    judged: bool
    confidence: float
    note: str

    def outcome(self, bar: float) -> Outcome:
        """Return how the clip stands to a bar on the absolute error."""
        if not self.judged:
            return "too small"
        if self.measured is None or self.error is None:
            return "unreadable"
        return "within" if abs(self.error) <= bar else "past"


class SceneRank(Spec):
    """The rank correlation of label and reading within a scene, over its judged clips with a reading."""

    scene_id: str
    readings: int
    correlation: float


class AxisReport(Spec):
    """One axis over the whole dataset: errors in `unit`, and the bars they are held to.

    `unproven` says in a line which clips of a custom .blend have no proof and why; `accepted`: the recipe takes the axis
    without one.
    """

    axis: str
    unit: ErrorUnit
    clips: int
    judged: int
    too_small: int
    unreadable: int
    median_error: float | None
    worst_error: float | None
    worst_clip: str | None
    median_bar: float
    unreadable_bar: float
    rank_bar: float
    clips_past_bar: tuple[str, ...]
    clips_unread: tuple[str, ...]
    ranks: tuple[SceneRank, ...]
    unproven: str = ""
    accepted: bool = False

    @computed_field  # type: ignore[prop-decorator]
    @property
    def lowest_rank(self) -> float | None:
        """The lowest rank correlation of any scene; None where no scene has three readings."""
        return min((rank.correlation for rank in self.ranks), default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def scenes_past_bar(self) -> tuple[str, ...]:
        """The scenes whose readings are not in the order of their labels."""
        return tuple(rank.scene_id for rank in self.ranks if rank.correlation < self.rank_bar)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reads_enough(self) -> bool:
        """Whether the probe read enough of the clips that show the effect; `unreadable_bar` is the share it may miss."""
        return self.unreadable <= self.unreadable_bar * (self.judged + self.unreadable)

    @property
    def accepted_without_proof(self) -> bool:
        """Whether no clip of the axis has a proof, and the recipe accepts that."""
        return self.accepted and self.judged + self.unreadable == 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether median, readability and every scene's rank meet their bars.

        An axis with nothing judged does not pass, unless there is nothing to judge and the recipe accepts that.
        """
        if self.accepted_without_proof:
            return True
        within = self.median_error is not None and self.median_error <= self.median_bar
        return within and self.reads_enough and not self.scenes_past_bar


class TruthCheck(Spec):
    """One measure of ground truth over all scenes that have it: the worst value, where, and the bar it is held to."""

    name: str
    unit: str
    worst: float
    bar: float
    scene_id: str
    scenes: int


class VerifyReport(Spec):
    """Everything `stopdown verify` found in a dataset."""

    name: str
    path: str
    plan_digest: str
    clips: int
    scenes: int
    size_bytes: int
    axes: tuple[AxisReport, ...]
    problems: tuple[Problem, ...]
    measurements: tuple[ClipMeasurement, ...]
    truth: tuple[TruthCheck, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        return tree if self.truth is not None else {name: part for name, part in tree.items() if name != "truth"}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether every file, every label and every axis is as it should be."""
        return not self.problems and all(axis.passed for axis in self.axes)

    @property
    def exit_code(self) -> int:
        """0 when everything holds, otherwise 1."""
        return 0 if self.passed else 1


def clip_measurement(clip: ClipPlan, axis: str, measured: Measurement) -> ClipMeasurement:
    """Return the plain-data form of one measurement."""
    return ClipMeasurement(
        clip_id=clip.clip_id,
        scene_id=clip.scene_id,
        layer=clip.layer,
        axis=axis,
        control=clip.controls[axis],
        labelled=measured.labelled,
        measured=measured.measured,
        error=measured.error,
        judged=measured.judged,
        confidence=measured.confidence,
        note=measured.note,
    )


def stored_measurement(clip: ClipPlan, axis: str, row: Row) -> ClipMeasurement:
    """Return the measurement that a row of the label table holds, made when the clip was built, of the label in the plan."""
    return ClipMeasurement(
        clip_id=clip.clip_id,
        scene_id=clip.scene_id,
        layer=clip.layer,
        axis=axis,
        control=clip.controls[axis],
        labelled=clip.values[axis],
        measured=row[f"{axis}_measured"],
        error=row[f"{axis}_error"],
        judged=bool(row[f"{axis}_judged"]),
        confidence=row[f"{axis}_confidence"] or 0.0,
        note=row[f"{axis}_note"] or "",
    )


def stored_measurements(dataset: WorkingFolder) -> tuple[ClipMeasurement, ...]:
    """Return every measurement of a dataset's label table, in the plan's order."""
    rows = {row["clip_id"]: row for row in dataset.labels.to_pylist()}
    return tuple(
        stored_measurement(clip, axis, rows[clip.clip_id])
        for clip in dataset.plan.clips
        if clip.clip_id in rows
        for axis in clip.axes
    )


def axis_reports(plan: Plan, measurements: Sequence[ClipMeasurement]) -> tuple[AxisReport, ...]:
    """Return the statistics of every axis of a plan, held against the recipe's bars (default: the axis's tolerance)."""
    lines = {one.axis: one.line for one in unproven(plan)}
    if short := short_blurs(plan):
        lines["shutter"] = "; ".join(filter(None, [lines.get("shutter"), short.removeprefix("shutter: ")]))
    return tuple(
        _axis_report(plan, axis, [entry for entry in measurements if entry.axis == axis], lines.get(axis, ""))
        for axis in plan.recipe.used_axes
    )


def _axis_report(plan: Plan, axis: str, entries: Sequence[ClipMeasurement], unproven_line: str) -> AxisReport:
    bar = plan.recipe.verify.median_error.get(axis, AXES[axis].tolerance)
    by_outcome: dict[Outcome, list[ClipMeasurement]] = defaultdict(list)
    for entry in entries:
        by_outcome[entry.outcome(bar)].append(entry)
    judged = [*by_outcome["within"], *by_outcome["past"]]
    worst = max(judged, key=_absolute_error, default=None)
    past = sorted(by_outcome["past"], key=_absolute_error, reverse=True)
    return AxisReport(
        axis=axis,
        unit=AXES[axis].error_unit,
        clips=len(entries),
        judged=len(judged),
        too_small=len(by_outcome["too small"]),
        unreadable=len(by_outcome["unreadable"]),
        median_error=statistics.median(map(_absolute_error, judged)) if judged else None,
        worst_error=_absolute_error(worst) if worst else None,
        worst_clip=worst.clip_id if worst else None,
        median_bar=bar,
        unreadable_bar=plan.recipe.verify.unreadable_share,
        rank_bar=plan.recipe.verify.rank_correlation,
        clips_past_bar=tuple(entry.clip_id for entry in past),
        clips_unread=tuple(entry.clip_id for entry in by_outcome["unreadable"]),
        ranks=scene_ranks(entries),
        unproven=unproven_line,
        accepted=axis in plan.recipe.verify.accept_unproven,
    )


def _absolute_error(entry: ClipMeasurement) -> float:
    return abs(entry.error) if entry.error is not None else math.inf


def scene_ranks(entries: Sequence[ClipMeasurement]) -> tuple[SceneRank, ...]:
    """Return Spearman's correlation of label and reading for every scene with three judged readings or more.

    What shows too little to be judged is left out: two blurs below what a probe resolves have no order in the pixels.
    Readings of equal labels (a grid over several axes) are joined by their median first: ties bound the correlation below 1.
    A scene whose readings are all equal has correlation 0.
    """
    by_scene: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if entry.measured is not None and entry.judged:
            by_scene[entry.scene_id][entry.labelled].append(entry.measured)
    ranks = []
    for scene_id, readings in by_scene.items():
        if len(readings) >= LEAST_RANKED:
            measured = [statistics.median(values) for values in readings.values()]
            constant = len(set(measured)) == 1
            correlation = 0.0 if constant else float(stats.spearmanr(list(readings), measured).statistic)
            ranks.append(SceneRank(scene_id=scene_id, readings=len(readings), correlation=correlation))
    return tuple(ranks)
