"""A control that changes over a video: knots in time, linear in the control between them.

Shapes: T frames, F latent frames.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scenes.arrays import Floats
from scenes.errors import InputError

KNOT = re.compile(r"\s*([^@]+?)\s*@\s*([^\s@]+)(?=\s|$)")
EXAMPLE = '"VALUE@0s VALUE@0.5s"'
MOST_KNOTS = 1000


@dataclass(frozen=True)
class ControlCurve:
    """Knots of (seconds, control): linear between two of them, constant before the first and after the last.

    Raises InputError for fewer than two knots, times that do not rise from 0, and numbers that are not finite.
    """

    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.knots) <= MOST_KNOTS:
            raise InputError(f"a curve of {len(self.knots)} knots cannot be; give 2 to {MOST_KNOTS}, written {EXAMPLE}")
        for time_s, control in self.knots:
            if not (math.isfinite(time_s) and time_s >= 0 and math.isfinite(control)):
                raise InputError(f"a curve has control {control} at {time_s} s; give finite controls at times of 0 s or later")
        for (before_s, _), (after_s, _) in zip(self.knots, self.knots[1:], strict=False):
            if after_s <= before_s:
                raise InputError(
                    f"a curve's knot at {after_s:g} s follows one at {before_s:g} s; write knots in the order of time"
                )

    @property
    def constant(self) -> float | None:
        """The control, where it is the same at every knot."""
        controls = {control for _, control in self.knots}
        return controls.pop() if len(controls) == 1 else None

    @property
    def furthest(self) -> float:
        """The control that is furthest from 0."""
        return max((control for _, control in self.knots), key=abs)

    def frame_controls(self, frames: int, fps: float) -> Floats:
        """Return the control at the time of every frame, [T]; raises InputError for knots after the end of the video."""
        last_s, end_s = self.knots[-1][0], frames / fps
        if last_s > end_s + 1e-9:
            raise InputError(
                f"a curve has a knot at {last_s:g} s and the video ends after {end_s:g} s ({frames} frames at {fps:g} fps); "
                "move the knot, or raise --frames"
            )
        times_s, controls = zip(*self.knots, strict=True)
        return np.interp(np.arange(frames) / fps, times_s, controls)

    def latent_controls(self, frames: int, fps: float, frames_per_latent: int) -> Floats:
        """Return the control of every latent frame, [F]: of frame 0, then the mean over each next `frames_per_latent` frames.

        Wan's causal autoencoder gives frame 0 a latent of its own. Raises InputError as `frame_controls` does.
        """
        controls_T = self.frame_controls(frames, fps)
        return np.concatenate([controls_T[:1], controls_T[1:].reshape(-1, frames_per_latent).mean(axis=1)])


Control = float | ControlCurve


def is_curve(written: str) -> bool:
    """Return whether a text means a curve: values at times."""
    return "@" in written


def parse_curve(written: str, control: Callable[[str], float], name: str) -> ControlCurve:
    """Return the curve of `VALUE@TIME VALUE@TIME` (`f/8@0s f/1.4@0.5s`); `control` reads a value of the axis `name`.

    Raises InputError for what is not written so, and as `ControlCurve` does.
    """
    found = KNOT.findall(written)
    if KNOT.sub("", written).strip() or not found:
        raise InputError(f"'{written}' is no curve of {name}; write {EXAMPLE}")
    return ControlCurve(tuple((_seconds(time, name), control(value)) for value, time in found))


def furthest(control: Control) -> float:
    """Return a control, or the one of a curve that is furthest from 0."""
    return control.furthest if isinstance(control, ControlCurve) else control


def latent_rows(
    points: list[list[Control]], *, frames: int, fps: float, frames_per_latent: int
) -> list[list[float]] | list[list[list[float]]]:
    """Return rows of plain controls [N, A] of rows of controls and curves, or [N, F, A] where one of them changes over time.

    Raises InputError as `ControlCurve.frame_controls` does.
    """
    curves = [control for row in points for control in row if isinstance(control, ControlCurve)]
    for curve in curves:
        curve.frame_controls(frames, fps)
    latent_frames = 1 + (frames - 1) // frames_per_latent
    if latent_frames == 1 or all(curve.constant is not None for curve in curves):
        return [[_first(control) for control in row] for row in points]

    def over_time(control: Control) -> Floats:
        if isinstance(control, ControlCurve):
            return control.latent_controls(frames, fps, frames_per_latent)
        return np.full(latent_frames, control)

    return [np.stack([over_time(control) for control in row], axis=1).tolist() for row in points]


def _first(control: Control) -> float:
    return float(control.frame_controls(1, 1e-6)[0]) if isinstance(control, ControlCurve) else control


def _seconds(text: str, name: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"'{text}' in a curve of {name} is no time; write seconds, such as 0.5s")
    return seconds
