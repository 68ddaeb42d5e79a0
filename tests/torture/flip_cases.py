"""The folders whose bits are flipped, and their readers."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lance
from flips import Reader
from squares import SplitSource
from squares import build as build_squares
from versions_support import make_clips

from generator.export import DatasetSource
from generator.export.folder import ExportError
from generator.export.marker import MARKER
from generator.export.run import export
from generator.export.source import ExportSource
from generator.versions.check import check
from generator.versions.history import History
from generator.versions.snapshot import Snapshot
from generator.working_folder import WorkingFolder


@contextmanager
def heard() -> Iterator[list[str]]:
    """Yield the warnings that the trainer gives."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("stopdown")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def versions(path: Path) -> None:
    """Make a dataset with every kind of file: versions, tags, frames, pending records."""
    from kill_cases import dataset

    history = History(dataset(path))
    history.tag("v1", "latest~1")
    make_clips(history.store, 2, seed=8)


def proven(folder: Path) -> tuple[Hashable, bool]:
    """Prove every byte, as `verify --all` does; a damage is something said."""
    return "", not check(History(folder / "ds")).clean


def read_versions(folder: Path) -> tuple[Hashable, bool]:
    """Read every clip, frame and label of all versions, as a training does."""
    history, found = History.open(folder / "ds"), []
    for version in history.log():
        snapshot = Snapshot(history, version)
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


def an_adapter(path: Path) -> None:
    """Save an adapter."""
    from torch_work import save

    save([str(path / "a"), "3", "0"])


def attached(folder: Path) -> tuple[Hashable, bool]:
    """Attach the adapter, and return what it then is, its card and all parameters."""
    from trainer_support import tiny_transformer

    from trainer.adapter.folder import attach_saved

    card, adapters = attach_saved({"transformer": tiny_transformer()}, folder / "a")
    parameters = {name: tensor.detach().numpy().tobytes() for name, tensor in adapters["transformer"].parameters().items()}
    return (card.model_dump_json(), tuple(sorted(parameters.items()))), False


def not_exported(path: Path) -> bool:
    return path.parts[0] != "out"


def a_training(path: Path) -> None:
    """Train, with two checkpoints kept."""
    from torch_work import train

    train([str(path / "run")])


def not_a_checkpoint(path: Path) -> bool:
    return not any(part.startswith("checkpoint-") for part in path.parts)


def trained_on(folder: Path) -> tuple[Hashable, bool]:
    """Train the same run on from its checkpoints, and return the weights that it ends with and the number of its steps."""
    from torch_work import train

    with heard() as said:
        train([str(folder / "run")])
    result = folder / "run" / "result"
    weights = hashlib.sha256((result / "weights.safetensors").read_bytes()).hexdigest()
    return (weights, (result / "step.json").read_text()), bool(said)


def a_cache(path: Path) -> None:
    """Keep tensors of several types and shapes."""
    cache, tensors = _cache(path)
    for key, tensor in tensors.items():
        cache.write(key, tensor)


def _cache(path: Path):  # type: ignore[no-untyped-def]  # torch is imported where it is needed
    import torch

    from trainer.training.cache import TensorCache, cache_key

    shapes = ((4, 2, 3), (7,), (1, 5))
    types = (torch.float32, torch.bfloat16, torch.int64)
    kept = zip(shapes, types, strict=True)
    tensors = {
        cache_key({"number": n}): torch.arange(1000)[n:][: torch.Size(s).numel()].reshape(s).to(t)
        for n, (s, t) in enumerate(kept)
    }
    return TensorCache(path / "cache"), tensors


def cached(folder: Path) -> tuple[Hashable, bool]:
    """Ask for every tensor, computing it anew where it is not proven."""
    cache, tensors = _cache(folder)
    with heard() as said:
        found = [(key, cache.remember(key, lambda tensor=tensor: tensor)) for key, tensor in tensors.items()]  # type: ignore[misc]
    return tuple((key, str(t.dtype), tuple(t.shape), tuple(t.flatten().tolist())) for key, t in found), bool(said)


def a_run(path: Path) -> None:
    """Go through the stages of a run."""
    from torch_work import stages

    stages([str(path / "run")])


def run_on(folder: Path) -> tuple[Hashable, bool]:
    """Go through them again, and return what the run then says of itself."""
    from torch_work import told_stages

    from trainer.run.compare import summarise
    from trainer.run.stages import read_state

    settings = summarise(folder / "run").settings  # as `stopdown runs` does, before the next run writes some files anew
    said = told_stages(folder / "run")
    state = read_state(folder / "run").stages
    summaries = json.dumps({name: record.model_dump(exclude={"wall_s"}) for name, record in state.items()})
    return (summaries, repr(settings)), said


READERS = [
    Reader(name="dataset, proven", prepare=versions, read=proven),
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
    Reader(name="adapter", prepare=an_adapter, read=attached, skip=lambda path: path.name == "README.md"),
    Reader(
        name="checkpoints",
        prepare=a_training,
        read=trained_on,
        skip=not_a_checkpoint,
        copied=True,
    ),
    Reader(name="training cache", prepare=a_cache, read=cached, copied=True),
    Reader(name="run folder", prepare=a_run, read=run_on, skip=lambda path: path.parts[0] != "run", copied=True),
]
