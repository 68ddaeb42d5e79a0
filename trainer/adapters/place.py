"""Where the adapter lies that a person named: its own folder, a checkpoint's, a run's, or one on the hub."""

from __future__ import annotations

from pathlib import Path

from scenes.errors import InputError
from trainer.adapters.card import CARD
from trainer.backbones.hub import locate_adapter

IN_CHECKPOINT = "adapter"  # the folder of the adapter in a checkpoint's folder, and in a run's
STATE = "state.json"  # of a checkpoint


def adapter_place(named: Path) -> Path:
    """Return the adapter's folder in a checkpoint (`RUN/checkpoint-250`) or run (`RUN`); any other path as it is.

    `owner/name@revision` is fetched from the hub (`trainer.backbones.hub`).

    Raises InputError for a checkpoint that holds no adapter, and for a run that has checkpoints only.
    """
    named = locate_adapter(named)
    if not named.is_dir() or (named / CARD).exists():
        return named
    if (named / IN_CHECKPOINT / CARD).is_file():
        return named / IN_CHECKPOINT
    if (named / STATE).is_file():
        raise InputError(
            f"{named} is a checkpoint without an adapter: what trains there is a whole model, or an older version wrote it; "
            "continue that run, its next checkpoints have one"
        )
    inside = [path.parent.parent for path in named.glob(f"checkpoint-*/{IN_CHECKPOINT}/{CARD}")]
    steps = sorted(int(path.name.removeprefix("checkpoint-")) for path in inside if path.name[11:].isdecimal())
    if steps:
        last = named / f"checkpoint-{steps[-1]}"
        raise InputError(f"{named} is a run that has not finished; give one of its {len(steps)} checkpoints, such as {last}")
    return named


def run_of(folder: Path) -> Path | None:
    """Return the run in which an adapter's folder is the result, or lies in a checkpoint; None for one that lies elsewhere."""
    if folder.name != IN_CHECKPOINT:
        return None
    return folder.parent.parent if folder.parent.name.startswith("checkpoint-") else folder.parent
