"""The content-addressed store under `.stopdown/`: objects by sha256, and one record per rendered clip.

An object is written once (temporary file, fsync, link into place, read-only) and never changes; the first writer wins and a
second one changes nothing. A record is written only after every object that it names, so a record stands for a finished clip.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from generator.errors import DamagedError
from generator.io.atomic import file_digest, link, place, write_atomic, write_temporary
from generator.io.checksummed_json import checksummed, parse_checksummed
from scenes.spec import Spec

_SHA256 = re.compile(r"[0-9a-f]{64}")


class DetectionRecord(Spec):
    """A detection of a reading: place and size in pixels."""

    x_px: float
    y_px: float
    size_px: float


class ReadingRecord(Spec):
    """A probe's blind reading of one axis, as stored."""

    value: float | None
    confidence: float
    marks: tuple[DetectionRecord, ...] = ()  # the key on disk; a `Reading` calls them detections
    note: str = ""


class ClipRecord(Spec):
    """What is known of a rendered clip: its objects, its readings and what made it.

    `key` is the sha256 of everything its frames depend on; `sha256_bytes` names the .mp4 object, `sha256_frames` is the
    hash of the decoded frames; `frames` maps lossless frame files (`0000.png`), and those of the scene's truth
    (`generator.truth.truth_names`), to objects; `readings` are by axis.
    """

    key: str
    sha256_bytes: str
    sha256_frames: str
    size_bytes: int
    frames: dict[str, str] = Field(default_factory=dict)
    readings: dict[str, ReadingRecord] = Field(default_factory=dict)
    blender: str
    encoder: str
    cpu_s: float


