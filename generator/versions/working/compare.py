"""The working folder against a version: what lies there, what should, and where they differ.

A view of a clip is verified by being the object's own file (a hard link); anything else is verified by its hash, which an index
remembers by size, time and inode. The index is a cache: without it, files are hashed again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from generator.errors import DamagedError
from generator.io.atomic import NOT_WRITABLE, file_digest, write_atomic
from generator.io.checksummed_json import checksummed, parse_checksummed, read_checksummed, sha256, write_checksummed
from generator.store.labels import write_labels
from generator.truth.truth_names import FOLDER as TRUTH
from generator.truth.truth_names import view_path
from generator.versions.history.history import History
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import read_leaf, read_rows
from generator.versions.manifest.rows import labels_of
from generator.versions.manifest.tree import Manifest
from scenes.errors import InputError

FOLDERS = ("clips", "frames", TRUTH)
LABELS = "labels.parquet"
_FRESH_NS = 50_000_000  # a file younger than this when it was hashed may change again within one clock tick
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)
_INDEX = TypeAdapter(dict[str, tuple[int, int, int, str]])  # size, time, inode, sha256 by path
Kind = Literal["missing", "changed", "untracked", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One file of the working folder that is not as the version has it; `clip_id` where the file is a clip's."""

    path: str
    kind: Kind
    detail: str
    clip_id: str = ""


@dataclass(frozen=True, kw_only=True)
class RestoreTarget:
    """What a version makes of the folder: files by relative path that show objects, captions by path, and labels."""

    objects: Mapping[str, str]
    captions: Mapping[str, bytes]
    labels: pa.Table
    owners: Mapping[str, str]

    @property
    def paths(self) -> set[str]:
        """Every file of the version but the label table."""
        return self.objects.keys() | self.captions.keys()


class _Coming(BaseModel):
    """The version that a commit is about to make the head."""

    model_config = _CLOSED

    version: Digest
    labels: Digest


class _Note(BaseModel):
    """`working.json`: the version shown, the one a restore is making it show, the sha256 of labels.parquet."""

    model_config = _CLOSED

    version: Digest | None
    restoring: Digest | None
    labels: Digest | None
    next: _Coming | None = None


class Working:
    """What is remembered of a dataset's working folder: its version, a restore under way, hashes of files."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._state = history.root / "working.json"
        self._index_file = history.root / "index.json"
        self._index: dict[str, tuple[int, int, int, str]] = {}
        self._dirty = False

    def state(self) -> tuple[str | None, str | None, str | None]:
        """Return the version that the folder shows, the one a restore was making it show, and the sha256 of labels.parquet."""
        note = self._note()
        if note is None:
            return None, None, None
        if note.next is not None and self._is_committed(note.next.version):
            return note.next.version, None, note.next.labels
        return note.version, note.restoring, note.labels

    def remember(self, version_id: str | None, *, restoring: str | None = None, labels: str | None = None) -> None:
        """Write what the folder shows."""
        write_checksummed(self._state, {"version": version_id, "restoring": restoring, "labels": labels})

    def announce(self, version_id: str, *, labels: str) -> None:
        """Write what the folder shows as soon as the head is moved to it: a commit that is killed then leaves no wrong note."""
        note = self._note() or _Note(version=None, restoring=None, labels=None)
        coming = note.model_copy(update={"next": _Coming(version=version_id, labels=labels)})
        write_checksummed(self._state, coming.model_dump(mode="json"))

    def finish_announced(self) -> None:
        """Write the note of a commit that was killed before it wrote its own. `state` knows it either way, so a disk that
        refuses is no failure."""
        note = self._note()
        if note is None or note.next is None:
            return
        shown, restoring, labels = self.state()
        with contextlib.suppress(OSError):
            self.remember(shown, restoring=restoring, labels=labels)

    def _note(self) -> _Note | None:
        """Read what the folder shows, None where nothing says so; raises DamagedError."""
        tree = read_checksummed(self._state)
        try:
            return None if tree is None else _Note.model_validate(tree)
        except ValidationError:
            raise DamagedError(f"{self._state} says nothing of a working folder; remove it, then restore a version") from None

    def _is_committed(self, version_id: str) -> bool:
        """Return whether the head is a version or follows it."""
        head = self.history.refs.head()
        return head is not None and any(version.id == version_id for version in self.history.ancestors(head))

    def load_index(self) -> None:
        """Read the index; a missing or damaged one is empty, because it only saves hashing."""
        try:
            self._index = _INDEX.validate_python(parse_checksummed(self._index_file.read_bytes(), "index").get("files"))
        except (FileNotFoundError, DamagedError, ValidationError):
            self._index = {}

    def save_index(self) -> None:
        """Write the index if files were hashed; a folder that cannot be written to keeps its old one."""
        if self._dirty:
            try:
                write_atomic(self._index_file, checksummed({"files": self._index}))
            except OSError as error:
                if error.errno not in NOT_WRITABLE:
                    raise
                return
            self._dirty = False

    def digest(self, relative: str, *, thorough: bool = False) -> str:
        """Return a file's sha256, from the index when size, time and inode are those it was hashed at."""
        path = self.history.path / relative
        status = path.stat()
        identity = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = self._index.get(relative)
        if known is not None and known[:3] == identity and not thorough:
            return known[3]
        digest = file_digest(path)
        if time.time_ns() - status.st_mtime_ns > _FRESH_NS:
            self._index[relative] = (*identity, digest)
            self._dirty = True
        return digest


