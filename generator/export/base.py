"""What a format is: a name, the presets it knows, and a pure function from a job to entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from generator.export.files.entries import ClipFile, Entry, StillFile
from generator.export.source import ExportSource

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a person may choose. `root` is the export's folder as the trainer will see it, written into its configuration.

    `pairs` is the kind of pairs that a format of pairs holds.
    """

    preset: str | None = None
    pairs: str | None = None
    split: str | None = None
    limit: int | None = None
    root: str = "."
    copy: bool = False


@dataclass(frozen=True)
class ExportJob:
    """One export: a source, the label rows that were chosen from it, and the options (`preset` is settled)."""

    source: ExportSource
    table: pa.Table
    options: ExportOptions

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The chosen label rows, in the dataset's order."""
        return tuple(self.table.to_pylist())

    @cached_property
    def splits(self) -> dict[str, tuple[Row, ...]]:
        """The rows by split, in order of first appearance; one split `train` where the dataset has none."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.get("split") or "train", []).append(row)
        return {name: tuple(rows) for name, rows in found.items()}

    @property
    def frame_counts(self) -> tuple[int, ...]:
        """The frame counts that occur, ascending."""
        return tuple(sorted({row["frames"] for row in self.rows}))

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The picture sizes (width, height) that occur, in pixels."""
        return tuple(sorted({(row["width"], row["height"]) for row in self.rows}))

    def place(self, path: str) -> str:
        """Return a path of the export as the trainer will see it."""
        return path if self.options.root == "." else f"{self.options.root.rstrip('/')}/{path}"


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """One format. `several_splits` says that it holds splits side by side; the others hold one set of clips.

    `presets` begins with the default one; `usage` says in one line how the real reader opens the export, `versions` which
    versions of it do; `holds_labels` says that the labels are in the format's own files, so that no labels.parquet is put
    beside them; `own_card` that it writes its own README.md; `takes_pairs` that it holds pairs, of the kind in the options;
    `needs_truth` that it is made of ground truth;
    `notes` are lines on what the real reader will not read as it is.
    """

    summary: str
    entries: Callable[[ExportJob], Iterable[Entry]]
    usage: Callable[[ExportJob], str]
    versions: str = ""
    several_splits: bool = False
    holds_labels: bool = False
    own_card: bool = False
    takes_pairs: bool = False
    needs_truth: bool = False
    presets: Mapping[str, str] | None = None
    notes: Callable[[ExportJob], tuple[str, ...]] = lambda job: ()


def clip_file(row: Row, folder: str) -> ClipFile:
    """Return the entry of a clip's .mp4 in a folder."""
    return ClipFile(path=f"{folder}/{row['clip_id']}.mp4", clip_id=row["clip_id"], sha256=row["sha256_bytes"])


def media_file(row: Row, folder: str) -> ClipFile | StillFile:
    """Return the entry of a clip: .mp4, or .png for a clip of one frame (trainers bucket stills as pictures)."""
    if row["frames"] > 1:
        return clip_file(row, folder)
    return StillFile(path=f"{folder}/{row['clip_id']}.png", clip_id=row["clip_id"], sha256=row["sha256_bytes"])
