"""Counts and probe errors of rows in a form that adds up: a version's counts are the sum of its leaves' counts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from generator.versions.manifest.rows import axes_of
from scenes.spec import Spec


class AxisSummary(Spec):
    """One axis over some clips: how many it labels, how many were judged or could not be read, and their absolute errors."""

    clips: int
    judged: int = 0
    unread: int = 0
    sum_error: float = 0.0
    worst_error: float = 0.0

    @property
    def mean_error(self) -> float | None:
        """The mean absolute error of the judged clips, in the axis's error unit."""
        return self.sum_error / self.judged if self.judged else None


class Summary(Spec):
    """Counts over some clips. `scenes` counts runs of one scene in order of clip id, which are scenes for planned ids."""

    clips: int = 0
    scenes: int = 0
    first_scene: str = ""
    last_scene: str = ""
    size_bytes: int = 0
    splits: dict[str, int] = Field(default_factory=dict)
    axes: dict[str, AxisSummary] = Field(default_factory=dict)


def summarise(rows: pa.Table) -> Summary:
    """Return the summary of rows that are sorted by clip id."""
    scenes = rows["scene_id"].to_pylist()
    return Summary(
        clips=rows.num_rows,
        scenes=sum(1 for position, scene in enumerate(scenes) if not position or scene != scenes[position - 1]),
        first_scene=scenes[0] if scenes else "",
        last_scene=scenes[-1] if scenes else "",
        size_bytes=pc.sum(rows["size_bytes"]).as_py() or 0,
        splits=dict(sorted(Counter(rows["split"].to_pylist()).items())),
        axes={axis: _axis(rows, axis) for axis in sorted(axes_of(rows.column_names)) if _labelled(rows, axis)},
    )


def total(parts: Iterable[Summary]) -> Summary:
    """Return the summary of the rows of all parts, which follow each other in order of clip id."""
    parts = [part for part in parts if part.clips]
    if not parts:
        return Summary()
    joints = sum(1 for left, right in itertools.pairwise(parts) if left.last_scene == right.first_scene)
    splits: Counter[str] = Counter()
    for part in parts:
        splits.update(part.splits)
    names = sorted({name for part in parts for name in part.axes})
    return Summary(
        clips=sum(part.clips for part in parts),
        scenes=sum(part.scenes for part in parts) - joints,
        first_scene=parts[0].first_scene,
        last_scene=parts[-1].last_scene,
        size_bytes=sum(part.size_bytes for part in parts),
        splits=dict(sorted(splits.items())),
        axes={name: _added([part.axes[name] for part in parts if name in part.axes]) for name in names},
    )


def _added(parts: list[AxisSummary]) -> AxisSummary:
    return AxisSummary(
        clips=sum(part.clips for part in parts),
        judged=sum(part.judged for part in parts),
        unread=sum(part.unread for part in parts),
        sum_error=math.fsum(part.sum_error for part in parts),
        worst_error=max(part.worst_error for part in parts),
    )


def _labelled(rows: pa.Table, axis: str) -> bool:
    column = rows[f"{axis}_control"]
    return bool(column.null_count < len(column))


def _axis(rows: pa.Table, axis: str) -> AxisSummary:
    names = [name for name in (f"{axis}_error", f"{axis}_judged") if name in rows.column_names]
    labelled = rows.select(names or [f"{axis}_control"]).filter(rows[f"{axis}_control"].is_valid())
    if len(names) < 2:
        return AxisSummary(clips=labelled.num_rows)
    judged = labelled.filter(pc.and_(labelled[f"{axis}_judged"].fill_null(False), labelled[f"{axis}_error"].is_valid()))
    errors = [abs(error) for error in judged[f"{axis}_error"].to_pylist()]
    return AxisSummary(
        clips=labelled.num_rows,
        judged=len(errors),
        unread=labelled[f"{axis}_error"].null_count,
        sum_error=math.fsum(errors),
        worst_error=max(errors, default=0.0),
    )
