"""Flips single bits in the files of a folder and asks its reader: is it noticed, and is anything else used than was written?

A case says how to prepare a folder, which files of it are read, and how a reader looks at them. A new one is a `Reader` in
`flip_cases.py` or `flip_cases_trainer.py`.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scenes.errors import StopdownError


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What is read of a folder. `read` returns what it came to, in a form to compare, and whether something wrong was said.

    A flip is noticed where that is said or a StopdownError is raised; whatever is said, what is used must be what was written,
    or made anew as it was. `skip` names files that nobody reads but people. A `partial` reader may be silent about what it did
    not need.
    """

    name: str
    prepare: Callable[[Path], None]
    read: Callable[[Path], tuple[Hashable, bool]]
    skip: Callable[[Path], bool] = lambda path: False
    partial: bool = False
    copied: bool = False  # reading changes the folder, so that each flip gets a copy
    long_only: bool = False  # too slow for a sample
    most: int | None = None  # flips, in the long form


@dataclass
class FlipTally:
    """What the flips of one case came to."""

    case: str
    files: int = 0
    flips: int = 0
    noticed: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def words(self) -> str:
        """Return one line of a table."""
        return (
            f"{self.case:<24} {self.files:5d} files   {self.flips:5d} flips  {self.noticed:5d} noticed  "
            f"{len(self.failures):3d} failures  {self.seconds:7.1f} s"
        )


def flip_all(reader: Reader, scratch: Path, *, flips: int, part: tuple[int, int] = (1, 1)) -> FlipTally:
    """Flip bits of a case's files: of every file one, as far as the number goes, then of files drawn by chance.

    Of those, it is the `part` k of n that is done.
    """
    begun_s = time.monotonic()
    tally, draw = FlipTally(reader.name), random.Random(f"{reader.name} 0")
    folder, template = scratch / "work", scratch / "template"
    folder.mkdir(parents=True)
    reader.prepare(folder)
    subprocess.run(["cp", "-a", folder, template], check=True)
    expected, wrong = reader.read(folder)
    assert not wrong, f"{reader.name} finds something wrong before any flip"
    victims = [path.relative_to(template) for path in _files(template) if not reader.skip(path.relative_to(template))]
    tally.files = len(victims)
    draw.shuffle(victims)
    for number in range(flips):
        victim = victims[number] if number < len(victims) else draw.choice(victims)
        bit = draw.randrange(8 * (template / victim).stat().st_size)
        if number % part[1] != part[0] - 1:
            continue
        if reader.copied:
            shutil.rmtree(folder)
            subprocess.run(["cp", "-a", template, folder], check=True)
        before = _flip(folder / victim, bit)
        words = _judge(reader, folder, expected, tally)
        if words:
            tally.failures.append(f"{reader.name}: bit {bit} of {victim}: {words}")
        if not reader.copied:
            (folder / victim).write_bytes(before)
        tally.flips += 1
    tally.seconds = time.monotonic() - begun_s
    return tally


def _judge(reader: Reader, folder: Path, expected: Hashable, tally: FlipTally) -> str:
    """Return what is wrong with how a reader took a flip; empty where nothing is."""
    try:
        found, said = reader.read(folder)
    except StopdownError:
        tally.noticed += 1
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    tally.noticed += said
    if found != expected:
        return "other content was used" + (", though something was said" if said else " silently")
    return "" if said or reader.partial else "nobody noticed"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink() and path.stat().st_size)


def _flip(path: Path, bit: int) -> bytes:
    """Flip a bit of a file in place, whatever its mode, so that its links show it too; return the bytes before."""
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(bytes(flipped))
    return data