def target_of(history: History, version: Version) -> RestoreTarget:
    """Return what a version makes of the working folder; raises DamagedError."""
    return _target(read_rows(history.store, history.manifest(version)), version.files)


def _target(rows: pa.Table, files: Mapping[str, str]) -> RestoreTarget:
    objects: dict[str, str] = dict(files)
    captions, owners = {}, {}
    columns = (rows[name].to_pylist() for name in ("clip_id", "scene_id", "sha256_bytes", "caption", "lossless"))
    for clip_id, scene_id, digest, caption, lossless in zip(*columns, strict=True):
        objects[f"clips/{clip_id}.mp4"] = digest
        captions[f"clips/{clip_id}.txt"] = f"{caption}\n".encode()
        for path in (f"clips/{clip_id}.mp4", f"clips/{clip_id}.txt"):
            owners[path] = clip_id
        for name, frame in lossless:
            path = view_path(clip_id, scene_id, name)
            objects[path] = frame
            owners[path] = clip_id
    return RestoreTarget(objects=objects, captions=captions, labels=labels_of(rows), owners=owners)


def check_folders(path: Path) -> None:
    """Raise InputError where a folder that versions write to is a symbolic link or a file: writing would go elsewhere."""
    for name in (*FOLDERS, ".stopdown"):
        folder = path / name
        if folder.is_symlink():
            raise InputError(f"{folder} is a symbolic link; replace it by a folder of its own")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file where a folder belongs; move it away")


