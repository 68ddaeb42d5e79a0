"""Proves a dataset: every file's hash, every label's law, and every probe again, blind, on the decoded frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from generator.errors import DamagedError
from generator.recipe.plan import ClipPlan, Plan
from generator.store.labels import label_schema, measure
from generator.verify.clips import Progress, clip_records, file_problems, make_jobs, run_jobs
from generator.verify.findings import (
    ClipMeasurement,
    Problem,
    ProblemKind,
    Row,
    VerifyReport,
    axis_reports,
    clip_measurement,
    stored_measurement,
)
from generator.verify.truth_report import verify_truth
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import AXES
from scenes.errors import InputError

LAW_TOLERANCE = 1e-6  # relative; plans hold nine significant digits
READING_TOLERANCE = 1e-3  # stop or mired; a probe that is run again on the same frames says the same


def verify(dataset: WorkingFolder, progress: Progress | None = None, *, workers: int = 2) -> VerifyReport:
    """Check every file, label and probe of a dataset; what is wrong is named in the report, not raised.

    `workers` processes read and probe the clips (1: this process alone); `progress` is called with clips done and clips in all.
    Raises DamagedError when the label table itself cannot be read, InputError for a bad number of workers.
    """
    if workers < 1:
        raise InputError(f"{workers} workers cannot verify anything; give 1 or more")
    plan = dataset.plan
    rows, problems = _rows(dataset)
    for clip in plan.clips:
        if clip.clip_id in rows:
            problems += _label_problems(plan, clip, rows[clip.clip_id])
    jobs, unusable = make_jobs(dataset, rows)
    found = run_jobs(jobs, progress, workers)
    problems += [*unusable, *file_problems(dataset, found, rows)]
    truth = None
    if plan.recipe.truth is not None:
        truth, untrue = verify_truth(dataset, clip_records(dataset)[0])
        problems += untrue
    measurements: list[ClipMeasurement] = []
    for clip in plan.clips:
        for axis, reading in found[clip.clip_id].readings.items() if clip.clip_id in found else ():
            fresh = clip_measurement(clip, axis, measure(plan, clip, axis, reading))
            problems += _reading_problems(fresh, stored_measurement(clip, axis, rows[clip.clip_id]))
            measurements.append(fresh)
    return VerifyReport(
        name=plan.name,
        path=str(dataset.path),
        plan_digest=plan.digest,
        clips=len(plan.clips),
        scenes=len(plan.scenes),
        size_bytes=sum(row["size_bytes"] for row in rows.values()),
        axes=axis_reports(plan, measurements),
        problems=tuple(problems),
        measurements=tuple(measurements),
        truth=truth,
    )


def _rows(dataset: WorkingFolder) -> tuple[dict[str, Row], list[Problem]]:
    """Return the label rows by clip id, and what is wrong with their number; raises DamagedError for a wrong schema."""
    schema = dataset.labels.schema
    recipe = dataset.plan.recipe
    for field in label_schema(recipe.used_axes, two_parts=recipe.captions.two_parts):
        index = schema.get_field_index(field.name)
        if index < 0 or schema.field(index).type != field.type:
            state = "is missing" if index < 0 else f"is {schema.field(index).type}, not {field.type}"
            raise DamagedError(f"{dataset.path / 'labels.parquet'}: column {field.name} {state}; run the build again")
    rows = dataset.labels.to_pylist()
    counts = Counter(str(row["clip_id"]) for row in rows)
    planned = dataset.plan.clip_by_id
    wrong = {clip_id: "has no row in labels.parquet" for clip_id in planned if clip_id not in counts}
    wrong |= {clip_id: f"has {count} rows in labels.parquet" for clip_id, count in counts.items() if count > 1}
    wrong |= {clip_id: "stands in labels.parquet, not in the plan" for clip_id in counts if clip_id not in planned}
    problems = [Problem(kind="count", where=clip_id, message=message) for clip_id, message in wrong.items()]
    return {row["clip_id"]: row for row in rows if row["clip_id"] in planned}, problems


def _label_problems(plan: Plan, clip: ClipPlan, row: Row) -> Iterator[Problem]:
    """Yield where a row of the label table is not what the plan says, or breaks its unit law."""
    video = plan.recipe.video
    expected = {name: getattr(clip, name) for name in ("scene_id", "family", "layer", "scene", "index", "frames", "caption")}
    expected |= {"width": video.width, "height": video.height, "fps": video.fps, "seed": plan.seed}
    expected |= {"fidelity": plan.recipe.render.fidelity}
    if plan.recipe.captions.two_parts:
        parts = plan.caption_parts(clip)
        expected |= {"caption_content": parts and parts.content, "caption_motion": parts and parts.motion}
    for name, value in expected.items():
        if row[name] != value:
            kind: ProblemKind = "caption" if name == "caption" else "label"
            yield Problem(kind=kind, where=clip.clip_id, message=f"label {name} is {row[name]!r}, the plan says {value!r}")
    for axis in plan.recipe.used_axes:
        value, control = row[AXES[axis].column], row[f"{axis}_control"]
        words = (
            _axis_label_words(plan, clip, axis, value, control)
            if axis in clip.axes
            else ["has a label of an axis that this clip does not control"] * (value is not None or control is not None)
        )
        for message in words:
            yield Problem(kind="label", where=clip.clip_id, message=f"{axis}: {message}")


def _axis_label_words(plan: Plan, clip: ClipPlan, axis: str, value: float | None, control: float | None) -> Iterator[str]:
    column, law = AXES[axis].column, plan.recipe.law(axis)
    if value is None or control is None:
        yield f"no label, the plan says {clip.values[axis]:.9g} at control {clip.controls[axis]:.9g}"
        return
    if not -1.0 <= control <= 1.0:
        yield f"{axis}_control is {control:.9g}, outside -1 to 1"
    if not math.isclose(control, clip.controls[axis], rel_tol=LAW_TOLERANCE, abs_tol=LAW_TOLERANCE):
        yield f"{axis}_control is {control:.9g}, the plan says {clip.controls[axis]:.9g}"
    slack = law.slack(LAW_TOLERANCE)
    if not math.isclose(value, clip.values[axis], rel_tol=LAW_TOLERANCE, abs_tol=slack):
        yield f"{column} is {value:.9g}, the plan says {clip.values[axis]:.9g}"
    if not math.isclose(value, law.value(control), rel_tol=LAW_TOLERANCE, abs_tol=slack):
        yield f"{column} is {value:.9g}, the law gives {law.value(control):.9g} at control {control:.9g}"


def _reading_problems(fresh: ClipMeasurement, stored: ClipMeasurement) -> Iterator[Problem]:
    """Yield a problem when the probe, run again, does not say what the label table says it said."""
    apart = fresh.judged != stored.judged or any(
        (new is None) != (old is None) or (new is not None and old is not None and abs(new - old) > tolerance)
        for new, old, tolerance in (
            (fresh.error, stored.error, READING_TOLERANCE),
            (fresh.measured, stored.measured, 1e-3 * abs(fresh.measured or 0.0)),
        )
    )
    if apart:
        message = f"{fresh.axis} reads {_words(fresh)} now, labels.parquet says {_words(stored)}"
        yield Problem(kind="reading", where=fresh.clip_id, message=message)


def _words(entry: ClipMeasurement) -> str:
    if entry.measured is None or entry.error is None:
        return "nothing"
    return f"{AXES[entry.axis].format(entry.measured)} (error {entry.error:+.4f}{'' if entry.judged else ', not judged'})"
