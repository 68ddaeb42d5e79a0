"""Work on remotes that no command line asks for: objects so large that they are uploaded in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from generator.remotes.base import RemoteOptions, open_remote
from generator.versions.history.history import History
from generator.versions.sync.push import push


def push_in_parts(words: Sequence[str]) -> None:
    """Push a dataset, with all but the smallest objects in parts."""
    folder, address = words
    push(History.open(Path(folder)), open_remote(address, RemoteOptions(large_bytes=100)))
