"""Checkpoints: a folder `checkpoint-STEP` each, written whole or not at all, proven by hashes when read.

parameters.safetensors   what trains, float32
averaged.safetensors     its moving average, where there is one
optimizer.safetensors    the optimizer's tensors, NAME/KEY
state.json               step, remembered losses, the optimizer's numbers, what decides the run, and the hash of each file

There is no state of random generators: batches and draws are functions of (seed, micro-step, process).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from generator.files import fsync_folder
from generator.scratch import scratch_folder

FORMAT = 1
NAME = re.compile(r"checkpoint-(\d+)")
SCRATCH = ".checkpoint-"
STATE = "state.json"
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


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint of a step."""
    return folder / f"checkpoint-{step}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of a run's checkpoints, ascending, unproven."""
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name)))


def latest_identity(folder: Path) -> dict[str, Any] | None:
    """Return what decided the run of a folder's last checkpoint, unproven and without reading its tensors, or None."""
    for step in reversed(checkpoint_steps(folder)):
        try:
            return dict(json.loads((checkpoint_path(folder, step) / STATE).read_bytes())["identity"])
        except (OSError, ValueError, KeyError, TypeError):  # `read_latest` reports it
            continue
    return None


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint beside the others, then remove all but the last `keep`; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{SCRATCH}*"):  # of a process that was killed while it wrote
        shutil.rmtree(leftover)
    path = checkpoint_path(folder, checkpoint.step)
    with scratch_folder(path) as scratch:
        _write_files(scratch, checkpoint)
        if path.exists():  # a damaged one, or of the same step
            shutil.rmtree(path)
        scratch.rename(path)
    fsync_folder(folder)
    for step in checkpoint_steps(folder)[:-keep]:
        shutil.rmtree(checkpoint_path(folder, step))
    return path


def read_latest(folder: Path) -> Checkpoint | None:
    """Return a run's last checkpoint that is whole, or None; damaged ones are reported and passed over."""
    for step in reversed(checkpoint_steps(folder)):
        path = checkpoint_path(folder, step)
        try:
            return read_checkpoint(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            LOG.warning("%s is damaged (%s); the one before it is used", path, error)
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and prove one checkpoint; raises ValueError, KeyError, OSError or SafetensorError for one that is not whole."""
    state = json.loads((path / STATE).read_bytes())
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
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
    )


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {
        f"{name}/{key}": value
        for name, values in checkpoint.optimizer.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }
    groups: dict[str, Mapping[str, Tensor]] = {"parameters": checkpoint.parameters, "optimizer": tensors}
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
        "losses": list(checkpoint.losses),
        "optimizer": {
            name: {key: value for key, value in values.items() if not isinstance(value, Tensor)}
            for name, values in checkpoint.optimizer.items()
        },
        "identity": dict(checkpoint.identity),
        "files": hashes,
    }
    _write(folder / STATE, (json.dumps(state, indent=1) + "\n").encode())
    fsync_folder(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
