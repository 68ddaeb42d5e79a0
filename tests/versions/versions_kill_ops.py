"""What the kill and race tests run in other processes: each works until it is killed and notes what it was told is done."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from versions_support import changed, commit_clips, make_clips, origin, references, table, without

from generator.errors import ConflictError
from generator.versions.commit import extend
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.working.restore import restore
from scenes.errors import InputError


def note(path: Path, words: str) -> None:
    """Append a line to a file in one write: a line is there or not."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{words}\n".encode())
    os.close(descriptor)


def commits(path: Path, notes: Path, seed: int) -> None:
    """Extend the dataset by three clips, again and again."""
    history = History(path)
    for number in range(10**6):
        clips = make_clips(history.store, 3, seed=seed * 1000 + number)
        note(notes, f"try {seed * 1000 + number}")
        version = extend(history, table(clips), references(clips), origin(f"{seed} {number}"))
        note(notes, f"done {version.id} {seed * 1000 + number}")


def whole_commits(path: Path, notes: Path, seed: int) -> None:
    """Commit whole label tables that differ each time."""
    history = History(path)
    clips = make_clips(history.store, 6, seed=77)
    first = next(iter(clips))
    for number in range(10**6):
        labels = changed(without(clips, *list(clips)[1 : 1 + number % 3]), first, caption=f"{seed} {number}")
        note(notes, f"done {commit_clips(history, labels, f'{seed} {number}').id} -")


def restores(path: Path, notes: Path, seed: int) -> None:
    """Go back and forth between two versions."""
    history = History(path)
    for number in range(10**6):
        ref = ("latest", "latest~1")[(seed + number) % 2]
        restore(history, ref)
        note(notes, f"restored {ref}")


def collects(path: Path, notes: Path, seed: int) -> None:
    """Make garbage and unfinished commits, and collect them."""
    history = History(path)
    for number in range(10**6):
        for part in range(8):
            history.store.put(f"garbage {seed} {number} {part}".encode())
        try:
            report = gc(history, grace_s=0, timeout_s=2)
            note(notes, f"collected {report.objects}")
        except InputError:
            note(notes, "waited in vain")


def tags(path: Path, notes: Path, seed: int) -> None:
    """Set, move and remove tags."""
    history = History(path)
    draw = random.Random(seed)
    for _ in range(10**6):
        name, ref = draw.choice(["v1", "v2", "v3"]), draw.choice(["latest", "latest~1"])
        try:
            if history.refs.tag(name) is not None and draw.random() < 0.3:
                history.untag(name)
            else:
                history.tag(name, ref, move=True)
            note(notes, f"tagged {name}")
        except (ConflictError, InputError):
            note(notes, "lost a race")


def extends(path: Path, notes: Path, seed: int, count: int) -> None:
    """Extend the dataset `count` times, then end."""
    history = History(path)
    for number in range(count):
        clips = make_clips(history.store, 2, seed=seed * 1000 + number)
        version = extend(history, table(clips), references(clips), origin(f"{seed} {number}"))
        note(notes, f"done {version.id} {seed * 1000 + number}")


OPERATIONS: dict[str, Callable[[Path, Path, int], None]] = {
    "commit": commits,
    "whole": whole_commits,
    "restore": restores,
    "gc": collects,
    "tag": tags,
}


def run(operation: str, path: Path, notes: Path, seed: int) -> None:
    """Run an operation until killed."""
    OPERATIONS[operation](path, notes, seed)
