"""Opens one version of a dataset for training: checked records of its clips by split, and the unit laws that they obey."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from diffusers import WanPipeline
from numpy.typing import NDArray

from generator.errors import DamagedError
from generator.media.video import frames_digest
from generator.versions.history.version import Version
from generator.versions.manifest.rows import axes_of
from generator.versions.reading.dataset import Dataset
from scenes.axes import AXES, UnitLaw
from scenes.errors import InputError, closest
from trainer.control.laws import AxisControl, axis_control
from trainer.pipelines.controlled_wan import check_size

COLUMNS = ("clip_id", "scene_id", "caption", "sha256_frames", "frames", "height", "width", "fps")
LAW_TOLERANCE = 1e-6  # relative; labels are rounded to nine digits


@dataclass(frozen=True, kw_only=True)
class TrainingClip:
    """A clip to train on or to validate with. `controls` follow the axes of its data; another is neutral, 0."""

    clip_id: str
    scene_id: str
    caption: str
    frames_sha256: str
    frames: int
    height: int
    width: int
    fps: int
    controls: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width."""
        return self.frames, self.height, self.width


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The clips of a version to train on (at least one) and held out (may be none), in order of id.

    `notes` are lines that a person should read, such as that nothing is held out.
    """

    version_id: str
    axes: tuple[AxisControl, ...]
    train: tuple[TrainingClip, ...]
    validation: tuple[TrainingClip, ...]
    notes: tuple[str, ...]
    snapshot: Dataset = field(repr=False)

    def frames(self, record: TrainingClip) -> NDArray[np.uint8]:
        """Return a clip's frames `[T, H, W, 3]`, sRGB, verified by their digest; raises DamagedError."""
        frames_THW3 = self.snapshot.frames(record.clip_id)
        if frames_digest(frames_THW3) != record.frames_sha256:
            raise DamagedError(
                f"clip {record.clip_id} decodes to other frames than were committed; run `stopdown verify` on the dataset"
            )
        return frames_THW3


def open_data(
    path: Path | str,
    ref: str = "latest",
    axes: Sequence[str] | None = None,
    *,
    train_split: str = "train",
    validation_split: str = "validation",
) -> TrainingData:
    """Open the version that REF names for training on `axes`, in that order (None: all that it has; empty: content only).

    Raises InputError for a folder or REF that is none, an axis that the version or its training split does not vary, unit
    laws that disagree, equal or unknown splits, and a version without training clips.
    """
    snapshot = Dataset.open(path, ref)
    labels, version = snapshot.labels, snapshot.version
    _check_columns(labels, version)
    names = _checked_axes(labels, axes, version)
    if train_split == validation_split:
        raise InputError(f"'{train_split}' is to be learned from and held out; give two splits")
    controls = tuple(axis_control(name, unit_law(version, labels, name)) for name in names)
    train, validation = (_records(snapshot.split(split).labels, names) for split in (train_split, validation_split))
    if not train:
        raise InputError(f"version {version.short} has no clip in the split '{train_split}'; build more scenes")
    for position, name in enumerate(names):
        if not any(record.controls[position] for record in train):
            raise InputError(f"no clip of the split '{train_split}' varies {name}; build more scenes of it")
    return TrainingData(
        version_id=version.id,
        axes=controls,
        train=train,
        validation=validation,
        notes=_notes(validation, validation_split, names, len(set(labels["scene_id"].to_pylist()))),
        snapshot=snapshot,
    )


