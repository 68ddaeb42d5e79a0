"""Runs put together: every number of an arm at a fidelity as a mean over seeds with its interval, and what claims it bears.

A number's interval is Student's, 95 %, over seeds: with three seeds it is wide, and says so. `comparison.json` holds it all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError
from scipy.stats import t as student

from generator.recipe.section import Section
from scenes.errors import InputError
from trainer.control.modes import Mode
from trainer.evaluation.arms import ADAPTER_ONLY
from trainer.evaluation.results import Accuracy, EvaluationReport, PublishedNumber
from trainer.evaluation.verdict import own_scale

FILE = "comparison.json"
NOISE_FLOOR = "noise floor"  # as `trainer.evaluation.drift`, which needs torch
Outcome = Literal["reproduced", "not reproduced", "undecided", "not measured"]


class SeedMean(Section):
    """A mean over seeds and its 95 % interval; ends None for fewer than two seeds, all None where nothing was measured."""

    value: float | None
    low: float | None = None
    high: float | None = None
    by_seed: dict[int, float] = Field(default_factory=dict)


class ArmNumbers(Section):
    """What one arm gave on one axis at one fidelity."""

    fidelity: str
    arm: str
    axis: str
    numbers: dict[str, SeedMean]  # by metric


class GridRunFacts(Section):
    """One run of the comparison."""

    name: str
    fidelity: str
    seed: int
    trained: str
    dataset_version: str | None
    steps: int
    wall_s: float


class Judgement(Section):
    """A claim held against the numbers: `difference` is above 0 where it is borne out."""

    name: str
    claim: str
    metric: str
    axis: str
    fidelity: str
    outcome: Outcome
    difference: SeedMean
    words: str


class ComparisonReport(Section):
    """Everything that a comparison found."""

    format: Literal[1] = 1
    name: str
    fidelities: tuple[str, ...]
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    axes: tuple[str, ...]
    units: dict[str, str]
    backbone: str
    extractor: str | None
    prompts: int
    settings: dict[str, Any]
    cells: tuple[GridRunFacts, ...]
    rows: tuple[ArmNumbers, ...]
    judgements: tuple[Judgement, ...]
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    published: tuple[PublishedNumber, ...]
    versions: dict[str, str]

    def number(self, fidelity: str, arm: str, axis: str, metric: str) -> SeedMean:
        """Return a number of an arm; one without a value where it was not measured."""
        for row in self.rows:
            if (row.fidelity, row.arm, row.axis) == (fidelity, arm, axis):
                return row.numbers.get(metric, SeedMean(value=None))
        return SeedMean(value=None)


@dataclass(frozen=True, kw_only=True)
class GridRunReport:
    """The evaluation of one run, and what sets it apart."""

    name: str
    fidelity: str
    seed: int
    trained: str
    report: EvaluationReport
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of an arm on an axis: how it is called, what is better, and where it stands in an evaluation."""

    title: str
    better: Literal["higher", "lower"]
    of: Callable[[EvaluationReport, str, str, bool], float | None]  # report, arm, axis, whether on the probe's own scale
    by_axis: bool = True  # what is measured in one denoising step knows no axis


def _accuracy(report: EvaluationReport, arm: str, axis: str) -> Accuracy | None:
    return next((one for one in report.accuracy if (one.arm, one.axis) == (arm, axis)), None)


