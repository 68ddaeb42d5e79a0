"""References of two copies of a history: which moved on, and whether moving one to the other loses anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from generator.errors import DamagedError
from generator.io.checksummed_json import checksummed, parse_checksummed
from generator.remotes.base import Remote, checked_path, version_file
from generator.versions.history.history import History
from generator.versions.history.refs import Tag, check_tag_name
from generator.versions.history.version import Version, read_version
from scenes.errors import InputError

HEAD = "head"
Relation = Literal["same", "forward", "behind", "diverged"]


@dataclass(frozen=True, kw_only=True)
class Move:
    """A reference to move: its name, the version before (None: there was none), the version after."""

    name: str
    before: str | None
    after: str
    relation: Relation


@dataclass(frozen=True, kw_only=True)
class RemoteRef:
    """A reference of a remote: the version it names and the bytes that say so."""

    version: str
    data: bytes


def ref_file(name: str) -> str:
    """Return where a remote keeps a reference."""
    return checked_path("head.json" if name == HEAD else f"tags/{name}.json")


def remote_refs(remote: Remote) -> dict[str, RemoteRef]:
    """Return the head and the tags of a remote by name; raises DamagedError when one is damaged or has no fit name."""
    names = [HEAD]
    for path in sorted(remote.sizes("tags")):
        name = path.removeprefix("tags/").removesuffix(".json")
        try:
            check_tag_name(name)
            checked_path(path)
        except (InputError, DamagedError):
            raise DamagedError(f"{remote.name} has a file {path!r} that can be no tag; remove it there") from None
        names.append(name)
    refs: dict[str, RemoteRef] = {}
    for name in names:
        data = remote.read(ref_file(name))
        if data is not None:
            refs[name] = RemoteRef(version=_version_of(remote, name, data), data=data)
    return refs


def local_refs(history: History) -> dict[str, str]:
    """Return the head and the tags of a history by name."""
    head = history.refs.head()
    return {**({} if head is None else {HEAD: head}), **{name: tag.version for name, tag in history.refs.tags().items()}}


def ref_data(name: str, version_id: str) -> bytes:
    """Return the bytes of a reference, as `generator.versions.history.refs` writes them."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return checksummed(Tag(name=name, version=version_id, time=now).model_dump(mode="json"))


class Ancestry:
    """Versions by id from wherever they are, and what came before each."""

    def __init__(self, load: Callable[[str], Version]) -> None:
        self._load = load
        self._versions: dict[str, Version] = {}
        self._before: dict[str, frozenset[str]] = {}

    def version(self, version_id: str) -> Version:
        """Return a version."""
        if version_id not in self._versions:
            self._versions[version_id] = self._load(version_id)
        return self._versions[version_id]

    def before(self, version_id: str) -> frozenset[str]:
        """Return the ids of a version and all its ancestors."""
        if version_id not in self._before:
            seen: set[str] = set()
            todo = [version_id]
            while todo:
                current = todo.pop()
                if current not in seen:
                    seen.add(current)
                    todo.extend(self.version(current).parents)
            self._before[version_id] = frozenset(seen)
        return self._before[version_id]

    def relation(self, old: str, new: str) -> Relation:
        """Return how a reference at `old` stands to one at `new`."""
        if old == new:
            return "same"
        if old in self.before(new):
            return "forward"
        return "behind" if new in self.before(old) else "diverged"

    def oldest_first(self, version_ids: Iterable[str]) -> Iterator[Version]:
        """Yield versions and all their ancestors, parents before children."""
        done: set[str] = set()
        for start in version_ids:
            todo = [(start, False)]
            while todo:
                current, parents_done = todo.pop()
                if parents_done:
                    if current not in done:
                        done.add(current)
                        yield self.version(current)
                elif current not in done:
                    todo.append((current, True))
                    todo.extend((parent, False) for parent in reversed(self.version(current).parents))


def either(history: History, remote: Remote) -> Callable[[str], Version]:
    """Return how to load a version that is here or only on the remote; its bytes are verified by its id.

    Loading raises DamagedError where it is missing or malformed.
    """

    def load(version_id: str) -> Version:
        if history.version_path(version_id).is_file():
            return history.load(version_id)
        data = remote.read(version_file(version_id))
        if data is None:
            raise DamagedError(f"version {version_id[:12]} is missing from {remote.name}; push it there from a whole copy")
        version = read_version(data, version_id)
        if version.id != version_id:
            raise DamagedError(f"version {version_id[:12]} at {remote.name} is not in the form that versions have")
        return version

    return load


def moves(
    old: Mapping[str, str], new: Mapping[str, str], ancestry: Ancestry, *, force: bool, where: str, advice: str
) -> list[Move]:
    """Return which references of `old` move to those of `new`; one that is ahead already stays.

    Raises InputError when one has diverged and `force` is not set; with it, the reference moves whatever it named.
    """
    found = []
    for name, after in sorted(new.items(), key=lambda item: (item[0] != HEAD, item[0])):
        before = old.get(name)
        relation: Relation = "forward" if before is None else ancestry.relation(before, after)
        if relation == "same" or (relation == "behind" and not force):
            continue
        if relation == "diverged" and not force:
            what = "the histories have" if name == HEAD else f"tag '{name}' has"
            raise InputError(f"{what} diverged: {where} is at {str(before)[:12]}, the other at {after[:12]}; {advice}")
        found.append(Move(name=name, before=before, after=after, relation=relation))
    return found


def _version_of(remote: Remote, name: str, data: bytes) -> str:
    try:
        tag = Tag.model_validate(parse_checksummed(data, f"'{name}' at {remote.name}"))
    except ValidationError:
        raise DamagedError(f"'{name}' at {remote.name} is no reference; push it again with --force") from None
    if tag.name != name or not re.fullmatch(r"[0-9a-f]{64}", tag.version):
        raise DamagedError(f"'{name}' at {remote.name} is the reference of another name or of no version; look at it there")
    return tag.version
