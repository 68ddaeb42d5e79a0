"""What to generate: rows of (prompt, seed, mode) against columns of control values; a name for every video."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scenes.errors import InputError
from trainer.control.curve import Control, ControlCurve
from trainer.control.laws import AxisControl
from trainer.generation.prompts import Prompt

SLUG_LENGTH, CURVE_LENGTH = 40, 60  # letters of a prompt and of a curve in a file's name
MOST_SEED = 2**63 - 1

Point = Mapping[str, Control]  # axis -> control or curve; one column of a grid


@dataclass(frozen=True, kw_only=True)
class PlannedVideo:
    """One video to make; its name is a function of what it shows, never of the order or the number of videos."""

    name: str
    prompt: str
    negative: str
    seed: int
    mode: str
    strength: float
    controls: tuple[tuple[str, Control], ...]  # of every axis of the adapter
    given: tuple[str, ...]  # the axes that were given a value; the others are neutral
    labels: tuple[str, ...]  # the given values in units

    @property
    def point(self) -> dict[str, Control]:
        """The controls and curves by axis."""
        return dict(self.controls)

    @property
    def scalars(self) -> dict[str, float]:
        """The controls by axis of a video without curves; raises ValueError for one with a curve."""
        plain = {name: control for name, control in self.controls if not isinstance(control, ControlCurve)}
        if len(plain) < len(self.controls):
            raise ValueError(f"{self.name} has a curve where one control is needed")
        return plain


@dataclass(frozen=True, kw_only=True)
class Row:
    """The videos of one prompt, seed and mode, in the order of the columns: they differ in their controls only."""

    prompt: str
    negative: str
    seed: int
    mode: str
    videos: tuple[PlannedVideo, ...]


def make_points(controls: Mapping[str, Sequence[Control]], *, zipped: bool = False) -> tuple[Point, ...]:
    """Return the columns: the product of the axes' controls, the last axis fastest; or pairs of them if `zipped`.

    When zipped, an axis with one value keeps it throughout. Raises InputError for lists of different lengths.
    """
    names = list(controls)
    if not zipped:
        return tuple(dict(zip(names, values, strict=True)) for values in itertools.product(*controls.values()))
    lengths = {name: len(values) for name, values in controls.items() if len(values) != 1}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise InputError(f"--zip pairs values and received {counts}; give each axis as many, or one")
    longest = max(lengths.values(), default=1)
    return tuple({name: values[at if len(values) > 1 else 0] for name, values in controls.items()} for at in range(longest))


def make_rows(
    axes: Sequence[AxisControl],
    prompts: Sequence[Prompt],
    points: Sequence[Point],
    modes: Sequence[str],
    *,
    seed: int = 0,
    seeds: int = 1,
    negative: str = "",
    strength: float = 1.0,
) -> tuple[Row, ...]:
    """Return a row per prompt, seed (`seeds` from `seed`, or from the prompt's own) and mode, in that order.

    Raises InputError for no prompt, the same video twice, fewer than one seed, a seed out of range and a strength that is no
    number.
    """
    if not prompts:
        raise InputError('there is no prompt; give --prompt "a car passes", or --prompts FILE')
    if seeds < 1 or not 0 <= seed <= MOST_SEED - seeds:
        raise InputError(f"{seeds} seeds from {seed} cannot be; give 1 seed or more, from 0 to 2^63 - 1")
    if not math.isfinite(strength):
        raise InputError(f"strength {strength} is not a number; give a finite one, 0 for the bare backbone, 1 as trained")
    negative.encode()  # raises UnicodeError for half a character, as tokenizers would later
    rows = []
    for prompt in prompts:
        first = prompt.seed if prompt.seed is not None else seed
        without = prompt.negative if prompt.negative is not None else negative
        for drawn, mode in itertools.product(range(first, first + seeds), dict.fromkeys(modes)):
            names = _names(axes, prompt.prompt, drawn, mode, strength, points)
            videos = tuple(
                PlannedVideo(
                    name=name,
                    prompt=prompt.prompt,
                    negative=without,
                    seed=drawn,
                    mode=mode,
                    strength=strength,
                    controls=tuple((axis.name, point.get(axis.name, 0.0)) for axis in axes),
                    given=tuple(axis.name for axis in axes if axis.name in point),
                    labels=labels_of(axes, point),
                )
                for name, point in zip(names, points, strict=True)
            )
            rows.append(Row(prompt=prompt.prompt, negative=without, seed=drawn, mode=mode, videos=videos))
    _check_names(rows)
    return tuple(rows)


def labels_of(axes: Sequence[AxisControl], point: Point) -> tuple[str, ...]:
    """Return the values of a column in units, in the order of the axes; an axis without a value is neutral and unnamed."""
    return tuple(_label(axis, point[axis.name]) for axis in axes if axis.name in point)


def _label(axis: AxisControl, control: Control) -> str:
    """Return a value in units, a curve as its values with an arrow between them; where its knots are is in the record."""
    if isinstance(control, ControlCurve):
        return " → ".join(axis.format(at) for _, at in control.knots)
    return axis.format(control)


def slug(text: str, length: int = SLUG_LENGTH) -> str:
    """Return a text as part of a file name; where that loses letters, six digits of its hash keep different texts apart."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain.replace("-", " ") == text and len(plain) <= length:
        return plain
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{plain[: length - 7].strip('-')}-{digest}".strip("-")


def _names(
    axes: Sequence[AxisControl], prompt: str, seed: int, mode: str, strength: float, points: Sequence[Point]
) -> list[str]:
    head = f"{slug(prompt)}_seed-{seed}_{mode.replace('_', '-')}" + ("" if strength == 1.0 else f"_strength-{strength:g}")
    return ["_".join([head, *(_value_name(axis, point[axis.name]) for axis in axes if axis.name in point)]) for point in points]


def _value_name(axis: AxisControl, control: Control) -> str:
    """Return an axis and a value in units; the control follows where the value as written is a rounded one."""
    if isinstance(control, ControlCurve):
        knots = "_".join(f"{time_s:g}s-{_value_name(axis, at).removeprefix(f'{axis.name}-')}" for time_s, at in control.knots)
        return f"{axis.name}-{slug(knots, CURVE_LENGTH)}"
    written = axis.format(control)
    value = re.sub(r"[^a-z0-9.]+", "-", re.sub(r"^-", "minus ", written.lower())).strip("-")
    exact = written.startswith("c = ") or abs(axis.control(written.replace(" ", "")) - control) < 1e-9
    return f"{axis.name}-{value}" if exact else f"{axis.name}-{value}-c{control:+.4f}"


def _check_names(rows: Sequence[Row]) -> None:
    seen: set[str] = set()
    for video in (video for row in rows for video in row.videos):
        if video.name in seen:
            raise InputError(f"the same video is asked for twice ({video.name}); give every prompt, seed and value once")
        seen.add(video.name)