def _rho(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    one = _accuracy(report, arm, axis)
    return None if one is None else (one.rho_absolute if own else one.rho).value


def _slope(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    one = _accuracy(report, arm, axis)
    return None if one is None else (one.slope_absolute if own else one.slope).value


def _error(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    one = _accuracy(report, arm, axis)
    return None if one is None else (one.median_error_absolute if own else one.median_error).value


def _read(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    one = _accuracy(report, arm, axis)
    return None if one is None else (one.share_read_absolute if own else one.share_read)


def _ss_fd(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    return next((one.ss_fd for one in report.fep if one.arm == arm), None)


def _ssf(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    return next((one.ssf for one in report.fep if one.arm == arm), None)


def _cosine(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    one = next((one for one in report.consistency if (one.arm, one.axis) == (arm, axis)), None)
    return None if one is None else next(iter(one.cosine.values())).value


def _outside(report: EvaluationReport, arm: str, axis: str, own: bool) -> float | None:
    one = next((one for one in report.consistency if (one.arm, one.axis) == (arm, axis)), None)
    return None if one is None else one.outside_levels.value


METRICS: dict[str, Metric] = {
    "rho": Metric(title="ρ", better="higher", of=_rho),
    "slope": Metric(title="measured per commanded", better="higher", of=_slope),
    "error": Metric(title="median error", better="lower", of=_error),
    "read": Metric(title="read", better="higher", of=_read),
    "ssf": Metric(title="SSF", better="higher", of=_ssf, by_axis=False),
    "ss_fd": Metric(title="SS-FD", better="lower", of=_ss_fd, by_axis=False),
    "cosine": Metric(title="cosine to c = 0", better="higher", of=_cosine),
    "outside": Metric(title="difference outside the effect", better="lower", of=_outside),
}


def seed_mean(by_seed: Mapping[int, float | None]) -> SeedMean:
    """Return the mean over seeds of what was measured, with Student's interval."""
    found = {seed: float(value) for seed, value in by_seed.items() if value is not None}
    if not found:
        return SeedMean(value=None)
    values = np.array(list(found.values()))
    if len(values) < 2:
        return SeedMean(value=float(values[0]), by_seed=found)
    half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    middle = float(values.mean())
    return SeedMean(value=middle, low=middle - half, high=middle + half, by_seed=found)


def paired(left: SeedMean, right: SeedMean, *, factor: float = 1.0) -> SeedMean:
    """Return left - factor · right, seed by seed, over the seeds that both have."""
    both = [seed for seed in left.by_seed if seed in right.by_seed]
    return seed_mean({seed: left.by_seed[seed] - factor * right.by_seed[seed] for seed in both})


def arm_rows(cells: Sequence[GridRunReport]) -> tuple[ArmNumbers, ...]:
    """Return the numbers of every arm, axis and fidelity over the seeds.

    An adapter trained without LoRA stands as one more arm, `adapter_only`; the noise floor as an arm without control.
    """
    axes = cells[0].report.axes
    rows = []
    for fidelity in dict.fromkeys(cell.fidelity for cell in cells):
        own = [cell for cell in cells if cell.fidelity == fidelity]
        for arm in arms_of(own):
            for axis in axes:
                scale = _own_scale(cells, axis)
                numbers = {name: _over_seeds(own, arm, axis, metric, scale) for name, metric in METRICS.items()}
                measured = {name: one for name, one in numbers.items() if one.value is not None}
                rows.append(ArmNumbers(fidelity=fidelity, arm=arm, axis=axis, numbers=measured))
    return tuple(rows)


def arms_of(cells: Iterable[GridRunReport]) -> tuple[str, ...]:
    """Return the arms of some runs in the order of the tables."""
    found: dict[str, None] = {}
    for cell in cells:
        found |= dict.fromkeys([ADAPTER_ONLY] if cell.trained == ADAPTER_ONLY else cell.report.arms)
        if cell.trained != ADAPTER_ONLY and any(one.arm == NOISE_FLOOR for one in cell.report.fep):
            found[NOISE_FLOOR] = None
    last = [arm for arm in (ADAPTER_ONLY, str(Mode.BACKBONE_ONLY), "text prompting", NOISE_FLOOR) if arm in found]
    return (*(arm for arm in found if arm not in last), *last)


def _over_seeds(cells: Sequence[GridRunReport], arm: str, axis: str, metric: Metric, scale: bool) -> SeedMean:
    alone = arm == ADAPTER_ONLY
    name = str(Mode.CONTROL_ONLY) if alone else arm
    chosen = [cell for cell in cells if (cell.trained == ADAPTER_ONLY) == alone]
    return seed_mean({cell.seed: metric.of(cell.report, name, axis, scale) for cell in chosen})


def _own_scale(cells: Sequence[GridRunReport], axis: str) -> bool:
    """Return whether most runs are better read on the probe's own scale; all arms of an axis are read on one."""
    votes = Counter(
        own_scale(one) for cell in cells for one in cell.report.accuracy if one.axis == axis and one.arm == cell.report.main_arm
    )
    return votes[True] > votes[False]


def read_comparison(folder: Path) -> ComparisonReport:
    """Return the report of a comparison's folder; raises InputError where there is none or it cannot be read."""
    path = folder / FILE
    try:
        return ComparisonReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder} has no {FILE}; give the folder of a `stopdown run` whose recipe has [compare]") from None
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read ({first}); run `stopdown run` again") from None
