"""The videos of one run of the app: generated, read by the probes, and kept until it ends.

Every request becomes rows of `trainer.generation`, so that a value asked for again is shown again and not made again, and each
video has the record that `stopdown generate` would have written.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from generator.io.atomic import write_atomic
from generator.io.checksummed_json import canonical, sha256
from generator.media.video import decode, encode
from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.control.laws import AxisControl
from trainer.control.modes import PARTS, Mode, check_mode
from trainer.generation.grid import lay_out, moving_grid, still_grid
from trainer.generation.load_pipeline import Loading
from trainer.generation.make_videos import Request, make_videos
from trainer.generation.plan import PlannedVideo, Row, make_rows
from trainer.generation.prompts import gather_prompts
from trainer.generation.record import CRF, PRESET, read_record
from trainer.generation.sampler import Sampling
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.play.form import NEUTRAL, Form, Point, beyond_trained, single_points, sweep_points
from trainer.probing.single import AxisReading, read_axis

Heard = Callable[[int, int], None]  # denoising steps made and in all


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a request shows: a playing file, readings, one line about it, and the records of its videos."""

    video: Path
    readings: tuple[AxisReading, ...]
    words: str
    record: dict[str, Any]
    beside: tuple[tuple[str, Path], ...] = ()  # to compare with: what was asked for, and the same at c = 0, by label


