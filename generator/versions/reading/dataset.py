"""Reading one version of a dataset, lazily: labels as an Arrow table, frames as uint8 `[T, H, W, 3]`.

    snapshot = Dataset.open("my-dataset", "v1")
    train = snapshot.split("train")
    for clip in train.shuffled(seed=0):
        frames_THW3, exposure_s = clip.frames(), clip["shutter_exposure_s"]
    loader = torch.utils.data.DataLoader(train.where("frames = 9"), batch_size=4, num_workers=2)

A batch of torch's loader holds clips as `samples()` gives them; a single clip, `train[0]`, is a `Clip`, which collates in no
batch, so that what fetches clips one by one (`ConcatDataset`) takes `train.samples()`.

Everything comes from the store, so the working folder may show another version, or be edited, meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from generator.media.video import decode
from generator.store.splits import SPLITS
from generator.truth.read_truth import Flow, TruthReader
from generator.truth.scene_file import FrameCamera, SceneObject
from generator.truth.truth_names import truth_files
from generator.versions.history.history import History
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_rows
from scenes.axes import AXES
from scenes.errors import InputError, closest

VIDEO = "video"  # of a sample; the label `frames` is their number


class Clip:
    """One clip of a snapshot: its labels by column (`clip["caption"]`), its bytes and frames on demand."""

    def __init__(self, snapshot: Dataset, position: int) -> None:
        self._snapshot = snapshot
        self._position = position

    @property
    def clip_id(self) -> str:
        """The clip's identity."""
        return self._snapshot.clip_ids[self._position]

    @property
    def labels(self) -> dict[str, Any]:
        """The clip's row, by column."""
        return dict(self._snapshot.labels.slice(self._position, 1).to_pylist()[0])

    def __getitem__(self, column: str) -> Any:
        """Return one label; raises InputError with the closest column."""
        table = self._snapshot.labels
        if column not in table.column_names:
            near = closest(column, table.column_names)
            raise InputError(f"no label '{column}'{near}; there are {', '.join(table.column_names)}")
        return table[column][self._position].as_py()

    @property
    def path(self) -> Path:
        """Where the clip's MP4 lies in the store, read-only."""
        return self._snapshot.history.store.path(self._snapshot.digests[self._position])

    def __repr__(self) -> str:
        labels = self.labels
        picture = f"{labels['frames']} frames of {labels['width']}x{labels['height']}" if "width" in labels else ""
        said = [axis.format(labels[axis.column]) for axis in AXES.values() if labels.get(axis.column) is not None]
        return f"Clip({', '.join([self.clip_id, *filter(None, [picture, *said])])}, {labels['caption']!r})"

    def data(self) -> bytes:
        """Return the clip's MP4, verified by its hash; raises DamagedError."""
        return self._snapshot.history.store.read(self._snapshot.digests[self._position])

    def frames(self) -> NDArray[np.uint8]:
        """Return the decoded sRGB frames, uint8 `[T, H, W, 3]`; raises DamagedError for bytes that are not as committed."""
        return decode(self.data())

    @property
    def truth(self) -> TruthReader:
        """The ground truth of the clip's scene, which all its clips share; raises InputError where the version has none."""
        where = f"clip {self.clip_id} of version {self._snapshot.version.short}"
        store = self._snapshot.history.store
        return TruthReader(truth_files(self["lossless"]), store.read, where, lambda digest: store.size(digest) or 0)

    def depth(self, along: Literal["axis", "distance"] = "axis") -> NDArray[np.float32]:
        """Return depth in metres, float32 `[T, H, W]`; see `TruthReader.depth`."""
        return self.truth.depth(along)

    def flow(self) -> Flow:
        """Return flow in pixels, forward and backward float32 `[T-1, H, W, 2]`, and what of it is seen; see `Flow`."""
        return self.truth.flow()

    def instances(self) -> NDArray[np.uint16]:
        """Return object ids, uint16 `[T, H, W]`, 0 the background."""
        return self.truth.instances()

    def normals(self, space: Literal["world", "camera"] = "world") -> NDArray[np.float32]:
        """Return unit normals, float32 `[T, H, W, 3]`; see `TruthReader.normals`."""
        return self.truth.normals(space)

    def sharp(self) -> NDArray[np.uint8]:
        """Return the scene as a pinhole without exposure time sees it, sRGB uint8 `[T, H, W, 3]`."""
        return self.truth.sharp()

    def objects(self) -> tuple[SceneObject, ...]:
        """Return the scene's objects with their boxes and poses, frame by frame."""
        return self.truth.scene.objects

    def cameras(self) -> tuple[FrameCamera, ...]:
        """Return the camera of every frame: intrinsics, and poses as OpenCV and as Blender write them."""
        return self.truth.scene.cameras


