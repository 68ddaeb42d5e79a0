"""Looking at a run, or at a training, from its files: which stage is at work, how far it is, and when it last wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from generator.io.checksummed_json import parse_checksummed_line
from generator.monitor.board import Board, BoardGrid, BoardRow, Meter, Tone, in_words
from generator.monitor.build_board import build_board
from generator.monitor.watch_build import BuildWatch, watch_build
from scenes.errors import InputError, StopdownError
from trainer.runs.run_folder import FACTS, read_facts
from trainer.runs.run_recipe import load_run_recipe
from trainer.runs.run_stages import ADAPTER, STAGES
from trainer.runs.stage_runner import STATE, StageRecord, read_state

METRICS = "metrics.jsonl"
CARD, WHOLE = "control.json", "model"  # as `trainer.adapters.card` and `trainer.training.setup`, which need torch
TAIL_BYTES = 2**16
LAST_STEPS = 20
SILENT_S = 600.0  # validation and previews write nothing for minutes
NAMES = tuple(stage.name for stage in STAGES)
GRID_COLUMNS = ("stage", "state", "took", "what came of it")


@dataclass(frozen=True, kw_only=True)
class WatchedTraining:
    """Where a training is, by its metric log: the mean loss of the last steps, its speed, and its last validation loss."""

    step: int
    steps: int | None
    loss: float | None
    validation_loss: float | None
    steps_per_s: float | None

    @property
    def eta_s(self) -> float | None:
        """Seconds left, or None where that cannot be told."""
        return (self.steps - self.step) / self.steps_per_s if self.steps is not None and self.steps_per_s else None

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The numbers, in words."""
        words = {
            "step": f"{self.step:,}",
            "loss": None if self.loss is None else f"{self.loss:.4g}",
            "validation": None if self.validation_loss is None else f"{self.validation_loss:.4g}",
            "speed": None if self.steps_per_s is None else f"{self.steps_per_s:.2f} steps/s",
            "left": None if self.eta_s is None else in_words(self.eta_s),
        }
        return tuple((name, value) for name, value in words.items() if value is not None)

    @property
    def meter(self) -> tuple[Meter, ...]:
        """Steps done, where it is known of how many."""
        return () if self.steps is None else (Meter(name="steps", done=self.step, total=self.steps),)

    @property
    def numbers(self) -> dict[str, Any]:
        """What there is to tell, as plain values for JSON."""
        return {
            "step": self.step,
            "steps": self.steps,
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "steps_per_s": self.steps_per_s,
            "eta_s": self.eta_s,
        }


def read_training(log: Path, steps: int | None = None) -> WatchedTraining | None:
    """Return where a training is, or None where it has logged no step; a line that is being written is left out."""
    events = list(_last_events(log))
    trained = [event for event in events if event.get("kind") == "train"]
    if not trained:
        return None
    losses = [event["values"].get("loss") for event in trained[-LAST_STEPS:]]
    known = [loss for loss in losses if loss is not None]
    checks = [event["values"].get("loss") for event in events if event.get("kind") == "validation"]
    return WatchedTraining(
        step=int(trained[-1]["step"]),
        steps=steps,
        loss=sum(known) / len(known) if known else None,
        validation_loss=checks[-1] if checks else None,
        steps_per_s=trained[-1]["machine"].get("steps_per_s"),
    )


def _last_events(log: Path) -> Iterator[dict[str, Any]]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")[1 if size > TAIL_BYTES else 0 : -1]
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{log} cannot be read ({error.strerror}); check it and its permissions") from error
    for number, line in enumerate(lines, start=1):
        try:
            event = parse_checksummed_line(line, optional=True)
            yield {"kind": event["kind"], "step": event["step"], "values": event["values"], "machine": event["machine"]}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{log} is no metric log (line {number} of its end); give the folder of a run") from None


@dataclass
class TrainingWatch:
    """Looks at the folder of `stopdown train`."""

    folder: Path

    def look(self) -> Board:
        """Return what is shown of it; raises InputError for a log that cannot be read."""
        now = datetime.now(UTC)
        training = read_training(self.folder / METRICS)
        result = None if training is None else finished_result(self.folder, training.step)
        if training is not None and result is not None:
            training = replace(training, steps=training.step)
        silent_s = (now - _written_at(self.folder)).total_seconds()
        state, tone = _state(silent_s, over=result is not None)
        return Board(
            title=f"training at {self.folder}",
            state=state,
            tone=tone,
            at=now,
            over=result is not None,
            facts=(training.facts if training is not None else ())
            + (("last written", f"{in_words(silent_s)} ago"),)
            + ((("result", str(result)),) if result is not None else ()),
            meters=training.meter if training is not None else (),
            notes=() if result is not None else _silence(silent_s),
            numbers={
                "kind": "training",
                "folder": str(self.folder),
                "at": now.isoformat(),
                "state": state,
                "silent_s": round(silent_s, 1),
                "result": None if result is None else str(result),
                "training": None if training is None else training.numbers,
            },
        )


def finished_result(folder: Path, step: int) -> Path | None:
    """Return what a training left that ended after `step`, its last logged one; None while it may go on.

    An adapter says in its card after which step it was saved, so that one of an earlier end does not count while a longer
    training goes on. A model that was trained whole says nothing: it counts when it was saved after the last line of the log.
    """
    try:
        if json.loads((folder / ADAPTER.name / CARD).read_bytes())["step"] == step:
            return folder / ADAPTER.name
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or one that its own commands complain about
        pass
    saved = [path.stat().st_mtime for path in (folder / WHOLE).glob("*/config.json")]
    return folder / WHOLE if saved and min(saved) >= (folder / METRICS).stat().st_mtime else None


