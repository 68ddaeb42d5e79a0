"""Takes the adapter out of a checkpoint: a folder of its own, written whole or not at all, which nothing prunes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from generator.io.atomic import fsync_folder
from generator.io.scratch import scratch_folder
from scenes.errors import InputError
from trainer.adapters.card import AdapterCard
from trainer.adapters.saved import SavedAdapter


def extract(checkpoint: Path, out: Path) -> AdapterCard:
    """Copy the adapter of a checkpoint to a new folder and return its card; its weights are verified first.

    Raises InputError for what holds no adapter, weights that are not as they were written, and a folder that exists.
    """
    if not checkpoint.is_dir():
        raise InputError(f"{checkpoint} is no folder; give a checkpoint's, such as RUN/checkpoint-250")
    saved = SavedAdapter.open(checkpoint)
    saved.weights()  # which must be finite
    if os.path.lexists(out):
        raise InputError(f"{out} exists; give a new folder")
    with scratch_folder(out) as scratch:
        copied = scratch / saved.folder.name
        shutil.copytree(saved.folder, copied)
        for path in copied.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        copied.rename(out)
        fsync_folder(out.parent)
    return saved.card