def tracked_files(path: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file under clips/, frames/ and truth/ as relative path and entry, temporaries apart; follows no links."""
    for name in FOLDERS:
        folder = path / name
        if folder.is_dir() and not folder.is_symlink():
            yield from _walk(folder, name)


def differences(
    history: History, target: RestoreTarget, working: Working, *, thorough: bool = False, labels_digest: str | None = None
) -> list[Difference]:
    """Return where the folder differs from a version, in order of path; `thorough` hashes every file anew.

    `labels_digest` is the sha256 that labels.parquet had when it was written for this version.
    """
    found: list[Difference] = []
    present = dict(tracked_files(history.path))
    for relative, digest in target.objects.items():
        entry = present.get(relative)
        owner = target.owners.get(relative, "")
        found += _object_difference(history, working, relative, entry, digest, owner, thorough)
    for relative, text in target.captions.items():
        entry = present.get(relative)
        found += _text_difference(working, relative, entry, text, target.owners[relative], thorough)
    for relative in present.keys() - target.paths:
        found.append(Difference(path=relative, kind="untracked", detail="belongs to no clip of the version"))
    found += labels_difference(history.path, target.labels, labels_digest)
    return sorted(found, key=lambda difference: difference.path)


def shows(history: History, version: Version) -> bool:
    """Return whether the folder is what a version makes of it: as `differences`, but it holds the rows of one leaf at a time
    and remembers no file. Raises DamagedError."""
    manifest = history.manifest(version)
    views = 0
    truth: set[str] = set()  # of the leaf before: a scene's clips follow each other, and may lie in two leaves
    for leaf in manifest.each_leaf():
        target = _target(read_leaf(history.store, leaf, manifest.schema), {})
        its_truth = {path for path in target.objects if path.startswith(f"{TRUTH}/")}
        views += len(target.paths) - len(its_truth & truth)
        truth = its_truth
        if not all(_holds(history, relative, digest) for relative, digest in target.objects.items()):
            return False
        if not all(_holds(history, relative, sha256(text)) for relative, text in target.captions.items()):
            return False
    if not all(_holds(history, relative, digest) for relative, digest in version.files.items()):
        return False
    return views == sum(1 for _ in tracked_files(history.path)) and _has_labels(history, manifest)


def _holds(history: History, relative: str, digest: str) -> bool:
    path, source = history.path / relative, history.store.path(digest)
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return False
        return (source.exists() and os.path.samestat(status, source.stat())) or file_digest(path) == digest
    except OSError:
        return False


def _has_labels(history: History, manifest: Manifest) -> bool:
    """Return whether labels.parquet is the version's label table; the same rows give the same bytes, mostly."""
    leaves = (read_leaf(history.store, leaf, manifest.schema) for leaf in manifest.each_leaf())
    file = history.path / LABELS
    with TemporaryDirectory(prefix="stopdown-labels-") as folder:
        schema = labels_of(manifest.schema.empty_table()).schema
        made = write_labels(Path(folder) / LABELS, schema, (labels_of(rows) for rows in leaves)).file
        if file.is_file() and not file.is_symlink() and file_digest(file) == file_digest(made):
            return True
    return not labels_difference(history.path, labels_of(read_rows(history.store, manifest)))


def labels_difference(path: Path, labels: pa.Table, labels_digest: str | None = None) -> list[Difference]:
    """Return where labels.parquet is not the version's label table, or is not the file that was written."""
    file = path / LABELS
    if not file.is_file() or file.is_symlink():
        return [Difference(path=LABELS, kind="missing", detail="is missing")]
    mode = file.stat().st_mode
    if not mode & stat.S_IRUSR:
        detail = f"has no read permission (mode {stat.S_IMODE(mode):04o})"
        return [Difference(path=LABELS, kind="unreadable", detail=detail)]
    try:
        if labels_digest is not None and file_digest(file) == labels_digest:
            return []
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        return [Difference(path=LABELS, kind="unreadable", detail=f"cannot be read ({str(error).splitlines()[0]})")]
    if same_labels(table, labels):
        detail = "has the version's rows in other bytes than were written"
        return [] if labels_digest is None else [Difference(path=LABELS, kind="changed", detail=detail)]
    detail = "has other labels"
    if table.num_rows != labels.num_rows:
        detail = f"has {table.num_rows} rows, the version has {labels.num_rows}"
    return [Difference(path=LABELS, kind="changed", detail=detail)]


def same_labels(one: pa.Table, other: pa.Table) -> bool:
    """Return whether two label tables say the same, whatever the order of rows and columns."""
    if sorted(one.column_names) != sorted(other.column_names) or one.num_rows != other.num_rows:
        return False
    if "clip_id" not in one.column_names:
        return False
    one, other = (table.sort_by("clip_id").combine_chunks() for table in (one, other.select(one.column_names)))
    return all(a.type == b.type and a.equals(b) for a, b in zip(one.itercolumns(), other.itercolumns(), strict=True))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".tmp-"):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}/{entry.name}")
            else:
                yield f"{prefix}/{entry.name}", entry


def _object_difference(
    history: History, working: Working, relative: str, entry: os.DirEntry[str] | None, digest: str, owner: str, thorough: bool
) -> Iterator[Difference]:
    path = history.path / relative
    try:
        status = path.lstat() if entry is None else entry.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        yield Difference(path=relative, kind="missing", detail="is missing", clip_id=owner)
        return
    if not stat.S_ISREG(status.st_mode):
        yield Difference(path=relative, kind="changed", detail="is no regular file", clip_id=owner)
        return
    source = history.store.path(digest)
    if not thorough and source.exists() and os.path.samestat(status, source.stat()):
        return
    yield from _hash_difference(working, relative, status, digest, owner, thorough)


def _text_difference(
    working: Working, relative: str, entry: os.DirEntry[str] | None, text: bytes, owner: str, thorough: bool
) -> Iterator[Difference]:
    if entry is None:
        yield Difference(path=relative, kind="missing", detail="is missing", clip_id=owner)
        return
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        yield Difference(path=relative, kind="changed", detail="is no regular file", clip_id=owner)
    elif status.st_size != len(text):
        yield Difference(path=relative, kind="changed", detail="holds another caption", clip_id=owner)
    else:
        yield from _hash_difference(working, relative, status, sha256(text), owner, thorough)


def _hash_difference(
    working: Working, relative: str, status: os.stat_result, digest: str, owner: str, thorough: bool
) -> Iterator[Difference]:
    if not status.st_mode & stat.S_IRUSR:
        detail = f"has no read permission (mode {stat.S_IMODE(status.st_mode):04o})"
        yield Difference(path=relative, kind="unreadable", detail=detail, clip_id=owner)
        return
    try:
        found = working.digest(relative, thorough=thorough)
    except OSError as error:
        yield Difference(path=relative, kind="unreadable", detail=f"cannot be read ({error.strerror})", clip_id=owner)
        return
    if found != digest:
        detail = "holds another caption" if relative.endswith(".txt") else "does not match its sha256"
        yield Difference(path=relative, kind="changed", detail=detail, clip_id=owner)
