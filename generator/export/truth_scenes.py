"""The scenes of an export that have ground truth, for the formats that carry it: each once, however many clips it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from generator.export.base import ExportJob
from generator.recipe.truth_section import Pass
from generator.truth.read_truth import TruthReader
from scenes.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TruthScene:
    """A scene with its truth, and the caption of its first clip."""

    scene_id: str
    caption: str
    reader: TruthReader


def has_truth(job: ExportJob) -> bool:
    """Return whether the recipes of what is exported keep truth."""
    return any(part.recipe.get("truth") is not None for part in job.source.origin.parts)


def truth_scenes(job: ExportJob, format: str, *needed: Pass) -> dict[str, list[TruthScene]]:
    """Return scenes by split, in order; raises InputError where there is no truth, or a pass lacks that the format needs."""
    if not has_truth(job):
        raise InputError(
            f"format '{format}' is made of ground truth, and '{job.source.origin.name}' has none; "
            "add [truth] to its recipe and build again (no clip is rendered anew)"
        )
    found: dict[str, list[TruthScene]] = {}
    for split, rows in job.splits.items():
        seen: set[str] = set()
        for row in rows:
            if row["scene_id"] in seen:
                continue
            seen.add(row["scene_id"])
            reader = job.source.truth(row["clip_id"])
            for name in needed:
                reader.check(name)
            found.setdefault(split, []).append(TruthScene(scene_id=row["scene_id"], caption=row["caption"], reader=reader))
    return found


def each_scene(scenes: dict[str, list[TruthScene]]) -> Iterator[TruthScene]:
    """Yield the scenes of all splits."""
    for part in scenes.values():
        yield from part
