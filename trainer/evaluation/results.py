"""`report.json`: every number of an evaluation, as plain frozen data. A number that could not be had is None, never guessed.

Distances are in the axis's error unit (stops or mired) from c = 0, positive towards the stronger effect. `EstimatedValue` holds
a number and its 95 % bootstrap interval over prompts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from generator.io.checked_model import verified
from generator.io.checksummed_json import canonical
from generator.recipe.section import Section
from scenes.control_axis import ErrorUnit
from scenes.errors import InputError
from trainer.probing.statistics import Interval

FILE = "report.json"
FORMER_KEYS = {"fast": "fep", "slow": "svp"}  # of that file
Direction = Literal["below", "above"]


class EstimatedValue(Section):
    """A number with its interval; all None where nothing could be measured, ends None for too few prompts."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Response(Section):
    """What one control gave over prompts and seeds: quantiles of the distance from c = 0, and how many videos were read."""

    control: float
    value: float | None  # in the axis's unit
    label: str
    expected: float | None
    median: float | None
    low: float | None  # 10th percentile
    high: float | None  # 90th percentile
    absolute: float | None  # median of the probe's own scale, in the axis's unit
    read: int
    of: int


class Extrapolation(Section):
    """One side beyond the trained range: whether readings go on as commanded from the trained end."""

    side: Direction
    to_control: float
    pairs: int  # sweeps read at both controls
    goes_on: float | None  # the share of them that moved as commanded
    slope: float | None  # median measured over commanded movement beyond the end


class Accuracy(Section):
    """Control accuracy of one axis in one arm, over the trained range -1 to 1.

    Readings are relative to the video at c = 0 of the same prompt and seed; `absolute` ones use the probe's own scale, where
    the pixels have one. `rho_sharp_as_ties` counts videos that are too sharp to read as tied below all others.
    """

    arm: str
    axis: str
    unit: ErrorUnit
    sweeps: int
    prompts: int
    rho: EstimatedValue
    slope: EstimatedValue
    median_error: EstimatedValue
    resolution: EstimatedValue  # in c
    share_read: float
    share_sharp: float
    rho_absolute: EstimatedValue
    slope_absolute: EstimatedValue
    median_error_absolute: EstimatedValue
    share_read_absolute: float
    rho_sharp_as_ties: EstimatedValue
    curve: tuple[Response, ...]
    extrapolation: tuple[Extrapolation, ...]
    seed_spread: float | None  # median standard deviation over seeds, same prompt and control
    note: str = ""


class Leakage(Section):
    """How much sweeping one axis moves another's probe: the trend over c, as a share of what the other's own control gives.

    `share` is the median over sweeps of the absolute trend, `worst` the 90th percentile; on the diagonal `share` is signed.
    """

    arm: str
    swept: str
    read: str
    share: float | None
    worst: float | None
    sweeps: int  # that could be read
    of: int


class Consistency(Section):
    """How alike the videos of a sweep are to the one at c = 0: cosine of features by extractor, and picture outside the effect.

    `outside_levels` is in 8-bit levels (`trainer.evaluation.similarity`); `other_seed_levels` is the same between two seeds.
    """

    arm: str
    axis: str
    cosine: dict[str, EstimatedValue]
    outside_levels: EstimatedValue
    other_seed_levels: float | None
    other_seed_cosine: dict[str, float | None]


class Fep(Section):
    """FEP of one arm against the clean backbone, by a named extractor; `noise floor` is the backbone from other noise."""

    arm: str
    extractor: str
    ssf: float
    ss_fd: float
    dvs: float
    videos: int


class DriftPoint(Section):
    """SSF and SS-FD of an adapter at a training step."""

    step: int
    ssf: float
    ss_fd: float


class Drift(Section):
    """How SS-FD grows with training; the rate is by least squares, per 1000 steps."""

    mode: str
    extractor: str
    points: tuple[DriftPoint, ...]
    per_1000_steps: float | None


class Svp(Section):
    """SVP of one arm by a named extractor; text-video scores are None for an extractor that knows no words."""

    arm: str
    extractor: str
    text_video: EstimatedValue
    subject_consistency: EstimatedValue
    videos: int


class Flicker(Section):
    """Temporal flicker of one arm: mean absolute second difference of the frames' mean luma, in 8-bit levels."""

    arm: str
    levels: EstimatedValue


class VideoReading(Section):
    """One video of a sweep: where it lies (relative to the evaluation's folder) and what the probe says."""

    control: float
    label: str
    video: str
    measured: float | None
    absolute: float | None  # in the axis's unit
    expected: float | None
    note: str


class SweepReading(Section):
    """The videos of one prompt and seed over an axis's controls, in one arm."""

    arm: str
    axis: str
    prompt: str
    seed: int
    videos: tuple[VideoReading, ...]
    rho: float | None
    slope: float | None


class PublishedNumber(Section):
    """A published number of another model, for context."""

    model: str
    source: str
    metric: str
    axis: str
    full_lora: float | None
    decoupled: float | None
    noise_floor: float | None


class Validated(Section):
    """What the training's last validation before the adapter was saved says of an axis, on held-out clips.

    `gap` is by how much the loss rises when the true control is replaced by the neutral one: 0 or less says that the control
    was not learnt.
    """

    step: int
    loss: float
    gap: float


class EvaluationReport(Section):
    """Everything that `stopdown evaluate` found."""

    format: Literal[1] = 1
    adapter: str
    adapter_step: int
    dataset_version: str | None
    backbone: str
    axes: tuple[str, ...]
    laws: dict[str, dict[str, Any]]
    arms: tuple[str, ...]
    main_arm: str
    settings: dict[str, Any]
    sampling: dict[str, Any]
    prompts: dict[str, tuple[str, ...]]
    prompts_from: str
    extractors: tuple[str, ...]
    probes_version: int
    accuracy: tuple[Accuracy, ...]
    leakage: tuple[Leakage, ...]
    consistency: tuple[Consistency, ...]
    fep: tuple[Fep, ...]
    drift: Drift | None
    svp: tuple[Svp, ...]
    flicker: tuple[Flicker, ...]
    sweeps: tuple[SweepReading, ...]
    published: tuple[PublishedNumber, ...]
    notes: tuple[str, ...]
    # by axis; nothing where the adapter does not lie in its training's folder
    validated: dict[str, Validated] = Field(default_factory=dict)
    verdict: tuple[str, ...]
    versions: dict[str, str]
    wall_s: float

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, tree: Any) -> Any:
        """Read the reports of earlier versions, which called FEP fast and SVP slow."""
        if not isinstance(tree, dict):
            return tree
        return {FORMER_KEYS.get(key, key): value for key, value in tree.items()}


def estimate(interval: Interval) -> EstimatedValue:
    """Return an interval as plain data."""
    return EstimatedValue(value=finite(interval.value), low=finite(interval.low), high=finite(interval.high))


def finite(value: float) -> float | None:
    """Return a number, None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def read_report(folder: Path) -> EvaluationReport:
    """Return the report of an evaluation's folder; raises InputError where there is none or it cannot be read."""
    path = folder / FILE
    try:
        return EvaluationReport.model_validate_json(canonical(verified(path.read_bytes())))
    except FileNotFoundError:
        raise InputError(f"{folder} has no {FILE}; give the folder that `stopdown evaluate` wrote") from None
    except (OSError, ValueError) as error:  # pydantic's errors are among them
        first = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read ({first}); run `stopdown evaluate` again") from None
