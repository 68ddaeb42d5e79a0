"""What a report is made of: folders that may be absent, and what is known of the run that left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError
from trainer.evaluation.results import EvaluationReport, read_report
from trainer.training.callbacks.metrics import FILE as METRICS
from trainer.training.callbacks.metrics import Event, read_events


@dataclass(frozen=True, kw_only=True)
class ReportParts:
    """The parts of a report; what is None is left out, and the report says so.

    `facts` are shown as they are, `stages` are names and seconds, `recipe` is its text, `command` repeats the run.
    """

    title: str
    evaluation: Path | None = None
    training: Path | None = None
    dataset: Path | None = None
    recipe: str | None = None
    command: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The parts, read; `absent` says in words what is missing and why."""

    parts: ReportParts
    evaluation: EvaluationReport | None
    events: tuple[Event, ...]
    dataset: WorkingFolder | None
    absent: tuple[str, ...]


def load_parts(parts: ReportParts) -> Loaded:
    """Read what a report is made of.

    A folder that was given and cannot be read is an error; one that was not given is left out. Raises InputError where nothing
    at all was given.
    """
    if parts.evaluation is None and parts.training is None and parts.dataset is None:
        raise InputError("a report needs something to tell of; give an evaluation, a training run or a dataset")
    absent = []
    if parts.evaluation is None:
        absent.append("the evaluation: nothing was generated and measured")
    if parts.training is None:
        absent.append("training curves: no training run was given")
    if parts.dataset is None:
        absent.append("the dataset: no folder was given")
    events: tuple[Event, ...] = ()
    if parts.training is not None:
        try:
            events = tuple(read_events(parts.training / METRICS))
        except FileNotFoundError:
            raise InputError(f"{parts.training} has no {METRICS}; give a training run's folder") from None
    return Loaded(
        parts=parts,
        evaluation=None if parts.evaluation is None else read_report(parts.evaluation),
        events=events,
        dataset=None if parts.dataset is None else WorkingFolder.open(parts.dataset),
        absent=tuple(absent),
    )
