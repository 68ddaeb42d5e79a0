"""A dataset's history: opening it, its versions by REF, its log and its tags.

REF is a version id or its first characters (four or more), a tag, or `latest`; `~N` after it goes N first parents back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from generator.errors import DamagedError
from generator.io.atomic import fsync_folder, write_temporary
from generator.io.disk_errors import reported
from generator.store.objects import Store
from generator.store.splits import SplitRatios
from generator.versions.history.refs import Refs, check_tag_name, version_ids
from generator.versions.history.version import Version, read_version
from generator.versions.manifest.tree import Manifest, read_manifest
from scenes.errors import InputError, closest

INTERNAL = ".stopdown"
_REF = re.compile(r"(?P<name>.+?)(?:~(?P<back>\d{0,6}))?")
_PREFIX = re.compile(r"[0-9a-f]{4,64}")


class History:
    """The versions of the dataset in one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path / INTERNAL
        self.store = Store(self.root)
        self.refs = Refs(self.root)

    @classmethod
    def open(cls, path: Path | str) -> History:
        """Open a dataset folder; raises InputError when it is none."""
        path = Path(path)
        if not path.exists():
            raise InputError(f"{path} does not exist; give the folder of a dataset")
        if not (path / INTERNAL).is_dir() or (path / INTERNAL).is_symlink():
            raise InputError(f"{path} is not a Stopdown dataset (it has no folder {INTERNAL}); build one with `stopdown build`")
        return cls(path)

    def version(self, ref: str = "latest") -> Version:
        """Return the version that a REF names; raises InputError, or DamagedError when its file is damaged."""
        match = _REF.fullmatch(ref)
        if match is None:
            raise InputError(f"'{ref}' is no REF; give a version id, a tag, latest, or one of them followed by ~N")
        version = self.load(self._base(match["name"], ref))
        back = 0 if match["back"] is None else int(match["back"] or "1")
        for step in range(back):
            if not version.parents:
                raise InputError(f"'{ref}' goes {back} versions back, but '{match['name']}' has only {step} before it")
            version = self.load(version.parents[0])
        return version

    def split_ratios(self) -> SplitRatios:
        """Return the ratios that the next commit splits by, unless it is told others: the head's, or the default."""
        head = self.refs.head()
        return SplitRatios() if head is None else self.load(head).splits

    def load(self, version_id: str) -> Version:
        """Return a version by its whole id; raises DamagedError when it is missing or damaged."""
        try:
            data = self.version_path(version_id).read_bytes()
        except FileNotFoundError:
            raise DamagedError(
                f"version {version_id[:12]} is missing from {self.root / 'versions'}; restore it from a copy"
            ) from None
        except OSError as error:
            raise DamagedError(f"version {version_id[:12]} cannot be read ({error.strerror}); check its permissions") from None
        return read_version(data, version_id)

    def save(self, version: Version) -> None:
        """Write a version's file, after every object it names; a file that is there already stays."""
        path = self.version_path(version.id)
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_temporary(path.parent, version.data, mode=0o444)
        try:
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)

    def version_path(self, version_id: str) -> Path:
        """Return where a version's file lies; raises DamagedError for what is no id."""
        if not re.fullmatch(r"[0-9a-f]{64}", version_id):
            raise DamagedError(f"'{version_id}' is no version id; the dataset's metadata is damaged")
        return self.root / "versions" / f"{version_id}.json"

    def manifest(self, version: Version) -> Manifest:
        """Return a version's manifest; raises DamagedError."""
        return read_manifest(self.store, version.manifest)

    def log(self, ref: str = "latest") -> Iterator[Version]:
        """Yield versions from a REF backwards along first parents; nothing where there is no version yet."""
        if ref == "latest" and self.refs.head() is None:
            return
        version = self.version(ref)
        yield version
        while version.parents:
            version = self.load(version.parents[0])
            yield version

    def ancestors(self, version_id: str) -> Iterator[Version]:
        """Yield a version and all its ancestors, each once; raises DamagedError when one is missing."""
        seen, todo = set(), [version_id]
        while todo:
            current = todo.pop()
            if current not in seen:
                seen.add(current)
                version = self.load(current)
                yield version
                todo.extend(version.parents)

    def reached(self) -> dict[str, Version]:
        """Return every version that the head or a tag reaches, by id; raises DamagedError when one is missing."""
        starts = [tag.version for tag in self.refs.tags().values()]
        head = self.refs.head()
        if head is not None:
            starts.insert(0, head)
        found: dict[str, Version] = {}
        todo = starts[::-1]
        while todo:
            current = todo.pop()
            if current not in found:
                found[current] = self.load(current)
                todo.extend(reversed(found[current].parents))
        return found

    @reported
    def tag(self, name: str, ref: str = "latest", *, move: bool = False) -> Version:
        """Name a version; raises InputError when the name is taken by another version and `move` is not set."""
        check_tag_name(name)
        version = self.version(ref)
        earlier = self.refs.tag(name)
        if earlier is not None and earlier.version == version.id:
            return version
        if earlier is not None and not move:
            raise InputError(
                f"tag '{name}' names version {earlier.version[:12]} already; choose another name, or move it with --force"
            )
        self.refs.swap_tag(name, None if earlier is None else earlier.version, version.id)
        return version

    @reported
    def untag(self, name: str) -> None:
        """Remove a tag; its version stays. Raises InputError for a tag that is not there."""
        tag = self.refs.tag(name)
        if tag is None:
            raise InputError(f"no tag '{name}'{closest(name, self.refs.tag_names())}; `stopdown log` lists tags")
        self.refs.swap_tag(name, tag.version, None)

    def _base(self, name: str, ref: str) -> str:
        if name in ("latest", "head"):
            head = self.refs.head()
            if head is None:
                raise InputError(f"{self.path} has no version yet; `stopdown commit` makes the first")
            return head
        tag = self.refs.tag(name)
        if tag is not None:
            return tag.version
        ids = version_ids(self.root)
        found = [version_id for version_id in ids if version_id.startswith(name)] if _PREFIX.fullmatch(name) else []
        if len(found) > 1:
            shown = ", ".join(version_id[: len(name) + 8] for version_id in found[:5])
            raise InputError(f"'{ref}' is short for {len(found)} versions ({shown}); give more characters")
        if found:
            return found[0]
        known = ["latest", *self.refs.tag_names(), *(version_id[: max(12, len(name))] for version_id in ids)]
        raise InputError(
            f"no version '{ref}' in {self.path}{closest(name, known)}; "
            "give a tag, latest, or four or more characters of a version id (`stopdown log` lists them)"
        )
