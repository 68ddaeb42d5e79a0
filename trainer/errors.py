"""The errors of this package. What a person, a disk or a graphics card can cause ends as one line and an exit code.

    StopdownError             2   (scenes/errors.py)
      InputError              2   (scenes/errors.py)
      DiskFullError           2   a training or a generation has no room left
      OutOfRoomError          2   the device has no room for a step
      DivergedError           1   a loss or a gradient is no number, or explodes
      StageFailedError        1   a stage of a run failed

What comes from datasets and files is in `generator/errors.py`.
"""

from __future__ import annotations

from scenes.errors import StopdownError


class DiskFullError(StopdownError):
    """The disk has no room for what was to be written; what was there before is as it was."""


class DivergedError(StopdownError):
    """A loss or a gradient that no step should be made with. Weights and checkpoints are those of before."""

    exit_code = 1


class OutOfRoomError(StopdownError):
    """The device has no room for a step."""


class StageFailedError(StopdownError):
    """A stage's command ended with an error, which it has told itself."""

    exit_code = 1
