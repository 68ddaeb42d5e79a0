"""Curation: what a person changed of a built version, clips removed and captions edited, told apart from what its plan says.

It is no file of its own: a version's rows against its plan. So a build of the same plan, or of a changed recipe of the same
name, keeps it, and `verify` and `gallery` hold the folder against what was committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa

from generator.recipe.plan import ClipPlan, Plan, ScenePlan
from generator.store.labels import LabelRows
from generator.store.stored_plans import read_plan
from generator.versions.history.history import INTERNAL, History
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_leaf, read_rows
from generator.versions.working.compare import Working
from generator.versions.working.status import compare
from scenes.errors import InputError


class CuratedPlan(Plan):
    """A plan less removed clips, with edited captions; its digest and its text are those of the whole."""

    whole: Plan

    @property
    def digest(self) -> str:
        """The sha256 of the whole plan's canonical text."""
        return self.whole.digest

    def to_json(self) -> str:
        """Return the canonical text of the whole plan."""
        return self.whole.to_json()


@dataclass(frozen=True, kw_only=True)
class Curation:
    """What was changed of a version: ids of removed clips, and captions by clip id, as drawn and as edited."""

    version: str = ""
    removed: frozenset[str] = frozenset()
    captions: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.removed or self.captions)

    def words(self) -> str:
        """Return what was changed, for a person to read."""
        parts = [(len(self.removed), "clip", "removed"), (len(self.captions), "caption", "edited")]
        told = [f"{count} {noun}{'s' * (count != 1)} {verb}" for count, noun, verb in parts if count]
        return f"{' and '.join(told)} in version {self.version[:12]}"

    def within(self, plan: Plan) -> Curation:
        """Return what of it another plan takes over: an edit of a caption that is drawn anew is left behind."""
        return Curation(
            version=self.version,
            removed=self.removed & plan.clip_by_id.keys(),
            captions={
                clip_id: (drawn, edited)
                for clip_id, (drawn, edited) in self.captions.items()
                if clip_id in plan.clip_by_id and plan.clip_by_id[clip_id].caption == drawn
            },
        )

    def of(self, plan: Plan) -> Plan:
        """Return a plan as it was curated; raises InputError where no clip is left."""
        kept = self.within(plan)
        if not kept:
            return plan
        clips = tuple(kept._clip(clip) for clip in plan.clips if clip.clip_id not in kept.removed)
        if not clips:
            raise InputError(f"all {len(plan.clips)} clips were removed in version {self.version[:12]}; restore an earlier one")
        scenes = tuple(scene for scene in map(kept._scene, plan.scenes) if scene.clip_ids)
        return CuratedPlan(
            format=plan.format, name=plan.name, seed=plan.seed, recipe=plan.recipe, scenes=scenes, clips=clips, whole=plan
        )

    def _clip(self, clip: ClipPlan) -> ClipPlan:
        if clip.clip_id not in self.captions:
            return clip
        return clip.model_copy(update={"caption": self.captions[clip.clip_id][1]})

    def _scene(self, scene: ScenePlan) -> ScenePlan:
        if self.removed.isdisjoint(scene.clip_ids):
            return scene
        return scene.model_copy(update={"clip_ids": tuple(c for c in scene.clip_ids if c not in self.removed)})


def curation_of(history: History, version: Version) -> Curation:
    """Return what was changed of a version, none for one that is of no single plan (merged); raises DamagedError."""
    if len(version.plans) != 1:
        return Curation()
    rows = read_rows(history.store, history.manifest(version), ("clip_id", "caption"))
    held = dict(zip(rows["clip_id"].to_pylist(), rows["caption"].to_pylist(), strict=True))
    drawn = {clip["clip_id"]: clip["caption"] for clip in read_plan(history.store, version.plans[0])["clips"]}
    return Curation(
        version=version.id,
        removed=frozenset(drawn.keys() - held.keys()),
        captions={clip_id: (drawn[clip_id], text) for clip_id, text in held.items() if drawn.get(clip_id, text) != text},
    )


def shown_curation(path: Path) -> Curation:
    """Return what was changed of the version that a folder shows; none where there is no version yet. Raises DamagedError."""
    history = History(path)
    head = history.refs.head() if (path / INTERNAL).is_dir() else None
    if head is None:
        return Curation()
    working = Working(history)
    shown, restoring, _ = working.state()
    version_id = restoring or shown or head
    if version_id == head or restoring is not None:
        return curation_of(history, history.load(version_id))
    working.load_index()
    return curation_of(history, compare(history, working, head, thorough=False).version)


def refuse_curated(history: History, plan_digest: str, labels: LabelRows, where: str) -> None:
    """Raise InputError where the head is of a plan, but not of its clips and captions: committing `labels` would undo that.

    For builds of many machines, which hold one leaf and one table of rows at a time.
    """
    head = history.refs.head()
    version = None if head is None else history.load(head)
    if version is None or version.plans != (plan_digest,):
        return
    manifest, columns = history.manifest(version), ("clip_id", "caption")
    held = (read_leaf(history.store, leaf, manifest.schema, columns) for leaf in manifest.each_leaf())
    drawn = (table.select(list(columns)) for table in labels.tables())
    if any(one != other for one, other in zip_longest(_words(held), _words(drawn))):
        raise InputError(
            f"the latest version at {where} ({version.short}) was curated: clips were removed or captions edited, which this "
            "build would undo. It has every clip, so leave it as it is, or build into another place"
        )


def _words(tables: Iterable[pa.Table]) -> Iterator[tuple[str, str]]:
    for table in tables:
        yield from zip(table["clip_id"].to_pylist(), table["caption"].to_pylist(), strict=True)
