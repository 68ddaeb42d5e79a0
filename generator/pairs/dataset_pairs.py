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
from generator.versions.reading.dataset import Dataset
from scenes.axes import AXES
from scenes.errors import InputError, closest

Frames = Literal["all", "first", "first_and_last"]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a pair: a clip of the dataset, or some of its frames."""

    clip_id: str
    frames: Frames = "all"

    def of(self, video_THW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frames of this side of its clip's, `[T, H, W, 3]`: all of them, one, or two."""
        if self.frames == "all":
            return video_THW3
        return video_THW3[[0]] if self.frames == "first" else video_THW3[[0, -1]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is given and what is wanted of one scene.

    `control_change` is the target's control less the condition's, by axis; `distance` the same in stops or mired, positive
    towards the stronger effect. Both are zero where both sides are of one clip.
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
        """Return a pair, and the frames of condition and target, uint8 `[T, H, W, 3]`; raises IndexError, DamagedError."""
        pair = self.pairs[position]
        video_THW3 = self.dataset.frames(pair.target.clip_id)
        same = pair.condition.clip_id == pair.target.clip_id
        given_THW3 = video_THW3 if same else self.dataset.frames(pair.condition.clip_id)
        return pair, pair.condition.of(given_THW3), pair.target.of(video_THW3)

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
