"""Proving a dataset's files: every byte of every object, manifest, version, reference, record and view.

A problem names the file, what is wrong, and which clips of which versions it hits.
"""

from __future__ import annotations

import json
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from generator.errors import DamagedError
from generator.io.atomic import file_digest
from generator.io.checksummed_json import parse_checksummed, sha256
from generator.remotes.base import record_file
from generator.store.label_check import label_faults
from generator.store.objects import ClipRecord
from generator.versions.history.history import History
from generator.versions.history.refs import Refs, version_ids
from generator.versions.history.version import Version, content_id
from generator.versions.manifest.leaves import read_leaf
from generator.versions.manifest.rows import content_digest
from generator.versions.working.compare import FOLDERS, LABELS, Working
from generator.versions.working.status import compare
from scenes.errors import StopdownError

Kind = Literal["object", "manifest", "version", "reference", "record", "plan", "working", "stranger", "label"]
Progress = Callable[[int, int], None]  # objects done, objects in all


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is wrong: its kind, the file (relative to the dataset), what, and the clips and versions it hits."""

    kind: Kind
    path: str
    message: str
    clips: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was verified: versions, objects and bytes read, and what is wrong."""

    versions: int
    objects: int
    size_bytes: int
    damages: tuple[Damage, ...]

    @property
    def clean(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.damages


@dataclass
class _Uses:
    """Who needs an object: clip ids by digest, version ids by digest, and what it is to them; and what rows say besides."""

    clips: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    versions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    roles: dict[str, str] = field(default_factory=dict)
    records: dict[str, tuple[str, str]] = field(default_factory=dict)  # clip and version id by the key of a clip's record
    faults: dict[str, str] = field(default_factory=dict)  # version ids by what is wrong with their labels

    def note(self, digest: str, version_id: str, role: str, clip_id: str | None = None) -> None:
        self.versions[digest].add(version_id)
        self.roles.setdefault(digest, role)
        if clip_id is not None:
            self.clips[digest].add(clip_id)


def check(
    history: History, refs: Sequence[str] | None = None, *, progress: Progress | None = None, threads: int = 4
) -> CheckReport:
    """Prove the files of some versions, or of all and of the working folder (None). Nothing is raised for what is damaged.

    Raises InputError for a REF that names nothing.
    """
    damages: list[Damage] = []
    if refs is None:
        versions = _all_versions(history, damages)
    else:
        versions = {version.id: version for version in map(history.version, refs)}
    uses = _uses(history, versions, damages)
    wanted = set(uses.versions) | (set(history.store.objects()) if refs is None else set())
    sizes = _objects(history, sorted(wanted), uses, damages, progress, threads)
    damages += [_damage("label", f"labels of version {i[:12]}", fault, versions=(i,)) for fault, i in uses.faults.items()]
    if refs is None:
        damages += _strangers(history)
        damages += _records(history, versions)
        damages += _lost_records(history, uses)
        damages += _plan(history, versions)
        damages += _working(history)
    return CheckReport(versions=len(versions), objects=len(wanted), size_bytes=sum(sizes), damages=tuple(_unique(damages)))


def _all_versions(history: History, damages: list[Damage]) -> dict[str, Version]:
    found: dict[str, Version] = {}
    for version_id in version_ids(history.root):
        try:
            found[version_id] = history.load(version_id)
        except StopdownError as error:
            damages.append(_damage("version", f".stopdown/versions/{version_id}.json", str(error), versions=(version_id,)))
        mode = _unreadable(history.version_path(version_id))
        if mode:
            damages.append(_damage("version", f".stopdown/versions/{version_id}.json", mode, versions=(version_id,)))
    for version in found.values():
        for parent in version.parents:
            if not history.version_path(parent).is_file():
                message = f"is missing; it is a parent of {version.short}"
                damages.append(_damage("version", f".stopdown/versions/{parent}.json", message, versions=(parent, version.id)))
    damages += _references(history, found)
    return found


def _references(history: History, found: dict[str, Version]) -> Iterator[Damage]:
    refs: Refs = history.refs
    readers: list[tuple[str, Callable[[], str | None]]] = [("head.json", refs.head)]
    for name in refs.tag_names():
        readers.append((f"tags/{name}.json", lambda name=name: getattr(refs.tag(name), "version", "")))  # type: ignore[misc]
    for relative, read in readers:
        path = f".stopdown/{relative}"
        try:
            version_id = read()
        except StopdownError as error:
            yield _damage("reference", path, str(error))
            continue
        mode = _unreadable(history.path / path)
        if mode:
            yield _damage("reference", path, mode)
        elif version_id is None and found:
            yield _damage("reference", path, "is missing, but there are versions")
        elif version_id == "":
            yield _damage("reference", path, "has a name that no tag can have")
        elif version_id is not None and not history.version_path(version_id).is_file():
            missing = f".stopdown/versions/{version_id}.json"
            yield _damage("version", missing, f"is missing; {relative} names it", versions=(version_id,))


def _uses(history: History, versions: dict[str, Version], damages: list[Damage]) -> _Uses:
    uses = _Uses()
    leaves: dict[str, list[tuple[str, str]]] = {}
    contents: dict[str, str] = {}
    for version in versions.values():
        for digest, role in ((version.manifest, "manifest"), *((plan, "plan") for plan in version.plans)):
            uses.note(digest, version.id, role)
        for name, digest in version.files.items():
            uses.note(digest, version.id, name)
        try:
            _use_rows(history, version, uses, leaves, contents)
        except StopdownError as error:
            damages.append(_damage("manifest", _object_path(version.manifest), str(error), versions=(version.id,)))
    return uses


def _use_rows(
    history: History, version: Version, uses: _Uses, known: dict[str, list[tuple[str, str]]], contents: dict[str, str]
) -> None:
    """Note the objects of a version's rows; raises DamagedError where they are not what the version says."""
    manifest = history.manifest(version)
    for branch in manifest.branches:
        uses.note(branch.digest, version.id, "branch")
    for leaf in manifest.leaves:
        uses.note(leaf.digest, version.id, "leaf")
        if leaf.digest not in known:
            rows = read_leaf(history.store, leaf, manifest.schema)
            contents[leaf.digest] = content_digest(rows)
            for fault in label_faults(rows, version.recipes):
                uses.faults.setdefault(fault, version.id)
            for key, clip_id in zip(rows["key"].to_pylist(), rows["clip_id"].to_pylist(), strict=True):
                uses.records[key] = (clip_id, version.id)
            columns = (rows[name].to_pylist() for name in ("clip_id", "sha256_bytes", "lossless"))
            known[leaf.digest] = [
                (clip_id, digest)
                for clip_id, clip, lossless in zip(*columns, strict=True)
                for digest in (clip, *(frame for _, frame in lossless))
            ]
        if contents[leaf.digest] != leaf.content:
            raise DamagedError(f"leaf {leaf.digest[:12]} has other content than its root says; restore it from a copy")
        for clip_id, digest in known[leaf.digest]:
            uses.note(digest, version.id, "clip", clip_id)
    if content_id(manifest, version.plans, version.software, version.splits) != version.content:
        raise DamagedError(f"version {version.short} has another content id than its rows give; restore it from a copy")
    if manifest.summary != version.summary:
        raise DamagedError(f"version {version.short} has other counts than its rows give; restore it from a copy")


def _objects(
    history: History, wanted: list[str], uses: _Uses, damages: list[Damage], progress: Progress | None, threads: int
) -> list[int]:
    def examine(digest: str) -> tuple[str, int, str | None, str | None]:
        path = history.store.path(digest)
        try:
            mode = _unreadable(path)
            found = file_digest(path)
            return digest, path.stat().st_size, found, mode
        except FileNotFoundError:
            return digest, 0, None, "is missing"
        except OSError as error:
            return digest, 0, None, f"cannot be read ({error.strerror})"

    sizes = []
    with ThreadPoolExecutor(threads) as pool:
        for done, (digest, size, found, trouble) in enumerate(pool.map(examine, wanted, chunksize=16), 1):
            sizes.append(size)
            if progress is not None:
                progress(done, len(wanted))
            if found is not None and found != digest:
                trouble = f"does not match its sha256 ({size} bytes)"
                if found in uses.roles:
                    trouble = f"holds the bytes of object {found[:12]}: swapped"
            if trouble is not None:
                clips, versions = sorted(uses.clips[digest]), sorted(uses.versions[digest])
                message = f"{uses.roles.get(digest, 'object of no version')} {digest[:12]} {trouble}"
                damages.append(_damage("object", _object_path(digest), message, clips, versions))
    return sizes


def _strangers(history: History) -> Iterator[Damage]:
    objects = set(history.store.objects())
    for path in (history.root / "objects").rglob("*"):
        if path.is_symlink() or (path.is_file() and not path.name.startswith(".tmp-") and path.name not in objects):
            yield _damage("stranger", str(path.relative_to(history.path)), "is no object; move it away")
    for digest in objects:
        if history.store.path(digest).is_symlink():
            yield _damage("stranger", _object_path(digest), "is a symbolic link where an object belongs")
    for folder, known in (("versions", set(version_ids(history.root))), ("tags", set(history.refs.tag_names()))):
        if not (history.root / folder).is_dir():
            continue
        for path in (history.root / folder).iterdir():
            if path.is_symlink() or (path.stem not in known and not path.name.startswith(".tmp-")):
                yield _damage("stranger", str(path.relative_to(history.path)), "does not belong there; move it away")


def _records(history: History, versions: dict[str, Version]) -> Iterator[Damage]:
    """Check pending and committed records: readable, in the form they are written in, true to their clips' objects."""
    for path in sorted((history.root / "records").rglob("*")):
        if path.is_dir() or path.name.startswith(".tmp-"):
            continue
        relative = str(path.relative_to(history.path))
        try:
            record = history.store.record(path.stem)
        except (StopdownError, OSError) as error:
            yield _damage("record", relative, str(error))
            continue
        mode = _unreadable(path)
        if mode:
            yield _damage("record", relative, mode)
        elif record is None:
            yield _damage("record", relative, "is not where a record of its name belongs")
        else:
            yield from _record_objects(history, relative, record)


def _lost_records(history: History, uses: _Uses) -> Iterator[Damage]:
    for key, (clip_id, version_id) in uses.records.items():
        path = history.root / record_file(key)
        if not path.is_file():
            message = "is missing; a build would render its clip again"
            yield _damage("record", str(path.relative_to(history.path)), message, (clip_id,), (version_id,))


def _record_objects(history: History, relative: str, record: ClipRecord) -> Iterator[Damage]:
    for digest in (record.sha256_bytes, *record.frames.values()):
        path = history.store.path(digest)
        if not path.is_file():
            yield _damage("record", relative, f"names object {digest[:12]}, which is missing")
        elif digest == record.sha256_bytes and path.stat().st_size != record.size_bytes:
            yield _damage("record", relative, f"says {record.size_bytes} bytes, the object has {path.stat().st_size}")


def _plan(history: History, versions: dict[str, Version]) -> Iterator[Damage]:
    path = history.root / "plan.json"
    try:
        data = path.read_bytes()
        json.loads(data)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield _damage("plan", ".stopdown/plan.json", f"cannot be read ({error})")
        return
    mode = _unreadable(path)
    if mode:
        yield _damage("plan", ".stopdown/plan.json", mode)
    plans = {plan for version in versions.values() for plan in version.plans}
    if versions and sha256(data) not in plans:
        yield _damage("plan", ".stopdown/plan.json", "is the plan of no version: damaged, or of a build not committed yet")


def _working(history: History) -> Iterator[Damage]:
    """Check the working folder against the version it shows: every byte of every view, caption and label."""
    path = history.root / "index.json"
    try:
        parse_checksummed(path.read_bytes(), str(path))
    except FileNotFoundError:
        pass
    except (DamagedError, OSError) as error:
        yield _damage("working", ".stopdown/index.json", f"{error} (a cache: delete it)")
    try:
        working = Working(history)
        shown = working.state()[0] or history.refs.head()
        if shown is None or _shows_nothing(history):
            return
        found = compare(history, working, history.refs.head() or shown, thorough=True)
    except (StopdownError, OSError) as error:
        yield _damage("working", ".stopdown/working.json", str(error))
        return
    restores = f"is missing; `stopdown restore {history.path} {found.version.short}` writes it again"
    if not (history.root / "working.json").exists():
        yield _damage("working", ".stopdown/working.json", restores)
    if len(found.version.plans) == 1 and not (history.root / "plan.json").exists():
        yield _damage("plan", ".stopdown/plan.json", restores)
    for name in ("working.json", "index.json"):
        mode = _unreadable(history.root / name)
        if mode and (history.root / name).exists():
            yield _damage("working", f".stopdown/{name}", mode)
    if found.restoring is not None:
        message = f"a restore of {found.restoring[:12]} was cut off; run `stopdown restore` again"
        yield _damage("working", ".stopdown/working.json", message, versions=(found.restoring,))
    for difference in found.differences:
        clips = (difference.clip_id,) if difference.clip_id else ()
        yield _damage("working", difference.path, difference.detail, clips, (found.version.id,))


def _shows_nothing(history: History) -> bool:
    """Return whether the folder is a store alone, as after a push to it or a clone that shows no version."""
    names = (".stopdown/working.json", ".stopdown/plan.json", LABELS, *FOLDERS)
    return not any((history.path / name).exists() for name in names)


def _unreadable(path: Path) -> str | None:
    """Return what is wrong with a file's permissions: root reads anything, so the mode is looked at, not tried."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    return None if mode & stat.S_IRUSR else f"has no read permission (mode {stat.S_IMODE(mode):04o}); chmod u+r it"


def _object_path(digest: str) -> str:
    return f".stopdown/objects/{digest[:2]}/{digest}"


def _damage(kind: Kind, path: str, message: str, clips: Iterable[str] = (), versions: Iterable[str] = ()) -> Damage:
    return Damage(kind=kind, path=path, message=message, clips=tuple(clips), versions=tuple(versions))


def _unique(damages: Iterable[Damage]) -> Iterator[Damage]:
    seen = set()
    for damage in damages:
        if (damage.kind, damage.path) not in seen:
            seen.add((damage.kind, damage.path))
            yield damage
