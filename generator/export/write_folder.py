"""Putting an export's entries on the disk: atomic per file, resumable, and never into a folder with other content.

OUT/.stopdown-export.json is the marker: written first, it says which export this folder holds; at the end it is replaced by one
that lists every file with its sha256. A kill leaves whole files only (each is renamed into place), and the same command goes
on: what is there and right is kept. A file that differs from what belongs there was edited by someone and is never overwritten.
What a library writes (shards, tables) cannot be held against the dataset: the marker lists each as soon as it is there, and
one that an unfinished export does not list is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from generator.errors import DamagedError, ExportError
from generator.export.files.entries import ClipFile, Entry, LongerClipFile, MadeFile, MadeFolder, StillFile, TextFile
from generator.export.files.marker import listed, read_marker, write_marker
from generator.export.source import ExportSource
from generator.io.atomic import link
from generator.io.file_lock import exclusive_lock
from generator.media.video import decode, encode
from scenes.errors import InputError

LONGER_CRF = 4  # a clip that is encoded again: 53 dB from what it was, where the first encoding at CRF 12 has 44 dB


@dataclass
class Written:
    """What was done: how many files were linked, copied, made anew and kept from before; `facts` (sha256, size) by path."""

    linked: int = 0
    copied: int = 0
    made: int = 0
    kept: int = 0
    facts: dict[str, tuple[str, int]] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)  # sha256 by path, from the marker of a finished run


def write_export(
    out: Path, identity: Mapping[str, Any], entries: Iterable[Entry], source: ExportSource, *, copy: bool
) -> Written:
    """Write the entries of one export into a folder; raises InputError where the folder holds anything else."""
    check_target(out, identity, source)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(out, f"another export is writing {out}; wait for it to end or stop it"):
            check_target(out, identity, source)
            _sweep(out)
            marker = read_marker(out)
            finished = bool((marker or {}).get("complete"))
            if marker is None:
                write_marker(out, identity, {}, complete=False)
            written = Written(before=listed(marker))
            for entry in entries:
                _place(out, entry, source, written, copy)
                if isinstance(entry, MadeFile | MadeFolder) and not finished:
                    os.sync()  # before the marker says that it is there
                    write_marker(out, identity, written.facts, complete=False)
            os.sync()
            write_marker(out, identity, written.facts, complete=True)
            return written
    except OSError as error:
        where = error.filename or out
        raise ExportError(f"{where}: {error.strerror}; what is exported stays, run the same command again to go on") from error


def check_target(out: Path, identity: Mapping[str, Any], source: ExportSource) -> None:
    """Raise InputError for a target that is a file, inside the dataset, or a folder with content that is not this export."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a new or empty folder for the export")
    inside, dataset = out.resolve(), source.path.resolve()
    if inside == dataset or dataset in inside.parents:
        raise InputError(f"{out} lies inside the dataset {source.path}; export into a folder outside of it")
    if not out.is_dir():
        return
    marker = read_marker(out)
    if marker is None:
        foreign = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(".tmp-"))
        if foreign:
            raise InputError(f"{out} is not empty (it has {foreign[0]}) and holds no export; give a new or empty folder")
        return
    before = {key: marker.get(key) for key in identity}
    if before != dict(identity):
        key = next(key for key in identity if before[key] != identity[key])
        raise InputError(
            f"{out} holds another export: its {key} is {_short(before[key])}, this one's is {_short(identity[key])}; "
            "give a new or empty folder"
        )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else text[:77] + "..."


