"""What can be exported: anything with labels, clips and a known origin."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from generator.card.origin import Maker, Origin, Part, engine_version, plan_origin
from generator.errors import DamagedError
from generator.recipe.licence import check_licence
from generator.store.objects import ClipRecord
from generator.store.splits import SplitRatios, split_of
from generator.truth.read_truth import TruthReader
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.working.compare import LABELS
from generator.versions.working.status import status
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import AXES

_CLIP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
STORAGE_COLUMNS = ("key", "lossless")  # what a version's rows say to the store, and to nobody else


class ExportSource(Protocol):
    """A dataset, or one version of it. `labels` has the schema of `generator.store.labels`, and `split` if it has splits."""

    @property
    def path(self) -> Path:
        """The dataset's folder; nothing is exported into it."""
        ...

    @property
    def labels(self) -> pa.Table:
        """One row per clip."""
        ...

    @property
    def origin(self) -> Origin:
        """Where the clips come from."""
        ...

    @property
    def license(self) -> str | None:
        """The SPDX identifier that its owner chose, or None."""
        ...

    def clip_path(self, clip_id: str) -> Path:
        """Return where a clip's .mp4 lies."""
        ...

    def truth(self, clip_id: str) -> TruthReader:
        """Return the ground truth of a clip's scene; raises InputError where there is none."""
        ...


def source_of(path: Path, ref: str | None = None, license: str | None = None) -> tuple[ExportSource, str]:
    """Return a dataset as it is exported, and what is to be said of that, if anything.

    It is the version of REF or else the one that the folder shows, read from the store; a folder that holds what no version
    does is taken as it lies, split as its version is; one that was never committed has no splits.
    """
    if ref is not None:
        return SnapshotSource(Dataset.open(path, ref), license), ""
    if History(path).refs.head() is None:
        return DatasetSource(WorkingFolder.open(path), license), ""
    history = History.open(path)
    if not (path / LABELS).is_file():  # a clone that was never restored
        return SnapshotSource(Dataset.open(path), license), ""
    state = status(history)
    if state.clean and state.version is not None:
        return SnapshotSource(Dataset(history, state.version), license), ""
    changed = state.differences[0].path if state.differences else "another build"
    ratios = history.split_ratios() if state.version is None else state.version.splits
    words = f"{path} has what no version holds ({changed}) and is exported as it lies; commit it, or give --ref for a version"
    return DatasetSource(WorkingFolder.open(path), license, splits=ratios), words


class DatasetSource:
    """A finished dataset folder as it stands, as a source of exports; `splits` split it as a commit would."""

    def __init__(self, dataset: WorkingFolder, license: str | None = None, *, splits: SplitRatios | None = None) -> None:
        self._dataset = dataset
        self._splits = splits
        self.license = None if license is None else check_licence(license)

    @property
    def path(self) -> Path:
        """The dataset's folder."""
        return self._dataset.path

    @cached_property
    def labels(self) -> pa.Table:
        """One row per clip."""
        labels, splits = self._dataset.labels, self._splits
        if splits is None:
            return labels
        column = [split_of(scene_id, splits) for scene_id in labels["scene_id"].to_pylist()]
        return labels.append_column(pa.field("split", pa.string()), pa.array(column, pa.string()))

    @cached_property
    def origin(self) -> Origin:
        """The plan and the makers of the clips, from the dataset's records."""
        return plan_origin(self._dataset.plan, makers=makers(self._dataset))

    def clip_path(self, clip_id: str) -> Path:
        """Return where a clip's .mp4 lies."""
        return self._dataset.clip_path(clip_id)

    def truth(self, clip_id: str) -> TruthReader:
        """Return the ground truth of a clip's scene; raises InputError where there is none."""
        return self._dataset.truth(clip_id)


class SnapshotSource:
    """One version of a dataset, from its store, as a source of exports; with splits."""

    def __init__(self, snapshot: Dataset, license: str | None = None) -> None:
        self._snapshot = snapshot
        self.license = None if license is None else check_licence(license)

    @property
    def path(self) -> Path:
        """The dataset's folder."""
        return self._snapshot.history.path

    @cached_property
    def labels(self) -> pa.Table:
        """One row per clip, with its split."""
        return self._snapshot.labels.drop_columns(list(STORAGE_COLUMNS))

    @cached_property
    def origin(self) -> Origin:
        """The version's recipes, plans and software."""
        version = self._snapshot.version
        parts = zip(version.recipes, version.plans, strict=True)
        return Origin(
            name=version.name,
            description="; ".join(str(recipe["description"]) for recipe in version.recipes if recipe.get("description")),
            axes=tuple(name for name in AXES if AXES[name].column in self.labels.column_names),
            parts=tuple(Part(recipe=recipe, plan_digest=plan) for recipe, plan in parts),
            engine=engine_version(),
            version=version.id,
            parents=version.parents,
            created=version.time,
            message=version.message,
            blenders=version.software.blender,
            encoders=version.software.encoder,
        )

    def clip_path(self, clip_id: str) -> Path:
        """Return where a clip's .mp4 lies in the store."""
        return self._snapshot[clip_id].path

    def truth(self, clip_id: str) -> TruthReader:
        """Return the ground truth of a clip's scene; raises InputError where there is none."""
        return self._snapshot[clip_id].truth


def makers(dataset: WorkingFolder) -> dict[str, Maker]:
    """Return what made each clip, by clip id, from the store's records; a clip without a record is left out."""
    by_bytes: dict[str, ClipRecord] = {}
    for path in sorted((dataset.store.root / "records").glob("??/*.json")):
        record = dataset.store.record(path.stem)
        if record is not None:
            by_bytes[record.sha256_bytes] = record
    found = {}
    for clip_id, digest in zip(dataset.labels["clip_id"].to_pylist(), dataset.labels["sha256_bytes"].to_pylist(), strict=True):
        if (made := by_bytes.get(digest)) is not None:
            found[clip_id] = Maker(blender=made.blender, encoder=made.encoder, key=made.key)
    return found


def check_clip_ids(labels: pa.Table) -> None:
    """Raise DamagedError for ids that are no plain file names (`../x`, `/x`) or that stand twice."""
    seen: set[str] = set()
    for clip_id in labels["clip_id"].to_pylist():
        if not isinstance(clip_id, str) or not _CLIP_ID.fullmatch(clip_id):
            raise DamagedError(f"labels.parquet has the clip id {clip_id!r}, which is no file name; the labels are damaged")
        if clip_id in seen:
            raise DamagedError(f"labels.parquet has the clip '{clip_id}' twice; the labels are damaged")
        seen.add(clip_id)
