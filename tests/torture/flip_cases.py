"""The datasets and exports whose bits are flipped, and their readers; the trainer's are in `flip_cases_trainer.py`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path

import lance
from flips import Reader
from squares import SplitSource
from squares import build as build_squares
from versions_support import make_clips

from generator.errors import ExportError
from generator.export import DatasetSource
from generator.export.files.marker import MARKER
from generator.export.run import export
from generator.export.source import ExportSource
from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.working.working_folder import WorkingFolder


def versions(path: Path) -> None:
    """Make a dataset with every kind of file: versions, tags, frames, pending records."""
    from kill_cases import dataset

    history = History(dataset(path))
    history.tag("v1", "latest~1")
    make_clips(history.store, 2, seed=8)


def verified(folder: Path) -> tuple[Hashable, bool]:
    """Prove every byte, as `verify --all` does; a damage is something said."""
    return "", not check(History(folder / "ds")).clean


def read_versions(folder: Path) -> tuple[Hashable, bool]:
    """Read every clip, frame and label of all versions, as a training does."""
    history, found = History.open(folder / "ds"), []
    for version in history.log():
        snapshot = Dataset(history, version)
        digests = snapshot.labels["lossless"].to_pylist()
        frames = tuple(history.store.read(digest) for lossless in digests for _, digest in lossless)
        found.append((version.id, repr(snapshot.labels.to_pylist()), tuple(clip.data() for clip in snapshot), frames))
    tags = tuple((name, tag.version) for name, tag in history.refs.tags().items())
    return (tuple(found), tags), False


def an_export(path: Path) -> None:
    """Export a dataset of real videos, by copies."""
    source = DatasetSource(build_squares(path / "ds"))
    export(source, "videofolder", path / "out")


class Full:
    """A source whose disk gives out at a clip, so that an export ends before it is done."""

    def __init__(self, source: ExportSource, after: int) -> None:
        self._source, self._left = source, after
        self.path, self.license, self.origin, self.labels = source.path, source.license, source.origin, source.labels

    def clip_path(self, clip_id: str) -> Path:
        """Return where a clip lies, until the disk gives out."""
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.EIO, "Input/output error")
        return self._source.clip_path(clip_id)


def half_an_export(format: str, after: int) -> Callable[[Path], None]:
    """Return what exports a dataset in part; what the format's library writes is whole."""

    def prepare(path: Path) -> None:
        source = Full(SplitSource(DatasetSource(build_squares(path / "ds"))), after)
        with suppress(ExportError):
            export(source, format, path / "out")

    return prepare


def exported_again(format: str, *, splits: bool = False) -> Callable[[Path], tuple[Hashable, bool]]:
    """Return what exports again: what is there is held against what belongs there. Tables, whose names are random, are read."""

    def read(folder: Path) -> tuple[Hashable, bool]:
        out = folder / "out"
        source: ExportSource = DatasetSource(WorkingFolder.open(folder / "ds"))
        export(SplitSource(source) if splits else source, format, out)  # type: ignore[arg-type]
        files = (file for file in out.rglob("*") if file.is_file() and file.name != MARKER and ".lance" not in str(file))
        tables = [repr(lance.dataset(str(table)).to_table().to_pylist()) for table in sorted(out.rglob("*.lance"))]
        return (tuple(sorted((str(file), file.read_bytes()) for file in files)), *tables), False

    return read


def not_exported(path: Path) -> bool:
    return path.parts[0] != "out"


READERS = [
    Reader(name="dataset, verified", prepare=versions, read=verified),
    Reader(name="dataset, read", prepare=versions, read=read_versions, partial=True),
    Reader(name="export", prepare=an_export, read=exported_again("videofolder"), skip=not_exported, copied=True),
    *(
        Reader(
            name=f"half an export, {name}",
            prepare=half_an_export(name, after),
            read=exported_again(name, splits=True),
            skip=not_exported,
            partial=True,  # what no marker lists yet is written anew
            copied=True,
            long_only=True,
        )
        for name, after in (("videofolder", 9), ("webdataset", 14))
    ),
]
