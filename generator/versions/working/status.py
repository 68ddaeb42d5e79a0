"""Whether the working folder is what its version says, and what differs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from generator.io.atomic import file_digest
from generator.io.disk_errors import reported
from generator.versions.history.history import History
from generator.versions.history.version import Version
from generator.versions.working.compare import LABELS, Difference, Working, differences, shows, target_of


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a working folder: its version (None before the first commit) and the files that differ from it.

    `restoring` is the version of an interrupted restore; `other_plan` says that plan.json is of a build not yet committed.
    """

    version: Version | None
    head: str | None
    restoring: str | None
    other_plan: bool
    differences: tuple[Difference, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing differs and nothing is under way."""
        return self.version is not None and not self.differences and self.restoring is None and not self.other_plan


@reported
def status(history: History, *, thorough: bool = False) -> Status:
    """Compare the working folder to its version; `thorough` hashes every file. Raises DamagedError for a damaged history."""
    working = Working(history)
    head = history.refs.head()
    if head is None:
        return Status(version=None, head=None, restoring=None, other_plan=False, differences=())
    working.load_index()
    found = compare(history, working, head, thorough=thorough)
    if found.unnoted:
        with contextlib.suppress(OSError):  # on a disk that refuses, it is found out anew each time
            working.remember(found.version.id, labels=file_digest(history.path / LABELS))
    working.finish_announced()
    working.save_index()
    return Status(
        version=found.version,
        head=head,
        restoring=found.restoring,
        other_plan=_other_plan(history, found.version),
        differences=found.differences,
    )


@dataclass(frozen=True, kw_only=True)
class StatusComparison:
    """The version that a folder shows, or was to show, and where it differs; `unnoted` says that the folder's note is not of
    that version."""

    version: Version
    restoring: str | None
    differences: tuple[Difference, ...]
    unnoted: bool = False


def compare(history: History, working: Working, head: str, *, thorough: bool) -> StatusComparison:
    """Compare the folder to the version that it notes, or to the head where it shows that and was kept from noting it."""
    shown, restoring, labels = working.state()
    version = history.load(shown or head)
    found = differences(history, target_of(history, version), working, thorough=thorough, labels_digest=labels)
    if found and restoring is None and version.id != head:
        later = history.load(head)
        if not differences(history, target_of(history, later), working, thorough=thorough):
            return StatusComparison(version=later, restoring=None, differences=(), unnoted=True)
    return StatusComparison(version=version, restoring=restoring, differences=tuple(found))


@reported
def record_shown(history: History, version: Version) -> bool:
    """Record that the folder shows a version, if it does; return whether it does. To be called after a commit of the folder."""
    if not shows(history, version):
        return False
    Working(history).remember(version.id, labels=file_digest(history.path / LABELS))
    return True


def announce(history: History, version: Version) -> None:
    """Record that the folder shows a version once the head is moved to it; to be called when the folder does show it."""
    Working(history).announce(version.id, labels=file_digest(history.path / LABELS))


def _other_plan(history: History, version: Version) -> bool:
    try:
        digest = file_digest(history.root / "plan.json")
    except FileNotFoundError:
        return False
    return digest not in version.plans
