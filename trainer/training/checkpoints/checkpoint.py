"""Checkpoints: a folder `checkpoint-STEP` each, written whole or not at all, verified by hashes when read.

parameters.safetensors   what trains, float32
averaged.safetensors     its moving average, where there is one
optimizer.safetensors    the optimizer's tensors, NAME/KEY
adapter/                 what a user takes away, where it is small (a control adapter): any checkpoint can be used as it is
state.json               step, remembered losses, the optimizer's numbers, what decides the run, and the hash of each file;
                         with a checksum of its own

There is no state of random generators: batches and draws are functions of (seed, micro-step, process).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from generator.errors import DamagedError
from generator.io.atomic import file_digest, fsync_folder
from generator.io.checksummed_json import checksummed, parse_checksummed
from generator.io.scratch import scratch_folder

FORMAT = 2
WITHOUT_CHECKSUM = 1  # the format before state.json had a checksum
NAME = re.compile(r"checkpoint-(\d+)")
SCRATCH = ".checkpoint-"
STATE = "state.json"
SPARE = 2  # checkpoints by time that stay until the next one by steps: a damaged one has another before it
LOG = logging.getLogger("stopdown.checkpoint")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on after `step` optimizer steps as if it had never stopped; tensors are on the CPU."""

    step: int
    parameters: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Mapping[str, Any]]  # parameter -> key -> tensor or number
    losses: tuple[float, ...]  # what the guard remembers
    identity: Mapping[str, Any]  # what decides the run, flat
    scheduled: bool = True  # at a step that the settings name, not for the time that passed or because of an interruption

    @property
    def size_bytes(self) -> int:
        """The bytes of its tensors."""
        tensors = [*self.parameters.values(), *(self.averaged or {}).values(), *_optimizer_tensors(self).values()]
        return sum(tensor.nbytes for tensor in tensors)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint of a step."""
    return folder / f"checkpoint-{step}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of a run's checkpoints, ascending, unverified."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name)))


def latest_identity(folder: Path) -> dict[str, Any] | None:
    """Return what decided the run of a folder's last checkpoint, without reading its tensors, or None."""
    for step in reversed(checkpoint_steps(folder)):
        try:
            return dict(_read_state(checkpoint_path(folder, step))["identity"])
        except (OSError, ValueError, KeyError, TypeError):  # `read_latest` reports it
            continue
    return None


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    keep: int,
    *,
    best: Collection[int] = (),
    beside: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint beside the others, then remove those that are no longer needed; returns its folder.

    The last `keep` scheduled ones stay and those of the steps `best`; until the next scheduled one also the newest two of any
    kind. `beside` writes more into it. Where anything fails, nothing half-written is left and the others are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    path = checkpoint_path(folder, checkpoint.step)
    with scratch_folder(path) as scratch:
        if beside is not None:
            beside(scratch)
        _write_files(scratch, checkpoint)
        if path.exists():  # a damaged one, or of the same step
            shutil.rmtree(path)
        scratch.rename(path)
    fsync_folder(folder)
    for step in _superfluous(folder, checkpoint.step, checkpoint.scheduled, keep, best):
        if _is_damaged(checkpoint_path(folder, step)):
            LOG.warning("%s is damaged and is removed", checkpoint_path(folder, step))
        _remove(folder, step)
    return path


def tidy(folder: Path, step: int, keep: int, *, best: Collection[int] = ()) -> None:
    """Do what a killed process had yet to do when the checkpoint of a step was written: remove what is no longer needed.

    What is damaged stays until the next checkpoint is written.
    """
    _sweep(folder)
    for other in _superfluous(folder, step, is_scheduled(checkpoint_path(folder, step)), keep, best):
        if other < step and not _is_damaged(checkpoint_path(folder, other)):
            _remove(folder, other)


