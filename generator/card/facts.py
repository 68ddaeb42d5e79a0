"""What a label table says as a whole, for the card and croissant.json: gathered in one pass over its rows.

Sums and counts are kept, the scenes that were seen lie on the disk, and of every judged clip its error is held (eight bytes for
each axis), because a median needs them all.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from generator.io.spill_map import SpillMap
from generator.store.labels import LabelRows
from generator.store.splits import SplitRatios, split_of
from scenes.axes import AXES

_SHAPE = ("width", "height", "fps", "fidelity")
_LAYER = ("family", "layer", "frames")
NAMED_SCENES = 1000
NOT_SPLIT = "not split"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Counts of a label table; `axes`, `splits` and `layers` are rows of the card's tables, by the names of their columns.

    `split_scenes` are the ids of every split's scenes; empty where nothing is split or there are more than `NAMED_SCENES`.
    """

    schema: pa.Schema
    clips: int
    scenes: int
    shapes: tuple[tuple[int, int, int, str], ...]
    seconds: float
    size_bytes: int
    axes: tuple[dict[str, object], ...]
    splits: tuple[dict[str, object], ...]
    layers: tuple[dict[str, object], ...]
    split_scenes: Mapping[str, tuple[str, ...]]


@dataclass(kw_only=True)
class _AxisCount:
    """What is known of one axis so far."""

    name: str
    clips: int = 0
    read: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    errors: array[float] = field(default_factory=lambda: array("d"))
    unproven: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        """Count some rows."""
        values = [value for value in table[AXES[self.name].column].to_pylist() if value is not None]
        self.clips += len(values)
        self.low, self.high = min([self.low, *values]), max([self.high, *values])
        self.read += len(table) - table[f"{self.name}_measured"].null_count
        judged = zip(table[f"{self.name}_error"].to_pylist(), table[f"{self.name}_judged"].to_pylist(), strict=True)
        own = zip(
            table["family"].to_pylist(),
            table[f"{self.name}_judged"].to_pylist(),
            table[f"{self.name}_note"].to_pylist(),
            strict=True,
        )
        self.unproven.update(note for family, was_judged, note in own if family == "blend" and was_judged is False and note)
        self.errors.extend(abs(error) for error, was_judged in judged if was_judged and error is not None)

    def row(self) -> dict[str, object]:
        """Return range of labels, judged and unreadable clips, median and worst error."""
        axis = AXES[self.name]
        unit = axis.error_unit
        errors = np.frombuffer(self.errors) if self.errors else np.empty(0)
        errors.sort()
        return {
            "name": self.name,
            "low": axis.format(self.low) if self.clips else "none",
            "high": axis.format(self.high) if self.clips else "none",
            "clips": self.clips,
            "judged": len(errors),
            "unread": self.clips - self.read,
            "median": f"{_median(errors):.3g} {unit}" if len(errors) else "not judged",
            "worst": f"{errors[-1]:.3g} {unit}" if len(errors) else "not judged",
            "unproven": self.unproven.total(),
            "why": self.unproven.most_common(1)[0][0] if self.unproven else "",
        }


@dataclass(kw_only=True)
class _Count:
    """What is known of all rows so far."""

    seconds: float = 0.0
    size_bytes: int = 0
    shapes: set[tuple[int, int, int, str]] = field(default_factory=set)
    splits: Counter[str] = field(default_factory=Counter)
    layers: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    ratios: SplitRatios | None = None
    split_scenes: dict[str, str] = field(default_factory=dict)  # by scene: one more than may be named, at most

    def add(self, table: pa.Table, seen: SpillMap) -> None:
        """Count some rows; which scenes they are of is noted in `seen`."""
        for frames, fps in zip(table["frames"].to_pylist(), table["fps"].to_pylist(), strict=True):
            self.seconds += frames / fps
        self.size_bytes += sum(table["size_bytes"].to_pylist())
        self.shapes.update(_tuples(table, _SHAPE))
        scenes = table["scene_id"].to_pylist()
        splits = self._splits(table, scenes)
        room = NAMED_SCENES + 1 - len(self.split_scenes)
        new = {scene: split for scene, split in zip(scenes, splits, strict=True) if scene not in self.split_scenes}
        self.split_scenes.update(islice(new.items(), max(0, room)))
        layers = _tuples(table, _LAYER)
        self.splits.update(splits)
        self.layers.update(layers)
        known = {
            *((scene,) for scene in scenes),
            *zip(scenes, splits, strict=True),
            *((scene, *layer) for scene, layer in zip(scenes, layers, strict=True)),
        }
        seen.put((json.dumps(one), None) for one in known)

    def _splits(self, table: pa.Table, scenes: Sequence[str]) -> list[str]:
        if "split" in table.column_names:
            return list(table["split"].to_pylist())
        ratios = self.ratios
        return [NOT_SPLIT if ratios is None else split_of(scene, ratios) for scene in scenes]

    def named(self) -> dict[str, tuple[str, ...]]:
        """Return the scenes of every split, or nothing where they are not split or too many to name."""
        found: dict[str, list[str]] = {}
        if len(self.split_scenes) <= NAMED_SCENES and NOT_SPLIT not in self.splits:
            for scene, split in self.split_scenes.items():
                found.setdefault(split, []).append(scene)
        return {split: tuple(scenes) for split, scenes in found.items()}


def gather(axes: Sequence[str], labels: LabelRows, splits: SplitRatios | None = None) -> Facts:
    """Return what label rows say of these axes and of themselves; `splits` split them where they have no column for it."""
    count, counts = _Count(ratios=splits), [_AxisCount(name=name) for name in axes]
    with SpillMap() as seen:
        for table in labels.tables():
            count.add(table, seen)
            for axis in counts:
                axis.add(table)
        scenes: Counter[tuple[object, ...]] = Counter(tuple(json.loads(key)[1:]) for key in seen)
    order = sorted(count.layers, key=lambda layer: (layer[0], -layer[1], layer[2]))
    return Facts(
        schema=labels.schema,
        clips=labels.rows,
        scenes=scenes[()],
        shapes=tuple(sorted(count.shapes)),
        seconds=count.seconds,
        size_bytes=count.size_bytes,
        axes=tuple(axis.row() for axis in counts),
        splits=tuple({"name": name, "clips": clips, "scenes": scenes[(name,)]} for name, clips in count.splits.items()),
        layers=tuple(
            {**dict(zip(_LAYER, layer, strict=True)), "clips": count.layers[layer], "scenes": scenes[layer]} for layer in order
        ),
        split_scenes=count.named(),
    )


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _median(ordered: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else float((ordered[middle - 1] + ordered[middle]) / 2)
