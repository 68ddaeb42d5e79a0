"""Putting a file into a store and proving that it lies there as it was written."""

from __future__ import annotations

from collections.abc import Callable

from generator.errors import RemoteError
from generator.remotes.base import Remote


def put_verified(remote: Remote, path: str, data: bytes, is_whole: Callable[[bytes], bool]) -> bool:
    """Put a file and read it back; one that a torn write left is replaced. Return whether this call put it.

    Where another writer came first, and what it wrote is whole, that stays. Raises RemoteError for a store that keeps
    something else than it was given.
    """
    new = remote.put(path, data)
    found = remote.read(path)
    if found is not None and is_whole(found):
        return new
    if remote.swap(path, found, data) and remote.read(path) == data:
        return True
    raise RemoteError(f"{remote.name} does not keep {path} as it was written; check that storage")
