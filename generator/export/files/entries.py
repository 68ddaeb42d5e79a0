"""What an export consists of: a list of entries, each one file or folder at a path relative to the export's root.

Formats only say which entries there are; `generator.export.write_folder` puts them on the disk. Entries are pure and
repeatable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """A small file whose bytes are known."""

    path: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class ClipFile:
    """A clip's .mp4, linked or copied; its bytes are verified against the sha256 of its label first."""

    path: str
    clip_id: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class MadeFile:
    """A file that is written by a function, too large to hold in memory; `size_bytes` is what it must come out as."""

    path: str
    write: Callable[[Path], None]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class StillFile:
    """One frame of a clip as PNG, the first where no other is named: for trainers that take stills as pictures."""

    path: str
    clip_id: str
    sha256: str
    frame: int = 0


@dataclass(frozen=True, kw_only=True)
class LongerClipFile:
    """A clip with its last frame once more, encoded anew, for readers that lose a frame to rounding."""

    path: str
    clip_id: str
    sha256: str
    fps: int


@dataclass(frozen=True, kw_only=True)
class MadeFolder:
    """A folder that a library writes as a whole, such as a Lance table; it appears in one rename."""

    path: str
    write: Callable[[Path], None]


Entry = TextFile | ClipFile | MadeFile | StillFile | LongerClipFile | MadeFolder
