"""Pairs that a version of a dataset implies: two views of one scene, of which one is given and the other is wanted.

Nothing of them is stored: they follow from the labels. Both sides of a pair are of one scene, so a pair lies in
the split of its scene.

Array legend: T frames, H rows, W columns, 3 colours (sRGB, uint8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, permutations
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from generator.versions.manifest.rows import axes_of
from generator.versions.reading.dataset import Clip, Dataset
from scenes.axes import AXES
from scenes.errors import InputError, closest
from scenes.spec import Optics

Frames = Literal["all", "first", "first_and_last", "sharp"]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a pair: a clip of the dataset, some of its frames, or its scene's sharp clip (docs/truth.md)."""

    clip_id: str
    frames: Frames = "all"

    def of(self, clip: Clip) -> NDArray[np.uint8]:
        """Return the frames of this side, sRGB `[T, H, W, 3]`.

        Raises DamagedError, and InputError for a sharp clip that the version does not have.
        """
        if self.frames == "sharp":
            return clip.sharp()
        video_THW3 = clip.frames()
        if self.frames == "all":
            return video_THW3
        return video_THW3[[0]] if self.frames == "first" else video_THW3[[0, -1]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is given and what is wanted of one scene.

    `control_change` is the target's control less the condition's, by axis; `distance` the same in stops or mired, positive
    towards the stronger effect. Both are zero where both sides are of one clip, and empty where one is the sharp clip, whose
    exposure time and lens have no size.
    """

    kind: str
    scene_id: str
    condition: Side
    target: Side
    caption: str
    control_change: Mapping[str, float]
    distance: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PairKind:
    """One way to pair clips of a scene: what it is for, and the sides that the rows of a scene give."""

    summary: str
    sides: Callable[[list[Row], tuple[str, ...]], Iterator[tuple[Side, Side]]]
    lacking: str


def _neutral(rows: list[Row], axes: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    for anchor in [row for row in rows if is_anchor(row, axes)][:1]:
        for row in rows:
            if row["clip_id"] != anchor["clip_id"]:
                yield Side(clip_id=anchor["clip_id"]), Side(clip_id=row["clip_id"])


def _any(rows: list[Row], axes: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    for given, wanted in permutations(rows, 2):
        yield Side(clip_id=given["clip_id"]), Side(clip_id=wanted["clip_id"])


def _still(rows: list[Row], axes: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    for row in rows:
        if row["frames"] > 1:
            yield Side(clip_id=row["clip_id"], frames="first"), Side(clip_id=row["clip_id"])


def _keyframes(rows: list[Row], axes: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    for row in rows:
        if row["frames"] > 2:
            yield Side(clip_id=row["clip_id"], frames="first_and_last"), Side(clip_id=row["clip_id"])


def _sharp(rows: list[Row], axes: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    for row in rows:
        if _only_blurred(row, axes):
            yield Side(clip_id=row["clip_id"], frames="sharp"), Side(clip_id=row["clip_id"])


def _deblur(rows: list[Row], axes: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    for sharp, blurred in _sharp(rows, axes):
        yield blurred, sharp


def _only_blurred(row: Row, axes: tuple[str, ...]) -> bool:
    """Whether all that a clip's controls do is done by the camera's optics: its sharp clip then differs by the blur alone."""
    values = {axis: row[AXES[axis].column] for axis in axes if row[AXES[axis].column] is not None}
    return bool(values) and all(AXES[axis].apply_optics(Optics(), value) != Optics() for axis, value in values.items())


BLURRED = "no clip differs from its scene's sharp one by blur alone; pair clips of axes that act on the optics, and of no other"

PAIR_KINDS: Mapping[str, PairKind] = MappingProxyType(
    {
        "neutral": PairKind(
            summary="a scene's clip at c = 0 -> each of its other clips",
            sides=_neutral,
            lacking="no scene has a clip at c = 0 beside others; write anchor = true in [[pyramid]] and build again: only the "
            "anchors are rendered",
        ),
        "any": PairKind(
            summary="every clip of a scene -> every other; the control is the difference",
            sides=_any,
            lacking="no scene has two clips; give layers above 1, or anchor = true in [[pyramid]]",
        ),
        "still": PairKind(
            summary="the first frame of a clip -> the clip",
            sides=_still,
            lacking="every clip is a still; give frames = 5 or more",
        ),
        "keyframes": PairKind(
            summary="the first and the last frame of a clip -> the clip",
            sides=_keyframes,
            lacking="no clip has more than two frames; give frames = 5 or more",
        ),
        "sharp": PairKind(
            summary="the scene without any blur -> a clip that the optics blur (needs the truth pass sharp)",
            sides=_sharp,
            lacking=BLURRED,
        ),
        "deblur": PairKind(
            summary="a clip that the optics blur -> the scene without any blur (needs the truth pass sharp)",
            sides=_deblur,
            lacking=BLURRED,
        ),
    }
)


def is_anchor(row: Row, axes: tuple[str, ...]) -> bool:
    """Whether a label row is its scene's clip at exactly c = 0: each axis that the clip controls is neutral."""
    controls = [row[f"{axis}_control"] for axis in axes]
    return any(control is not None for control in controls) and not any(controls)


def find_kind(name: str) -> PairKind:
    """Return a kind of pairs by name; raises InputError with the closest."""
    if name not in PAIR_KINDS:
        raise InputError(f"no kind of pairs '{name}'{closest(name, PAIR_KINDS)}; kinds: {', '.join(PAIR_KINDS)}")
    return PAIR_KINDS[name]


def pairs_of(labels: pa.Table, kind: str) -> tuple[Pair, ...]:
    """Return the pairs of a kind that label rows give, scene by scene in order of id.

    Raises InputError for an unknown kind, and where no scene gives a pair, with what to add to the recipe.
    """
    pair_kind, axes = find_kind(kind), axes_of(labels.column_names)
    columns = ["clip_id", "scene_id", "frames", "caption"]
    columns += [name for axis in axes for name in (f"{axis}_control", AXES[axis].column)]
    rows = sorted(labels.select(columns).to_pylist(), key=lambda row: (row["scene_id"], row["clip_id"]))
    found = []
    for scene_id, group in groupby(rows, key=lambda row: row["scene_id"]):
        scene = list(group)
        by_id = {row["clip_id"]: row for row in scene}
        for condition, target in pair_kind.sides(scene, axes):
            change, distance = _difference(by_id[condition.clip_id], by_id[target.clip_id], axes)
            if "sharp" in (condition.frames, target.frames):
                change, distance = {}, {}
            found.append(
                Pair(
                    kind=kind,
                    scene_id=scene_id,
                    condition=condition,
                    target=target,
                    caption=by_id[target.clip_id]["caption"],
                    control_change=change,
                    distance=distance,
                )
            )
    if not found:
        raise InputError(f"no pairs of kind '{kind}': {pair_kind.lacking}")
    return tuple(found)


class DatasetPairs:
    """The pairs of one kind in a version of a dataset, with their frames on demand; map-style, as torch's DataLoader asks."""

    def __init__(self, dataset: Dataset, kind: str) -> None:
        self.dataset = dataset
        self.pairs = pairs_of(dataset.labels, kind)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> tuple[Pair, NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a pair, and the frames of condition and target, uint8 `[T, H, W, 3]`.

        Raises IndexError, DamagedError, and InputError for a sharp clip of a version that has none.
        """
        pair = self.pairs[position]
        condition_THW3, target_THW3 = (side.of(self.dataset[side.clip_id]) for side in (pair.condition, pair.target))
        return pair, condition_THW3, target_THW3

    def __repr__(self) -> str:
        return f"DatasetPairs({len(self)} pairs of kind {self.pairs[0].kind} in {self.dataset!r})"


def _difference(given: Row, wanted: Row, axes: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
    """Return by how much the target's control and value differ from the condition's, for the axes that the clips control."""
    change, distance = {}, {}
    for axis in axes:
        column = AXES[axis].column
        if given[column] is not None and wanted[column] is not None:
            change[axis] = wanted[f"{axis}_control"] - given[f"{axis}_control"]
            distance[axis] = AXES[axis].distance(wanted[column], given[column])
    return change, distance
