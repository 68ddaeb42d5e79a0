"""A store in memory and clips that nobody rendered, for measuring what surrounds the rendering (farm_scale.py)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from generator.store.objects import ClipRecord


class Keys(Mapping[str, str]):
    """Record keys by clip id, as a plan's would be: a sha256."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, clip_id: str) -> str:
        return sha(f"key {clip_id}")

    def __iter__(self) -> Iterator[str]:
        return (name(number) for number in range(self._count))

    def __len__(self) -> int:
        return self._count


class Memory:
    """A remote in memory, by folder, that counts requests and the entries of its lists."""

    name = "memory"

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.counts: Counter[str] = Counter()

    def put(self, path: str, data: bytes) -> bool:
        """Put a file where there is none."""
        self.counts["requests"] += 1
        folder = self.folders[path.rpartition("/")[0]]
        return folder.setdefault(path, data) is data

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        self.counts["requests"] += 1
        return self.folders[path.rpartition("/")[0]].get(path)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return sizes by path; a list of storage has a thousand entries a request."""
        found = {path: len(data) for path, data in self.folders[folder].items()}
        self.counts["requests"] += 1 + len(found) // 1000
        self.counts["listed"] += len(found)
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is collected here."""
        yield


class Rendered:
    """A scratch store of synthetic clips, which are made when they are read."""

    root = Path("memory")

    def __init__(self, names: Mapping[str, str]) -> None:
        self._clips = {key: f"clip {clip_id}".encode() * 8 for clip_id, key in names.items()}
        self._objects = {hashlib.sha256(data).hexdigest(): data for data in self._clips.values()}

    def record(self, key: str) -> ClipRecord:
        """Return a clip's record."""
        return record(key, self._clips[key])

    def read(self, digest: str) -> bytes:
        """Return an object."""
        return self._objects[digest]


def sha(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def name(number: int) -> str:
    """Return a clip id."""
    return f"flyby-s1-n9-f9-{number // 9:06d}-{number % 9}"


def record(key: str, data: bytes) -> ClipRecord:
    """Return the record of a synthetic clip."""
    return ClipRecord(
        key=key,
        sha256_bytes=hashlib.sha256(data).hexdigest(),
        sha256_frames=sha(f"frames {key}"),
        size_bytes=len(data),
        blender="5.0.1",
        encoder="synthetic",
        cpu_s=1.0,
    )