class Store:
    """Objects and records under one folder (`DATASET/.stopdown`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return where the object of a sha256 lies; raises DamagedError for anything that is not one."""
        if not _SHA256.fullmatch(digest):
            raise DamagedError(f"'{digest}' is not a sha256, so it can name no object; the dataset's metadata is damaged")
        return self.root / "objects" / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Return whether an object is there (its bytes are verified by `verify`)."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int | None:
        """Return an object's size in bytes, or None where it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, data: bytes) -> str:
        """Store bytes and return their sha256; an object already there stays as it is."""
        digest = hashlib.sha256(data).hexdigest()
        self._put_if_absent(self.path(digest), data)
        return digest

    def put_file(self, file: Path) -> str:
        """Store a file's bytes and return their sha256, as `put` does; a piece of them is held at a time."""
        objects = self.root / "objects"
        objects.mkdir(parents=True, exist_ok=True)
        temporary = write_temporary(objects, file, mode=0o444)
        try:
            digest = file_digest(temporary)  # of the copy: the file may be one that a person edits meanwhile
            target = self.path(digest)
            if not _touched(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def verified(self, digest: str) -> Path:
        """Return where an object lies, once its bytes are verified by their hash; raises DamagedError."""
        path = self.path(digest)
        try:
            found = file_digest(path)
        except FileNotFoundError:
            raise self._missing(digest) from None
        if found != digest:
            raise self._changed(path)
        return path

    def read(self, digest: str) -> bytes:
        """Return an object's bytes, verified by their hash; raises DamagedError."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise self._missing(digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._changed(path)
        return data

    def link(self, digest: str, target: Path) -> None:
        """Make `target` show an object: a hard link, or a copy where the file system has none; replaces atomically."""
        source = self.path(digest)
        if target.exists() and not target.is_symlink() and source.samefile(target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
        temporary.unlink(missing_ok=True)
        try:
            if not link(source, temporary):
                shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def put_record(self, record: ClipRecord) -> None:
        """Store a clip's record; call it only after every object that it names."""
        self._put_if_absent(self._record_path(record.key), checksummed(record.model_dump(mode="json")))

    def record(self, key: str) -> ClipRecord | None:
        """Return a clip's record, or None where there is none; raises DamagedError when it cannot be read."""
        path = self._record_path(key)
        try:
            record = ClipRecord.model_validate(parse_checksummed(path.read_bytes(), str(path)))
        except FileNotFoundError:
            return None
        except (ValidationError, DamagedError):
            raise DamagedError(f"record {path} is damaged; delete it and run the build again") from None
        if record.key != key:
            raise DamagedError(f"record {path} belongs to another clip ({record.key[:12]}); delete it and run the build again")
        return record

    def finished(self, key: str) -> ClipRecord | None:
        """Return the record of a clip whose objects are all there, or None when the clip has yet to be rendered."""
        record = self.record(key)
        if record is None or not all(self.has(digest) for digest in (record.sha256_bytes, *record.frames.values())):
            return None
        return record

    def forget(self, key: str) -> None:
        """Remove a record, so that its clip is rendered again."""
        self._record_path(key).unlink(missing_ok=True)

    def truth(self, key: str) -> dict[str, str] | None:
        """Return the objects of a scene's ground truth by stored name, or None where it is not all there."""
        path = self._truth_path(key)
        try:
            tree = parse_checksummed(path.read_bytes(), str(path))
        except (FileNotFoundError, DamagedError):  # it only saves rendering: what is damaged is made anew
            return None
        files = {str(name): str(digest) for name, digest in tree["files"].items()}
        return files if all(self.has(digest) for digest in files.values()) else None

    def put_truth(self, key: str, files: Mapping[str, str]) -> dict[str, str]:
        """Note the objects of a scene's truth; return those that count, which are another's where it was first."""
        path = self._truth_path(key)
        self._put_if_absent(path, checksummed({"files": dict(files)}))
        found = self.truth(key)
        if found is None:
            write_atomic(path, checksummed({"files": dict(files)}), mode=0o444)
        return found or dict(files)

    def lost_truths(self) -> Iterator[Path]:
        """Yield the notes of truths whose objects are not all there; they only save rendering."""
        for path in sorted((self.root / "truth").glob("??/*.json")):
            if _SHA256.fullmatch(path.stem) and self.truth(path.stem) is None:
                yield path

    def drop(self, record: ClipRecord) -> None:
        """Remove a clip and its objects from a store that holds copies only; clips that share an object with it lose it too."""
        self.forget(record.key)
        for digest in (record.sha256_bytes, *record.frames.values()):
            self.path(digest).unlink(missing_ok=True)

    def objects(self) -> Iterator[str]:
        """Yield the sha256 of every object, in order."""
        for path in sorted((self.root / "objects").glob("??/*")):
            if _SHA256.fullmatch(path.name):
                yield path.name

    def sweep_temporaries(self) -> int:
        """Remove temporary files that killed writers left; call it only while holding the build lock."""
        leftovers = [path for path in self.root.rglob(".tmp-*") if path.is_file()]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def _missing(self, digest: str) -> DamagedError:
        return DamagedError(f"object {digest} is missing from {self.root}; run the build again to make it anew")

    def _changed(self, path: Path) -> DamagedError:
        return DamagedError(f"object {path} does not match its sha256; delete it and run the build again")

    def _record_path(self, key: str) -> Path:
        if not _SHA256.fullmatch(key):
            raise DamagedError(f"'{key}' is not a clip key")
        return self.root / "records" / key[:2] / f"{key}.json"

    def _truth_path(self, key: str) -> Path:
        return self.root / "truth" / key[:2] / f"{key}.json"

    def _put_if_absent(self, target: Path, data: bytes) -> None:
        if _touched(target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_temporary(target.parent, data, mode=0o444)
        try:
            place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _touched(target: Path) -> bool:
    """Return whether a file is there; it is used again just now, and garbage collection spares what is young."""
    with contextlib.suppress(FileNotFoundError):  # it may go between the look and the touch: then it is written anew
        if target.is_file():
            with contextlib.suppress(PermissionError):
                os.utime(target)
            return True
    return False
