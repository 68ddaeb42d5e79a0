"""The errors of this package. What a person, a disk or another machine can cause ends as one line and an exit code.

StopdownError             2   (scenes/errors.py)
  InputError              2   (scenes/errors.py)
    RemoteError           2   a remote refuses, or is not there
    ConflictError         2   a reference was moved meanwhile
  DiskError               1   a history cannot be written
  DamagedError            1   a stored file is missing or changed
  NoSpaceError            1   a build has no room left
  ExportError             1   an export has no room left
  RenderError             1   Blender failed
    RenderProcessDied     1   its process ended without a word
  SlurmError              1   Slurm refuses a job
  ClusterError            1   a Ray cluster does not come up
  StoreError              1   the store of a farm takes no clips
  OutputError             2   standard output cannot be written
  ReaderGoneError       141   the reader of a pipe is gone
  InterruptedByPersonError 130  Ctrl-C
"""

from __future__ import annotations

from scenes.errors import InputError, StopdownError


class DiskError(StopdownError):
    """The disk is full or refuses to be written to; what was there before is as it was."""

    exit_code = 1


class DamagedError(StopdownError):
    """A stored file is missing, truncated or changed."""

    exit_code = 1


class OutputError(StopdownError):
    """Standard output cannot be written to."""


class ReaderGoneError(StopdownError):
    """The reader of a pipe has read enough, as in `stopdown log … | head`; nobody is told."""

    exit_code = 141


class InterruptedByPersonError(StopdownError):
    """Ctrl-C."""

    exit_code = 130


class RenderError(StopdownError):
    """Blender printed or raised an error; the message is Blender's, on one line."""

    exit_code = 1


class RenderProcessDied(RenderError):
    """The render process ended without a word."""


class NoSpaceError(StopdownError):
    """The disk is full; what is finished stays finished."""

    exit_code = 1


class ExportError(StopdownError):
    """The disk refused while exporting; what is written stays, and the same command goes on."""

    exit_code = 1


class RemoteError(InputError):
    """A remote refuses, cannot be reached, is not there or is no dataset; nothing was changed here.

    `lasting` says that trying again is of no use: a right, a bucket, free space or an ability is missing.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class ConflictError(InputError):
    """A reference was moved by another process since it was read."""


class SlurmError(StopdownError):
    """Slurm refuses a job."""

    exit_code = 1


class ClusterError(StopdownError):
    """A cluster that should be there does not come up; what is in the store stays there."""

    exit_code = 1


class StoreError(StopdownError):
    """The store does not take clips; what is there stays there."""

    exit_code = 1