def _sweep(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote or removed a checkpoint."""
    for leftover in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(leftover)


def _remove(folder: Path, step: int) -> None:
    """Remove a checkpoint; under its own name nobody sees a part of it."""
    gone = folder / f"{SCRATCH}{step}-gone"
    checkpoint_path(folder, step).rename(gone)
    shutil.rmtree(gone)


def read_latest(folder: Path) -> Checkpoint | None:
    """Return a run's last checkpoint that is whole, or None; damaged ones are reported and passed over."""
    for step in reversed(checkpoint_steps(folder)):
        path = checkpoint_path(folder, step)
        try:
            return read_checkpoint(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            LOG.warning("%s is damaged (%s); the one before it is used", path, error)
    return None


def report_damaged(folder: Path, before: int) -> None:
    """Say which checkpoints before a step are damaged: if the last one fails, there is nothing to go back to."""
    for step in checkpoint_steps(folder):
        path = checkpoint_path(folder, step)
        if step >= before:
            break
        try:
            for name, expected in _read_state(path)["files"].items():
                if file_digest(path / name) != expected:
                    raise ValueError(f"{name} is not as it was written")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            LOG.warning("%s is damaged (%s); nothing goes on from it, remove it", path, error)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; raises ValueError, KeyError, OSError or SafetensorError for one that is not whole."""
    state = _read_state(path)
    files: dict[str, dict[str, Tensor]] = {}
    for name, expected in state["files"].items():
        data = (path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != expected:
            raise ValueError(f"{name} is not as it was written")
        files[name.removesuffix(".safetensors")] = load(data)
    optimizer: dict[str, dict[str, Any]] = {name: dict(numbers) for name, numbers in state["optimizer"].items()}
    for name, tensor in files["optimizer"].items():
        parameter, _, key = name.rpartition("/")
        optimizer[parameter][key] = tensor
    return Checkpoint(
        step=state["step"],
        parameters=files["parameters"],
        averaged=files.get("averaged"),
        optimizer=optimizer,
        losses=tuple(state["losses"]),
        identity=state["identity"],
        scheduled=state.get("scheduled", True),
    )


def _read_state(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state, held against its checksum and against the step that the folder's name says."""
    data = (path / STATE).read_bytes()
    state = json.loads(data)
    if state["format"] not in (WITHOUT_CHECKSUM, FORMAT):
        raise ValueError(f"format {state['format']}, this version reads {WITHOUT_CHECKSUM} and {FORMAT}")
    if state["format"] == FORMAT:
        try:
            state = parse_checksummed(data, STATE)
        except DamagedError:
            raise ValueError(f"{STATE} is not as it was written") from None
    named = NAME.fullmatch(path.resolve().name)
    if named is not None and state["step"] != int(named[1]):
        raise ValueError(f"{STATE} is of step {state['step']}")
    return dict(state)


def _superfluous(folder: Path, last: int, last_scheduled: bool, keep: int, best: Collection[int]) -> list[int]:
    """Return the steps of the checkpoints that may go; which ones are left does not depend on how long the steps took."""
    steps = checkpoint_steps(folder)
    scheduled = [step for step in steps if is_scheduled(checkpoint_path(folder, step))]
    kept = {last, *scheduled[-keep:], *(set(best) & set(scheduled))}
    if not last_scheduled:
        kept |= set(steps[-SPARE:])
    return [step for step in steps if step not in kept]


def is_scheduled(path: Path) -> bool:
    """Whether a checkpoint is of a step that the settings name; one that cannot be read is not."""
    try:
        return bool(_read_state(path).get("scheduled", True))
    except (OSError, ValueError, KeyError, TypeError):  # damaged
        return False


def _is_damaged(path: Path) -> bool:
    """Whether a checkpoint's state cannot be read; its tensors are not looked at."""
    try:
        _read_state(path)
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return False


def _optimizer_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, values in checkpoint.optimizer.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    groups: dict[str, Mapping[str, Tensor]] = {
        "parameters": checkpoint.parameters,
        "optimizer": _optimizer_tensors(checkpoint),
    }
    if checkpoint.averaged is not None:
        groups["averaged"] = checkpoint.averaged
    hashes = {}
    for group, members in groups.items():
        data = save({name: tensor.contiguous() for name, tensor in members.items()})
        hashes[f"{group}.safetensors"] = hashlib.sha256(data).hexdigest()
        _write(folder / f"{group}.safetensors", data)
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "scheduled": checkpoint.scheduled,
        "losses": list(checkpoint.losses),
        "optimizer": {
            name: {key: value for key, value in values.items() if not isinstance(value, Tensor)}
            for name, values in checkpoint.optimizer.items()
        },
        "identity": dict(checkpoint.identity),
        "files": hashes,
    }
    _write(folder / STATE, checksummed(state))
    fsync_folder(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
