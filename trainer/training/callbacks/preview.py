"""Preview sweeps during training: videos from the same noise at several control values, read by the blind probes.

RUN/previews/step-000200/ holds the videos, a labelled grid per axis and readings.json; it appears whole or not at all.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from generator.io.atomic import write_atomic
from generator.io.scratch import scratch_folder
from generator.media.images import png_bytes
from generator.media.video import decode, encode
from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.config.train import PreviewSettings
from trainer.control import AxisControl, default_mode
from trainer.control.curve import Control
from trainer.data.records import TrainingClip
from trainer.generation.grid import lay_out, still_grid
from trainer.generation.make_videos import FPS
from trainer.generation.plan import Row, make_rows
from trainer.generation.prompts import Prompt
from trainer.generation.record import CRF, PRESET, write_json
from trainer.generation.sampler import Sampling, check_sampling
from trainer.probing.sweep import SweepReport, read_sweep
from trainer.training.callbacks.due import is_due, make_up
from trainer.training.callbacks.evaluation_mode import check_whole, evaluation_mode
from trainer.training.callbacks.metrics import MetricsLog
from trainer.training.callbacks.preview_pipeline import PreviewPipeline, PreviewWan
from trainer.training.callbacks.validation import Averaged
from trainer.training.tasks.base import Task, TrainingProgress

MOST_CAPTIONS = 2  # of held-out scenes, where a recipe names no prompts
NO_MODE = "backbone_only"
Frames = dict[str, Bytes]  # by video name


@dataclass(frozen=True, kw_only=True)
class PreviewReading:
    """The report of one prompt's sweep."""

    prompt: str
    report: SweepReport


class Preview:
    """The watcher that makes previews every `settings.every` steps and at the last one."""

    logs = False

    def __init__(
        self,
        metrics_log: MetricsLog,
        folder: Path,
        pipeline: PreviewPipeline,
        prompts: Sequence[str],
        settings: PreviewSettings,
        *,
        fps: int = FPS,
        averaged: Averaged = lambda: None,
    ) -> None:
        if not prompts:
            raise InputError("previews have no prompt and no clip is held out to take one from; set train.previews.prompts")
        self.metrics_log = metrics_log
        self.folder = folder / "previews"
        self.pipeline = pipeline
        self.prompts = tuple(Prompt(prompt=words) for words in dict.fromkeys(prompts))
        self.settings = settings
        self.fps = fps
        self.averaged = averaged

    @property
    def sampling(self) -> Sampling:
        """How the videos are sampled."""
        own = self.settings
        return Sampling(width=own.width, height=own.height, frames=own.frames, steps=own.sampling_steps, guidance=own.guidance)

    def started(self, task: Task, step: int, steps: int) -> None:
        """Refuse what cannot be made before any step is; raises InputError. What a killed preview left is removed."""
        check_whole(task.module)
        with evaluation_mode(task, None), self.pipeline.open() as pipe:
            check_sampling(pipe, self.sampling)
            for prompt in ("", *(prompt.prompt for prompt in self.prompts)):
                self.pipeline.embed(prompt)
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover)
        if is_due(step, steps, self.settings.every):
            make_up(self.metrics_log, "preview", step, lambda: summarise(self.make(task, step)))

    def stepped(self, task: Task, progress: TrainingProgress) -> dict[str, float | None] | None:
        """Make previews if they are due; logs and returns what was read."""
        if not is_due(progress.step, progress.steps, self.settings.every):
            return None
        values = summarise(self.make(task, progress.step))
        self.metrics_log.write(progress.step, "preview", values)
        return values

    def finished(self, task: Task, step: int) -> None:
        """Nothing is open."""

    def make(self, task: Task, step: int) -> tuple[PreviewReading, ...]:
        """Make, write and read the previews of a step; the task is left as it was."""
        with evaluation_mode(task, self.averaged()), self.pipeline.open() as pipe:
            for adapter in self.pipeline.adapters.values():
                adapter.set_ramp(1.0)
            axes = pipe.axes
            sweeps = {axis.name: self._rows(pipe, axis) for axis in axes} or {"": self._rows(pipe, None)}
            made = self._sample(pipe, [row for rows in sweeps.values() for row in rows])
        files = {name: encode(frames_THW3, self.fps, CRF, PRESET) for name, frames_THW3 in made.items()}
        frames = {name: decode(data) for name, data in files.items()}  # what anyone can read again
        readings = tuple(
            PreviewReading(prompt=row.prompt, report=self._read(axis, row, frames))
            for axis in axes
            for row in sweeps[axis.name]
        )
        self._write(step, sweeps, files, frames, readings)
        return readings

    def _rows(self, pipe: PreviewWan, axis: AxisControl | None) -> tuple[Row, ...]:
        """Return a row per prompt: the values of one axis, with c = 0 among them; or one video where nothing is controlled."""
        points: list[dict[str, float]] = [{}]
        if axis is not None:
            controls = {round(float(control), 9) for control in np.linspace(-1.0, 1.0, self.settings.values)} | {0.0}
            points = [{axis.name: control} for control in sorted(controls)]
        mode = str(_mode(self.pipeline))
        return make_rows(pipe.axes, self.prompts, points, (mode,), seed=self.settings.seed)

    def _sample(self, pipe: PreviewWan, rows: Sequence[Row]) -> Frames:
        """Return the frames of every video; what several axes share, their c = 0, is made once."""
        made: dict[tuple[str, tuple[tuple[str, Control], ...]], Bytes] = {}
        frames: Frames = {}
        for row in rows:
            wanted = [video for video in row.videos if (row.prompt, video.controls) not in made]
            mode = row.mode if self.pipeline.adapters else None
            videos = self.pipeline.sample(
                pipe, row.prompt, [video.point for video in wanted], sampling=self.sampling, seed=row.seed, mode=mode
            )
            for video, frames_THW3 in zip(wanted, videos, strict=True):
                made[row.prompt, video.controls] = frames_THW3
            frames |= {video.name: made[row.prompt, video.controls] for video in row.videos}
        return frames

    def _read(self, axis: AxisControl, row: Row, frames: Frames) -> SweepReport:
        controls = [video.scalars[axis.name] for video in row.videos]
        return read_sweep(axis, controls, [frames[video.name] for video in row.videos], self.fps)

    def _write(
        self,
        step: int,
        sweeps: Mapping[str, Sequence[Row]],
        files: Mapping[str, bytes],
        frames: Frames,
        readings: Sequence[PreviewReading],
    ) -> None:
        target = self.folder / f"step-{step:06d}"
        with scratch_folder(target) as scratch:
            for name, data in files.items():
                write_atomic(scratch / f"{name}.mp4", data)
            self._write_grids(scratch, step, sweeps, frames, readings)
            write_json(scratch / "readings.json", {"step": step, "sweeps": [_tree(reading) for reading in readings]})
            if target.exists():  # of the same step, before a kill
                shutil.rmtree(target)
            scratch.rename(target)

    def _write_grids(
        self, folder: Path, step: int, sweeps: Mapping[str, Sequence[Row]], frames: Frames, readings: Sequence[PreviewReading]
    ) -> None:
        size = (self.settings.width, self.settings.height)
        for axis, rows in sweeps.items():
            lines = [reading.report.line() for reading in readings if reading.report.axis == axis]
            layout = lay_out(rows, f"{axis or 'preview'} · step {step}", "  ·  ".join(lines), size)
            picture_HW3 = still_grid(layout, rows, lambda video: frames[video.name])
            write_atomic(folder / f"grid{'-' if axis else ''}{axis}.png", png_bytes(picture_HW3))