@dataclass(frozen=True, kw_only=True)
class Session:
    """A loaded pipeline and a folder to make videos in; `sampling` is what the page starts from."""

    pipe: ControlledWan
    adapter: SavedAdapter
    loading: Loading
    sampling: Sampling
    folder: Path
    fps: int = 16

    @property
    def axes(self) -> tuple[AxisControl, ...]:
        """The axes that the adapter controls."""
        return self.pipe.axes

    def axis(self, name: str) -> AxisControl:
        """Return one of them; raises InputError for another name."""
        for axis in self.axes:
            if axis.name == name:
                return axis
        raise InputError(f"axis '{name}' is not one of this adapter; it controls {', '.join(a.name for a in self.axes)}")

    def single(self, form: Form, *, compare: bool = False, heard: Heard | None = None) -> Shown:
        """Make the video of a form and read it; to compare, also the ones with each axis at c = 0, from the same noise.

        Raises InputError for what cannot be made.
        """
        points = single_points(self.axes, form.controls, compare=compare)
        made = self._make(form, points, heard)
        video = made.videos[0]
        neutrals: dict[str, Bytes | None] = dict.fromkeys(form.controls)
        if compare:
            for axis in self.axes:
                neutrals[axis.name] = made.frames[points.index({**points[0], axis.name: 0.0})]
        readings = tuple(
            read_axis(axis, form.controls[axis.name], made.frames[0], neutrals[axis.name], self.fps) for axis in self.axes
        )
        what = ", ".join(f"{axis.name} {label}" for axis, label in zip(self.axes, video.labels, strict=True))
        return Shown(
            video=made.folder / f"{video.name}.mp4",
            readings=readings,
            words=self._words(form, what or "no control", made, self.axes),
            record=_record(made.folder, video) | {"readings": [asdict(reading) for reading in readings]},
            beside=self._beside(made, points) if compare else (),
        )

    def _beside(self, made: _Made, points: Sequence[Point]) -> tuple[tuple[str, Path], ...]:
        """Return the videos of a comparison with what each shows; the one asked for alone where it is neutral itself."""
        found = []
        for video, point in zip(made.videos, points, strict=True):
            changed = [axis for axis in self.axes if point[axis.name] != points[0][axis.name]]
            label = ", ".join(f"{axis.name} {axis.format(point[axis.name])}" for axis in (changed or self.axes))
            found.append((f"{label} (c = 0)" if changed else f"asked: {label}", made.folder / f"{video.name}.mp4"))
        return tuple(found)

    def sweep(self, form: Form, axis_name: str, count: int, *, heard: Heard | None = None) -> Shown:
        """Make `count` videos over the trained range of an axis from the same noise, as one strip, and read that axis.

        Raises InputError for what cannot be made.
        """
        axis = self.axis(axis_name)
        if not PARTS[Mode(form.mode)].control:
            raise InputError(f"mode '{form.mode}' knows no control, its videos are all the same; choose one that does")
        points = sweep_points(self.axes, form.controls, axis, count)
        made = self._make(form, points, heard)
        controls = [point[axis.name] for point in points]
        others = [one for one in self.axes if one != axis]
        neutral_THW3 = next(frames for frames, c in zip(made.frames, controls, strict=True) if abs(c) <= NEUTRAL)
        readings = tuple(
            read_axis(axis, control, frames_THW3, neutral_THW3, self.fps)
            for control, frames_THW3 in zip(controls, made.frames, strict=True)
        )
        records = [
            _record(made.folder, video) | {"readings": [asdict(reading)]}
            for video, reading in zip(made.videos, readings, strict=True)
        ]
        return Shown(
            video=self._strip(made, axis),
            readings=readings,
            words=self._words(form, f"{count} values of {axis.name} from the same noise", made, others),
            record={"sweep": axis.name, "videos": records},
        )

    def _make(self, form: Form, points: Sequence[Point], heard: Heard | None) -> _Made:
        """Make what is missing of the videos of points; returns all of them, decoded."""
        check_mode(form.mode, self.adapter.card.config)
        sampling = replace(self.sampling, steps=form.steps, guidance=form.guidance)
        drawn: dict[str, Any] = {"seed": form.seed, "negative": form.negative, "strength": form.strength}
        rows = make_rows(self.axes, gather_prompts([form.prompt], None), points, [form.mode], **drawn)
        # a video's name does not say these, and one name is one video of a folder
        folder = self.folder / sha256(canonical({"sampling": asdict(sampling), "negative": form.negative}))[:12]
        request = Request(out=folder, adapter=self.adapter, rows=rows, sampling=sampling, fps=self.fps)
        made, _ = make_videos(self.pipe, request, self.loading, _Counter(heard))
        frames = tuple(decode(folder / f"{video.name}.mp4") for video in rows[0].videos)
        return _Made(folder=folder, row=rows[0], frames=frames, made=made, sampling=sampling)

    def _strip(self, made: _Made, axis: AxisControl) -> Path:
        """Write the videos of a sweep side by side, playing in step, with their values; returns the file."""
        frames_of = {video.name: frames for video, frames in zip(made.videos, made.frames, strict=True)}
        row, sampling = replace(made.row, videos=tuple(_named(video, axis) for video in made.videos)), made.sampling
        facts = f"{sampling.width} × {sampling.height}  ·  {sampling.frames} frames  ·  {sampling.steps} steps"
        layout = lay_out([row], f"{axis.name} · {self.adapter.name}", facts, (sampling.width, sampling.height))
        playing_THW3 = moving_grid(layout, [row], lambda video: frames_of[video.name])
        if playing_THW3 is None:
            playing_THW3 = still_grid(layout, [row], lambda video: frames_of[video.name])[None]
        name = sha256(canonical([video.name for video in made.videos]))[:12]
        path = made.folder / f"sweep-{axis.name}-{name}.mp4"
        write_atomic(path, encode(playing_THW3, self.fps, CRF, PRESET))
        return path

    def _words(self, form: Form, what: str, made: _Made, axes: Sequence[AxisControl]) -> str:
        """Return a request as one line; `axes` are those whose values the form decided."""
        again = "made before, shown again" if made.made == 0 else ""
        far = beyond_trained(axes, form.controls)
        return " · ".join(filter(None, (what, f"seed {form.seed}", form.mode, f"{made.sampling.steps} steps", again, far)))


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Videos of one row, with their frames; `made` says how many were not there before."""

    folder: Path
    row: Row
    frames: tuple[Bytes, ...]
    made: int
    sampling: Sampling

    @property
    def videos(self) -> tuple[PlannedVideo, ...]:
        return self.row.videos


class _Counter:
    """Passes steps on to the page."""

    def __init__(self, heard: Heard | None) -> None:
        self.heard = heard
        self.steps = 0
        self.every = 0

    def started(self, videos: int, finished: int, steps: int) -> None:
        """Count what is to do."""
        self.every = (videos - finished) * steps

    def stepped(self, steps: int) -> None:
        """Count what is done."""
        self.steps += steps
        if self.heard is not None:
            self.heard(self.steps, self.every)

    def done(self, video: PlannedVideo) -> None:
        """Say nothing: the page shows videos when all are there."""


def _named(video: PlannedVideo, axis: AxisControl) -> PlannedVideo:
    """Return a video that is labelled with its value of one axis alone."""
    return replace(video, given=(axis.name,), labels=(axis.format(video.scalars[axis.name]),))


def _record(folder: Path, video: PlannedVideo) -> dict[str, Any]:
    record = read_record(folder, video.name)
    if record is None:
        raise InputError(f"the record of {video.name} cannot be read; generate it again with another seed, or restart the app")
    return record
