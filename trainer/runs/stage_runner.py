"""Runs named stages in order; each is skipped while what it depends on and what it made are as they were.

A stage's inputs are a digest of everything that decides its result; what it made is recorded as digests by name. Killed at any
instant, a run goes on where it was: a stage is done when its record is written, and not before.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from generator.errors import DamagedError
from generator.io.atomic import write_atomic
from generator.io.checked_model import checked, verified
from generator.io.file_lock import exclusive_lock
from scenes.errors import InputError, closest
from trainer.weights.full_disk import full_disk_in_words

STATE = "state.json"
Event = Literal["skipped", "started", "finished", "damaged"]
Tell = Callable[[Event, str, str], None]  # what happened, to which stage, in a few words


class RunStage(Protocol):
    """One step of a run. It finds its own place in the run's folder and resumes its own unfinished work."""

    @property
    def name(self) -> str:
        """The stage's name in `--from` and `--until`."""
        ...

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Return all that decides the result, as digests or words by name; `earlier` holds the records of stages before."""
        ...

    def made(self) -> Mapping[str, str]:
        """Return digests of what is there now by name; raises DamagedError for what is missing or broken."""
        ...

    def run(self) -> Mapping[str, Any]:
        """Do the work and return the numbers worth telling."""
        ...


class StageRecord(BaseModel):
    """What is known of a finished stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, str]
    made: dict[str, str]
    summary: dict[str, Any] = Field(default_factory=dict)
    wall_s: float = 0.0


class RunState(BaseModel):
    """What a run has done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: dict[str, StageRecord] = Field(default_factory=dict)


def read_state(folder: Path) -> RunState:
    """Return what a run has done; raises InputError for a state file that cannot be read."""
    try:
        return RunState.model_validate(verified((folder / STATE).read_bytes()))
    except FileNotFoundError:
        return RunState()
    except (OSError, ValueError) as error:  # pydantic's errors are among them
        raise InputError(
            f"{folder / STATE} cannot be read ({type(error).__name__}); remove it to do every stage again"
        ) from error


def run_stages(
    stages: Sequence[RunStage], folder: Path, tell: Tell, *, first: str | None = None, until: str | None = None
) -> dict[str, StageRecord]:
    """Run the stages that are not done and return the records of all up to `until`.

    `first` does that stage and all after it again, and takes those before it as they are. Raises InputError for a stage of
    another name, for stages before `first` that are not done, and when the same run is going on elsewhere.
    """
    names = [stage.name for stage in stages]
    for chosen in (first, until):
        if chosen is not None and chosen not in names:
            raise InputError(f"no stage '{chosen}'{closest(chosen, names)}; the stages are {', '.join(names)}")
    if first is not None and until is not None and names.index(first) > names.index(until):
        raise InputError(f"stage {first} comes after {until}; nothing would be done")
    busy = f"{folder} is being worked on by another `stopdown run`; wait, or give another run"
    with exclusive_lock(folder / ".lock", busy):
        for leftover in folder.rglob(".tmp-*"):  # of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        done = dict(read_state(folder).stages)
        records: dict[str, StageRecord] = {}
        for stage in stages:
            again = first is not None and names.index(stage.name) >= names.index(first)
            kept = first is not None and not again
            records[stage.name] = _one(stage, records, done, folder, tell, again=again, kept=kept)
            if stage.name == until:
                break
        return records


def _one(
    stage: RunStage,
    records: Mapping[str, StageRecord],
    done: dict[str, StageRecord],
    folder: Path,
    tell: Tell,
    *,
    again: bool,
    kept: bool,
) -> StageRecord:
    inputs, found = dict(stage.inputs(records)), done.get(stage.name)
    if found is not None and not again and found.inputs == inputs:
        try:
            if dict(stage.made()) == found.made:
                tell("skipped", stage.name, "nothing it depends on has changed")
                return found
            tell("damaged", stage.name, "what it made is not as it was left; it is done again")
        except DamagedError as error:
            tell("damaged", stage.name, f"{error}; it is done again")
    elif kept:
        why = "is not done" if found is None else f"depends on what has changed ({', '.join(_changed(found.inputs, inputs))})"
        raise InputError(f"stage {stage.name} {why}; run without --from, or from {stage.name}")
    reason = (
        "asked for" if again else "not done yet" if found is None else f"changed: {', '.join(_changed(found.inputs, inputs))}"
    )
    tell("started", stage.name, reason)
    begun = time.monotonic()
    with full_disk_in_words(folder, "free some and run the same command again: it goes on where it was"):
        summary = dict(stage.run())
    record = StageRecord(inputs=inputs, made=dict(stage.made()), summary=summary, wall_s=round(time.monotonic() - begun, 3))
    done[stage.name] = record
    write_atomic(folder / STATE, checked(RunState(stages=done)))
    tell("finished", stage.name, "")
    return record


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name)) or ["its result"]


def digest_of(value: Any) -> str:
    """Return a short digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digests(root: Path, files: Sequence[Path]) -> dict[str, str]:
    """Return sha256 of files by their path under `root`; raises DamagedError for one that is missing."""
    digests = {}
    for file in files:
        try:
            digests[file.relative_to(root).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise DamagedError(f"{file} is missing ({error.strerror})") from error
    return digests