def _sweep(out: Path) -> None:
    for leftover in sorted(out.rglob(".tmp-*")):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _place(out: Path, entry: Entry, source: ExportSource, written: Written, copy: bool) -> None:
    target = out / entry.path
    if target.is_symlink():
        raise InputError(f"{target} is a symbolic link and no part of this export; remove it and run the same command again")
    target.parent.mkdir(parents=True, exist_ok=True)
    match entry:
        case TextFile():
            _place_bytes(target, entry.path, entry.data, written)
        case StillFile():
            data = verified_bytes(source, entry.clip_id, entry.sha256)
            _place_bytes(target, entry.path, iio.imwrite("<bytes>", decode(data)[entry.frame], extension=".png"), written)
        case LongerClipFile():
            frames_THW3 = decode(verified_bytes(source, entry.clip_id, entry.sha256))
            data = encode(np.concatenate([frames_THW3, frames_THW3[-1:]]), entry.fps, LONGER_CRF, "medium")
            _place_bytes(target, entry.path, data, written)
        case ClipFile():
            _place_clip(target, entry, source, written, copy)
        case MadeFile():
            _place_made(target, entry, written)
        case MadeFolder():
            _place_folder(out, target, entry, written)


def _place_bytes(target: Path, path: str, data: bytes, written: Written) -> None:
    written.facts[path] = (hashlib.sha256(data).hexdigest(), len(data))
    if _there(target, data):
        written.kept += 1
        return
    with _temporary(target) as temporary:
        temporary.write_bytes(data)
        os.replace(temporary, target)
    written.made += 1


def _there(target: Path, data: bytes) -> bool:
    """Return whether the right bytes are there; an empty file in place of a full one is what a power cut leaves."""
    if not target.exists() or (data and target.stat().st_size == 0):
        return False
    if target.is_file() and target.read_bytes() == data:
        return True
    raise changed(target)


def changed(target: Path) -> InputError:
    """Return the refusal to write over a file that someone changed."""
    return InputError(f"{target} was changed since it was exported; move it away, or export into another folder")


def verified_bytes(source: ExportSource, clip_id: str, sha256: str) -> bytes:
    """Return a clip's bytes, verified by the sha256 of its label; raises DamagedError."""
    path = source.clip_path(clip_id)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing; run `stopdown verify`, then build again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedError(f"{path} does not match the sha256 of its label; run `stopdown verify`, then build again")
    return data


def _place_clip(target: Path, entry: ClipFile, source: ExportSource, written: Written, copy: bool) -> None:
    data = verified_bytes(source, entry.clip_id, entry.sha256)
    written.facts[entry.path] = (entry.sha256, len(data))
    if _there(target, data):
        written.kept += 1
        return
    with _temporary(target) as temporary:
        if copy or not link(source.clip_path(entry.clip_id).resolve(), temporary):
            temporary.write_bytes(data)
            written.copied += 1
        else:
            written.linked += 1
        os.replace(temporary, target)


def _place_made(target: Path, entry: MadeFile, written: Written) -> None:
    if target.is_file() and entry.path in written.before and not target.stat().st_size == 0 < entry.size_bytes:
        written.kept += 1
    else:
        with _temporary(target) as temporary:
            entry.write(temporary)
            os.replace(temporary, target)
        written.made += 1
    facts = _facts(target)
    if facts[1] != entry.size_bytes or written.before.get(entry.path, facts[0]) != facts[0]:
        raise changed(target)
    written.facts[entry.path] = facts


def _place_folder(out: Path, target: Path, entry: MadeFolder, written: Written) -> None:
    before = {path for path in written.before if path.startswith(f"{entry.path}/")}
    kept = target.is_dir() and bool(before)
    if kept:
        written.kept += 1
    else:
        if target.is_dir():
            shutil.rmtree(target)
        with _temporary(target) as temporary:
            entry.write(temporary)
            os.replace(temporary, target)
        written.made += 1
    for file in sorted(path for path in target.rglob("*") if path.is_file()):
        path, facts = file.relative_to(out).as_posix(), _facts(file)
        if kept and written.before.get(path) != facts[0]:
            raise changed(file)
        written.facts[path] = facts
    for path in sorted(before - set(written.facts) if kept else ()):
        raise changed(out / path)


def _facts(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Give a free name beside the target, and leave nothing under it."""
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")  # the folder is locked, so nobody else has this name
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
