"""Whether the working folder is what its version says, and what differs."""

from __future__ import annotations

from dataclasses import dataclass

from generator.files import file_digest
from generator.versions.history import History
from generator.versions.reported import reported
from generator.versions.version import Version
from generator.versions.working import LABELS, Difference, Working, differences, shows, target_of


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
    shown, restoring, labels = working.state()
    head = history.refs.head()
    if head is None:
        return Status(version=None, head=None, restoring=None, other_plan=False, differences=())
    working.load_index()
    version = history.load(shown or head)
    found = differences(history, target_of(history, version), working, thorough=thorough, labels_digest=labels)
    if found and restoring is None and version.id != head:
        # A commit that was killed after it moved the head left the folder's own note behind: the folder shows the head.
        later = history.load(head)
        if not differences(history, target_of(history, later), working, thorough=thorough):
            version, found = later, []
    working.save_index()
    return Status(
        version=version,
        head=head,
        restoring=restoring,
        other_plan=_other_plan(history, version),
        differences=tuple(found),
    )


@reported
def mark(history: History, version: Version) -> bool:
    """Note that the folder shows a version, if it does; return whether it does. To be called after a commit of the folder."""
    if not shows(history, version):
        return False
    Working(history).remember(version.id, labels=file_digest(history.path / LABELS))
    return True


def _other_plan(history: History, version: Version) -> bool:
    try:
        digest = file_digest(history.root / "plan.json")
    except FileNotFoundError:
        return False
    return digest not in version.plans