def unit_law(version: Version, labels: pa.Table, axis: str) -> UnitLaw:
    """Return the unit law of an axis in a version's recipes; raises InputError where recipes or labels disagree with it."""
    laws = {_recipe_law(recipe, axis) for recipe in version.recipes if _uses(recipe, axis)} or {AXES[axis].default_law}
    if len(laws) > 1:
        written = " and ".join(str(law) for law in sorted(laws, key=repr))
        raise InputError(
            f"the recipes of version {version.short} give {axis} different unit laws ({written}); train on one of them"
        )
    law = laws.pop()
    used = labels.filter(labels[f"{axis}_control"].is_valid())
    values = used[AXES[axis].column].to_numpy()
    expected = law.values(used[f"{axis}_control"].to_numpy())
    if not np.allclose(values, expected, rtol=LAW_TOLERANCE, atol=law.slack(LAW_TOLERANCE)):
        away = values - expected if law.additive else np.log(values / expected)
        worst = int(np.argmax(np.abs(away)))
        raise InputError(
            f"clip {used['clip_id'][worst].as_py()} is labelled {axis} {values[worst]:g}, the version's unit law gives "
            f"{expected[worst]:g}; build the dataset again with one law"
        )
    return law


def check_sizes(records: Sequence[TrainingClip], pipe: WanPipeline) -> None:
    """Raise InputError naming a clip whose frames or size the backbone cannot take."""
    seen: set[tuple[int, int, int]] = set()
    for record in records:
        if record.shape not in seen:
            seen.add(record.shape)
            try:
                check_size(pipe, height=record.height, width=record.width, num_frames=record.frames)
            except InputError as error:
                raise InputError(f"clip {record.clip_id}: {error}") from None


def _check_columns(labels: pa.Table, version: Version) -> None:
    missing = [name for name in COLUMNS if name not in labels.column_names]
    if missing:
        raise InputError(f"version {version.short} has no label '{missing[0]}', which training needs; build it with `stopdown`")


def _checked_axes(labels: pa.Table, axes: Sequence[str] | None, version: Version) -> tuple[str, ...]:
    """Return the axes asked for, or all that any clip has in the registry's order."""
    columns = axes_of(labels.column_names)
    present = [name for name in AXES if name in columns and labels[f"{name}_control"].null_count < labels.num_rows]
    if axes is None:
        if not present:
            raise InputError(f"version {version.short} has no control axis; build a dataset with a pyramid over one")
        return tuple(present)
    for name in axes:
        if name not in present:
            raise InputError(
                f"version {version.short} has no axis '{name}'{closest(name, present)}; it has {', '.join(present) or 'none'}"
            )
    if len(set(axes)) != len(axes):
        raise InputError(f"axes {', '.join(axes)}: one stands twice; name each once")
    return tuple(axes)


def _uses(recipe: Mapping[str, Any], axis: str) -> bool:
    return any(axis in pyramid.get("axes", ()) for pyramid in recipe.get("pyramid", ()))


def _recipe_law(recipe: Mapping[str, Any], axis: str) -> UnitLaw:
    override, default = recipe.get("axes", {}).get(axis, {}), AXES[axis].default_law
    given = {key: override[key] for key in ("neutral", "ratio", "step") if override.get(key) is not None}
    return replace(default, **given)


def _records(labels: pa.Table, axes: Sequence[str]) -> tuple[TrainingClip, ...]:
    columns = [labels[name].to_pylist() for name in COLUMNS]
    columns += [[0.0 if c is None else float(c) for c in labels[f"{name}_control"].to_pylist()] for name in axes]
    records = []
    for clip_id, scene_id, caption, digest, frames, height, width, fps, *controls in zip(*columns, strict=True):
        if not all(map(math.isfinite, controls)):
            raise InputError(f"clip {clip_id} has a control that is no number; build it again")
        records.append(
            TrainingClip(
                clip_id=clip_id,
                scene_id=scene_id,
                caption=caption,
                frames_sha256=digest,
                frames=frames,
                height=height,
                width=width,
                fps=fps,
                controls=tuple(controls),
            )
        )
    return tuple(records)


def _notes(validation: Sequence[TrainingClip], split: str, axes: Sequence[str], scenes: int) -> tuple[str, ...]:
    if not validation:
        return (f"none of the {scenes} scenes falls into the split '{split}'; nothing is held out",)
    return tuple(
        f"no clip of the split '{split}' varies {axis}; its loss says nothing of {axis}"
        for position, axis in enumerate(axes)
        if not any(record.controls[position] for record in validation)
    )