@dataclass
class RunWatch:
    """Looks at the folder of `stopdown run`."""

    folder: Path
    _build: BuildWatch | None = None

    @cached_property
    def steps(self) -> int | None:
        """The steps of the recipe, or None for a recipe that this Stopdown does not read."""
        facts = read_facts(self.folder)
        try:
            recipe = load_run_recipe(self.folder / "recipe.toml", facts.overrides)
            return recipe.train(Path(), "latest", Path()).steps
        except StopdownError:
            return None

    def look(self) -> Board:
        """Return what is shown of it; raises InputError for a run whose files cannot be read."""
        now, facts, done = datetime.now(UTC), read_facts(self.folder), read_state(self.folder).stages
        at_hand = self._at_hand(done)
        silent_s = (now - _written_at(self.folder)).total_seconds()
        build = self._build_board(facts.dataset) if at_hand == "build" else None
        if build is not None and build.state == "building":
            silent_s = 0.0
        training = read_training(self.folder / "train" / METRICS, self.steps)
        state, tone = _state(silent_s, over=at_hand is None)
        finished = sum(name in done and name != at_hand for name in NAMES)
        shown = training if training is not None and at_hand == "train" else None
        return Board(
            title=f"run {facts.name}/{facts.run} at {self.folder}",
            state=state,
            tone=tone,
            at=now,
            over=at_hand is None,
            facts=(
                ("dataset", facts.dataset),
                ("stage", at_hand or "all done"),
                ("last written", f"{in_words(silent_s)} ago"),
                *(shown.facts if shown is not None else ()),
                *(build.facts if build is not None else ()),
            ),
            meters=(
                Meter(name="stages", done=finished, total=len(NAMES)),
                *(shown.meter if shown is not None else ()),
                *(build.meters if build is not None else ()),
            ),
            grids=(_stages(done, at_hand), *(build.grids if build is not None else ())),
            notes=(() if at_hand is None else _silence(silent_s)) + (build.notes if build is not None else ()),
            numbers={
                "kind": "run",
                "folder": str(self.folder),
                "name": facts.name,
                "run": facts.run,
                "at": now.isoformat(),
                "state": state,
                "stage": at_hand,
                "silent_s": round(silent_s, 1),
                "stages": {name: done[name].wall_s for name in NAMES if name in done},
                "training": None if training is None else training.numbers,
                "build": None if build is None else build.numbers,
            },
        )

    def _at_hand(self, done: dict[str, StageRecord]) -> str | None:
        """Return the stage that is at work or comes next; a training that is done again keeps its record until it ends."""
        log, state = self.folder / "train" / METRICS, self.folder / STATE
        if "train" in done and log.exists() and log.stat().st_mtime > state.stat().st_mtime:
            return "train"
        return next((name for name in NAMES if name not in done), None)

    def _build_board(self, dataset: str) -> Board | None:
        """Return the board of the run's dataset while it is built; None where the build has not begun."""
        try:
            self._build = self._build or watch_build(dataset)
        except StopdownError:
            return None
        return build_board(self._build.look())


def watch_run(folder: Path) -> RunWatch | TrainingWatch | None:
    """Return what looks at the folder of a run or of a training, or None where it is neither.

    Raises InputError for a folder that cannot be read.
    """
    try:
        if (folder / FACTS).is_file():
            return RunWatch(folder)
        return TrainingWatch(folder) if (folder / METRICS).is_file() else None
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); check it and its permissions") from error


def _stages(done: dict[str, StageRecord], at_hand: str | None) -> BoardGrid:
    rows = []
    for name in NAMES:
        record = done.get(name)
        if name == at_hand:
            rows.append(BoardRow(cells=(name, "at hand", "", ""), tone="busy"))
        elif record is None:
            rows.append(BoardRow(cells=(name, "waits", "", "")))
        else:
            words = ", ".join(f"{key} {_short(value)}" for key, value in record.summary.items())
            rows.append(BoardRow(cells=(name, "done", in_words(record.wall_s), words), tone="good"))
    return BoardGrid(name="stages", columns=GRID_COLUMNS, rows=tuple(rows), numeric=frozenset({2}))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _state(silent_s: float, *, over: bool = False) -> tuple[str, Tone]:
    if over:
        return "complete", "good"
    return ("silent", "warn") if silent_s > SILENT_S else ("working", "busy")


def _silence(silent_s: float) -> tuple[tuple[Tone, str], ...]:
    words = f"nothing was written for {in_words(silent_s)}: ended, stuck, or in a long step; the same command goes on with it"
    return (("warn", words),) if silent_s > SILENT_S else ()


def _written_at(folder: Path) -> datetime:
    """Return when a folder was last written to: its files, and the folders below it, whose time is that of their last file."""
    places = [entry for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []
    places += [Path(root) for root, _, _ in os.walk(folder)] + [folder / "train" / METRICS]
    times_s = [place.stat().st_mtime for place in places if place.exists()]
    return datetime.fromtimestamp(max(times_s, default=0.0), UTC)
