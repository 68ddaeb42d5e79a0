"""From opened data and backbone to a saved result: encode, train or go on, save; for `stopdown train` and for runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator

from generator.console.terminal import Console
from generator.io.file_lock import exclusive_lock
from trainer.data.encoding import rich_report
from trainer.methods import METHODS
from trainer.training.add_callbacks import watch
from trainer.training.checkpoints.best import best_checkpoints
from trainer.training.loop import Loop
from trainer.training.setup import Opened, prepare_run
from trainer.training.together import first_does
from trainer.weights.full_disk import full_disk_in_words


def run_training(opened: Opened, folder: Path, accelerator: Accelerator, console: Console) -> int:
    """Train in `folder` from its last checkpoint to the last step and save the result there; returns the step.

    Raises KeyboardInterrupt when asked to stop, after a checkpoint is written, what `Loop.run` raises, DiskFullError where
    there is no room for an encoding, a checkpoint or the log, and InputError where another process trains in the folder.
    """
    with full_disk_in_words(folder, "free some and run the same command again: it goes on from its last checkpoint"):
        return _run(opened, folder, accelerator, console)


def _run(opened: Opened, folder: Path, accelerator: Accelerator, console: Console) -> int:
    with rich_report(console) as report:
        run = prepare_run(opened, accelerator, report)
    if run.encoded is not None:
        console.print(run.encoded.summary(), highlight=False)
    loop = Loop(
        run.task,
        opened.settings,
        folder,
        accelerator,
        identity=run.identity,
        best=lambda: {best.step for best in best_checkpoints(folder)},
    )
    busy = f"another training is writing {folder}; wait for it, or give another --out"
    with ExitStack() as stack:

        def begin(_still: Callable[[], None]) -> None:
            stack.enter_context(exclusive_lock(folder / ".lock", busy))
            watch(loop, run, folder, sys.stderr)

        first_does(accelerator, begin)
        step = loop.run()
        loop.save(folder / METHODS[opened.settings.method].result)
    accelerator.end_training()
    return step
