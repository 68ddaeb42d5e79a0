"""What watches a training run: the metric log with its trackers and progress, validation, previews.

Callbacks change no weight and no random state. Their order matters: the metric log first, because the others log through it.
Not here: putting them on a loop (`trainer/training/add_callbacks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from trainer.config.train import TrainSettings
from trainer.data.records import TrainingClip
from trainer.generation.make_videos import FPS
from trainer.methods import METHODS
from trainer.probing.sweep import SweepReport, ValueReading, read_sweep
from trainer.training.callbacks.curves import CurveDrawer
from trainer.training.callbacks.metrics import FILE, Event, MetricsFile, MetricsLog, read_events
from trainer.training.callbacks.preview import Preview, preview_prompts
from trainer.training.callbacks.preview_pipeline import PreviewPipeline
from trainer.training.callbacks.progress_bar import make_progress_sink
from trainer.training.callbacks.trackers import TRACKERS, check_trackers, make_trackers
from trainer.training.callbacks.validation import Averaged, Validation
from trainer.training.tasks.base import Callback


def make_metrics_log(
    folder: Path, settings: TrainSettings, stream: TextIO, recipe: Mapping[str, Any] | None = None
) -> MetricsLog:
    """Return a run's metrics log: metrics.jsonl, curves, the trackers that the settings name, and progress on a stream.

    Raises InputError for a tracker that is not installed.
    """
    log = MetricsFile(folder / FILE)
    told = recipe if recipe is not None else settings.model_dump(mode="json", by_alias=True)
    trackers = make_trackers(settings.trackers, folder, told)
    return MetricsLog((log, CurveDrawer(log.path, folder.name), *trackers, make_progress_sink(stream)))


def make_callbacks(
    metrics_log: MetricsLog,
    settings: TrainSettings,
    folder: Path,
    *,
    held_out: Sequence[TrainingClip],
    axes: Sequence[str],
    pipeline: PreviewPipeline | None = None,
    averaged: Averaged = lambda: None,
) -> tuple[Callback, ...]:
    """Return a run's callbacks: the metrics log, validation and previews where the settings ask for them.

    `held_out` are the clips of the validation split, `axes` the names of their controls, `averaged` gives the averaged weights
    at the time (`lambda: loop.average`). Validation is left out where nothing is held out, which `TrainingData.notes` says.
    Raises InputError for previews without a prompt.
    """
    callbacks: list[Callback] = [metrics_log]
    if settings.validation.every and held_out:
        own = settings.validation
        callbacks.append(
            METHODS[settings.method]
            .load("task")
            .validation(
                metrics_log,
                held_out,
                axes,
                every=own.every,
                times=own.times,
                clips=own.clips,
                batch_size=settings.batch_size,
                averaged=averaged,
            )
        )
    if settings.previews.every and pipeline is not None:
        prompts = preview_prompts(settings.previews, held_out, axes)
        fps = held_out[0].fps if held_out else FPS
        callbacks.append(Preview(metrics_log, folder, pipeline, prompts, settings.previews, fps=fps, averaged=averaged))
    return tuple(callbacks)


__all__ = [
    "TRACKERS",
    "Averaged",
    "Event",
    "MetricsFile",
    "MetricsLog",
    "Preview",
    "PreviewPipeline",
    "SweepReport",
    "Validation",
    "ValueReading",
    "check_trackers",
    "make_callbacks",
    "make_metrics_log",
    "preview_prompts",
    "read_events",
    "read_sweep",
]