def preview_prompts(settings: PreviewSettings, held_out: Sequence[TrainingClip], axes: Sequence[str]) -> tuple[str, ...]:
    """Return the recipe's prompts, or captions of held-out clips: for each axis the first that varies it, at least two."""
    if settings.prompts:
        return settings.prompts
    varying = [next((r.caption for r in held_out if r.controls[place]), None) for place in range(len(axes))]
    captions = list(dict.fromkeys(caption for caption in varying if caption is not None))
    others = [record.caption for record in held_out if record.caption not in captions]
    return (*captions, *list(dict.fromkeys(others))[: max(0, MOST_CAPTIONS - len(captions))])


def summarise(readings: Sequence[PreviewReading]) -> dict[str, float | None]:
    """Return the numbers of all sweeps by name: per axis over its prompts, then per video (`shutter/0/c-0.50`).

    `rho` and `slope` are means over the prompts that have them, `median_error` is the median over all videos; a video that the
    probe refused is None.
    """
    values: dict[str, float | None] = {}
    for axis in dict.fromkeys(reading.report.axis for reading in readings):
        reports = [reading.report for reading in readings if reading.report.axis == axis]
        errors = [abs(one.error) for report in reports for one in report.readings if one.error is not None]
        values[f"{axis}/rho"] = _mean([report.rho for report in reports])
        values[f"{axis}/slope"] = _mean([report.slope for report in reports])
        values[f"{axis}/median_error"] = statistics.median(errors) if errors else None
        values[f"{axis}/readable"] = float(sum(report.readable for report in reports))
        values[f"{axis}/videos"] = float(sum(len(report.readings) for report in reports))
        for number, report in enumerate(reports):
            values |= {f"{axis}/{number}/c{one.control:.2f}": one.measured for one in report.readings}
    return values


def _mean(numbers: Sequence[float | None]) -> float | None:
    present = [number for number in numbers if number is not None]
    return statistics.fmean(present) if present else None


def _mode(pipeline: PreviewPipeline) -> str:
    """Return the mode in which the adapter will be used."""
    return default_mode(next(iter(pipeline.adapters.values())).config) if pipeline.adapters else NO_MODE


def _tree(reading: PreviewReading) -> dict[str, object]:
    return {"prompt": reading.prompt, "readable": reading.report.readable, **asdict(reading.report)}