class Dataset:
    """The clips of one version, or some of them, in order of id. Nothing is read before it is asked for."""

    def __init__(self, history: History, version: Version, rows: pa.Table | None = None) -> None:
        self.history = history
        self.version = version
        self._rows = rows

    @classmethod
    def open(cls, path: Path | str, ref: str = "latest") -> Dataset:
        """Open a version of the dataset in a folder; raises InputError for a folder or a REF that is none."""
        history = History.open(path)
        return cls(history, history.version(ref))

    def __repr__(self) -> str:
        return f"Dataset({self.history.path}, version {self.version.short}, {len(self)} clips)"

    def __len__(self) -> int:
        return self.version.summary.clips if self._rows is None else int(self._rows.num_rows)

    @property
    def labels(self) -> pa.Table:
        """The label table: the columns of `generator.store.labels`, and `key`, `lossless`, `split`; one row per clip."""
        if self._rows is None:
            self._rows = read_rows(self.history.store, self.history.manifest(self.version))
        return self._rows

    @cached_property
    def clip_ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(self.labels["clip_id"].to_pylist())

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The sha256 of every clip's MP4, in order."""
        return tuple(self.labels["sha256_bytes"].to_pylist())

    @cached_property
    def _position(self) -> dict[str, int]:
        return {clip_id: position for position, clip_id in enumerate(self.clip_ids)}

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._position

    @overload
    def __getitem__(self, which: str | int) -> Clip: ...

    @overload
    def __getitem__(self, which: slice) -> Dataset: ...

    def __getitem__(self, which: str | int | slice) -> Clip | Dataset:
        """Return a clip by id or position, or the clips of a slice; raises InputError with the closest id, IndexError."""
        if isinstance(which, slice):
            return self.take(range(len(self))[which])
        if isinstance(which, str):
            if which not in self._position:
                raise InputError(f"no clip '{which}' in version {self.version.short}{closest(which, self.clip_ids)}")
            which = self._position[which]
        return Clip(self, range(len(self))[which])

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Return the samples of a batch, as torch's DataLoader, Subset and random_split ask for them; raises IndexError."""
        return [self._samples[position] for position in positions]

    @cached_property
    def _samples(self) -> Samples:
        return self.samples()

    def frames(self, clip_id: str) -> NDArray[np.uint8]:
        """Return one clip's decoded sRGB frames, uint8 `[T, H, W, 3]`."""
        return self[clip_id].frames()

    def __iter__(self) -> Iterator[Clip]:
        return (self[position] for position in range(len(self)))

    def shuffled(self, seed: int, *, epoch: int = 0) -> Iterator[Clip]:
        """Yield every clip once, in an order that seed and epoch alone decide, on any machine."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        return (self[int(position)] for position in order)

    def split(self, name: str) -> Dataset:
        """Return the clips of train, validation or test; raises InputError for another name."""
        if name not in SPLITS:
            raise InputError(f"no split '{name}'{closest(name, SPLITS)}; there are {', '.join(SPLITS)}")
        return Dataset(self.history, self.version, self.labels.filter(pc.equal(self.labels["split"], name)))

    def take(self, positions: Sequence[int]) -> Dataset:
        """Return the clips at some positions, in that order."""
        return Dataset(self.history, self.version, self.labels.take(pa.array(positions, pa.int64())))

    def samples(self, *columns: str) -> Samples:
        """Return the clips as plain dicts, for `DataLoader(snapshot)`, or `DataLoader(snapshot.samples("frames"))`.

        A sample is a dict of `video` (uint8 `[T, H, W, 3]`) and columns: id, caption and the controls that all clips have, or
        those that are named. Raises InputError for a column that is not there, or empty or nested in some clip.
        """
        return Samples(self, columns)

    def where(self, condition: str) -> Dataset:
        """Return the clips that meet an SQL condition, as in `stopdown query`."""
        from generator.versions.reading.query import positions_where  # DuckDB is loaded only where it is asked

        return self.take(positions_where(self.labels, condition))


class Samples:
    """The clips of a snapshot as plain dicts by position: map-style, of values that collate, and cheap to send to workers."""

    def __init__(self, snapshot: Dataset, columns: Sequence[str] = ()) -> None:
        labels = snapshot.labels
        whole = [name for name in labels.column_names if labels[name].null_count == 0]
        controls = [f"{axis}_control" for axis in AXES if f"{axis}_control" in whole]
        self.columns = tuple(columns) or ("clip_id", "caption", *controls)
        for name in self.columns:
            if name not in labels.column_names:
                near = closest(name, labels.column_names)
                raise InputError(f"no label '{name}'{near}; there are {', '.join(labels.column_names)}")
            if name not in whole or pa.types.is_nested(labels.schema.field(name).type):
                raise InputError(f"the label '{name}' is empty or nested in some clip, and no batch holds that; choose others")
        self._rows = labels.select(self.columns).to_pylist()
        self._digests = snapshot.digests
        self._store = snapshot.history.store

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return one clip's columns and its frames under `video`, verified by their hash; raises IndexError, DamagedError."""
        place = range(len(self))[position]
        return {**self._rows[place], VIDEO: decode(self._store.read(self._digests[place]))}

    def __repr__(self) -> str:
        return f"Samples({len(self)} clips: {', '.join(self.columns)}, {VIDEO})"
