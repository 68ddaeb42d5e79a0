"""Control accuracy and leakage of one axis in one arm, from readings; no fit anywhere, a refused reading stays out.

Shapes: P prompts, S seeds, N controls ascending. All distances are in the axis's error unit from c = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenes.arrays import Bools, Floats
from scenes.axes import AXES
from trainer.control.laws import AxisControl, NoLaw
from trainer.evaluation.results import Accuracy, Direction, EstimatedValue, Extrapolation, Leakage, Response, estimate, finite
from trainer.probing.cached import SweepReads
from trainer.probing.statistics import MIN_READ, bootstrap, median, median_error, rank_correlation, resolution, slope

TRAINED = 1.0 + 1e-9
FEW_RESAMPLES = 400  # of the resolution, which looks at every pair


@dataclass(frozen=True, kw_only=True)
class AxisReads:
    """The readings of one axis's sweeps in one arm, over prompts and seeds; NaN where the probe refused."""

    axis: AxisControl
    controls_N: Floats
    expected_N: Floats
    relative_PSN: Floats
    absolute_PSN: Floats
    values_PSN: Floats
    sharp_PSN: Bools

    @classmethod
    def of(cls, axis: AxisControl, controls: Sequence[float], reads_PS: Sequence[Sequence[SweepReads]]) -> AxisReads:
        """Return the readings of sweeps by prompt and seed."""

        def stacked(name: str) -> NDArray:
            return np.array([[getattr(one, name) for one in row] for row in reads_PS])

        return cls(
            axis=axis,
            controls_N=np.array(controls, dtype=np.float64),
            expected_N=reads_PS[0][0].expected_N,
            relative_PSN=stacked("relative_N"),
            absolute_PSN=stacked("absolute_N"),
            values_PSN=stacked("values_N"),
            sharp_PSN=stacked("sharp_N"),
        )

    @property
    def trained_N(self) -> Bools:
        """Which controls lie in the trained range."""
        return np.abs(self.controls_N) <= TRAINED

    @property
    def reference_N(self) -> Bools:
        """Which control is c = 0, whose distance is 0 by construction."""
        return np.abs(self.controls_N) < 1e-9


def accuracy(arm: str, reads: AxisReads, rng: np.random.Generator, *, note: str = "") -> Accuracy:
    """Return the control accuracy of an axis in an arm, with intervals over prompts drawn from `rng`."""
    trained, judged = reads.trained_N, reads.trained_N & ~reads.reference_N
    prompts, seeds, _ = reads.relative_PSN.shape
    controls, expected = reads.controls_N[trained], reads.expected_N[trained]
    relative, absolute = reads.relative_PSN[..., trained], reads.absolute_PSN[..., trained]
    tied = sharp_as_ties(reads)[..., trained]

    def medians(of_PS: Floats) -> EstimatedValue:
        return estimate(bootstrap(lambda chosen: median(of_PS[chosen]), prompts, rng))

    def errors(readings: Floats, which_N: Bools) -> EstimatedValue:
        commands, measured = reads.expected_N[which_N], readings[..., which_N]
        return estimate(bootstrap(lambda chosen: median_error(commands, measured[chosen]), prompts, rng))

    steps = bootstrap(
        lambda chosen: resolution(controls, relative[chosen].reshape(-1, len(controls))), prompts, rng, resamples=FEW_RESAMPLES
    )
    return Accuracy(
        arm=arm,
        axis=reads.axis.name,
        unit=reads.axis.axis.error_unit,
        sweeps=prompts * seeds,
        prompts=prompts,
        rho=medians(_over(relative, lambda sweep_N: rank_correlation(controls, sweep_N))),
        slope=medians(_over(relative, lambda sweep_N: slope(expected, sweep_N))),
        median_error=errors(reads.relative_PSN, judged),
        resolution=estimate(steps),
        share_read=float(np.isfinite(reads.relative_PSN[..., judged]).mean()) if judged.any() else 0.0,
        share_sharp=float(reads.sharp_PSN[..., judged].mean()) if judged.any() else 0.0,
        rho_absolute=medians(_over(absolute, lambda sweep_N: rank_correlation(controls, sweep_N))),
        slope_absolute=medians(_over(absolute, lambda sweep_N: slope(expected, sweep_N))),
        median_error_absolute=errors(reads.absolute_PSN, trained),
        share_read_absolute=float(np.isfinite(absolute).mean()),
        rho_sharp_as_ties=medians(_over(tied, lambda sweep_N: rank_correlation(controls, sweep_N))),
        curve=response_curve(reads),
        extrapolation=extrapolation(reads),
        seed_spread=seed_spread(reads),
        note=note,
    )


def sharp_as_ties(reads: AxisReads) -> Floats:
    """Return readings in which videos too sharp to read are tied below all others of their sweep.

    Blur below what a probe can read is an upper bound. Readings are on the probe's own scale where a sweep has any, because
    the video at c = 0 may itself be too sharp to compare with.
    """
    own = np.isfinite(reads.absolute_PSN).any(axis=-1, keepdims=True)
    base = np.where(own, reads.absolute_PSN, reads.relative_PSN)
    lowest = np.min(np.where(np.isfinite(base), base, np.inf), axis=-1, keepdims=True)
    floor = np.where(np.isfinite(lowest), lowest, 0.0) - 1.0
    return np.where(reads.sharp_PSN, floor, base)


def response_curve(reads: AxisReads) -> tuple[Response, ...]:
    """Return what each control gave, over prompts and seeds."""
    found = []
    for place, control in enumerate(reads.controls_N):
        column = reads.relative_PSN[..., place].ravel()
        read = column[np.isfinite(column)]
        low, high = np.percentile(read, [10, 90]) if read.size else (np.nan, np.nan)
        law = reads.axis.law
        found.append(
            Response(
                control=float(control),
                value=None if isinstance(law, NoLaw) else law.value(float(control)),
                label=reads.axis.format(float(control)),
                expected=finite(float(reads.expected_N[place])),
                median=finite(median(column)),
                low=finite(float(low)),
                high=finite(float(high)),
                absolute=finite(median(reads.values_PSN[..., place])),
                read=int(read.size),
                of=int(column.size),
            )
        )
    return tuple(found)


def extrapolation(reads: AxisReads) -> tuple[Extrapolation, ...]:
    """Return, for each side beyond the trained range, whether readings move on from the trained end to the furthest control."""
    # the more often read of the two scales: both are distances from neutral
    better = np.isfinite(reads.absolute_PSN).sum() > np.isfinite(reads.relative_PSN).sum()
    readings = reads.absolute_PSN if better else reads.relative_PSN
    sides: list[tuple[Direction, float]] = [("below", -1.0), ("above", 1.0)]
    found = []
    for side, sign in sides:
        towards = sign * reads.controls_N
        outer, inner = int(np.argmax(towards)), int(np.argmax(np.where(towards <= TRAINED, towards, -np.inf)))
        if towards[outer] <= TRAINED:
            continue
        moved = (readings[..., outer] - readings[..., inner]).ravel()
        moved = moved[np.isfinite(moved)]
        commanded = float(reads.expected_N[outer] - reads.expected_N[inner])
        found.append(
            Extrapolation(
                side=side,
                to_control=float(reads.controls_N[outer]),
                pairs=int(moved.size),
                goes_on=float(np.mean(moved * sign > 0)) if moved.size else None,
                slope=finite(median(moved / commanded)) if moved.size and np.isfinite(commanded) else None,
            )
        )
    return tuple(found)


def seed_spread(reads: AxisReads) -> float | None:
    """Return the median standard deviation of a reading over seeds, same prompt and control; None for fewer than two seeds."""
    columns = reads.relative_PSN[..., ~reads.reference_N]
    counts_PN = np.isfinite(columns).sum(axis=1)
    spreads = [
        float(np.std(column[np.isfinite(column)], ddof=1))
        for prompt_SN, counts_N in zip(columns, counts_PN, strict=True)
        for column, count in zip(prompt_SN.T, counts_N, strict=True)
        if count >= 2
    ]
    return float(np.median(spreads)) if spreads else None


def leakage(arm: str, swept: str, axis: AxisControl, controls_N: Floats, readings_KN: Floats) -> Leakage:
    """Return how much another axis's readings follow a sweep: [K, N] over K sweeps at the controls of the axis that is swept.

    The trend is the least-squares slope over c, as a share of the slope that the other axis's own control would give.
    """
    trained = np.abs(controls_N) <= TRAINED
    own = slope(controls_N[trained], _commanded(axis, controls_N[trained]))
    trends = []
    for sweep_N in readings_KN[:, trained]:
        if np.isfinite(sweep_N).sum() >= MIN_READ:
            trends.append(slope(controls_N[trained], sweep_N) / own)
    found = np.array([trend for trend in trends if np.isfinite(trend)])
    shares = found if swept == axis.name else np.abs(found)
    return Leakage(
        arm=arm,
        swept=swept,
        read=axis.name,
        share=finite(median(shares)) if found.size else None,
        worst=float(np.percentile(np.abs(found), 90)) if found.size else None,
        sweeps=len(found),
        of=len(readings_KN),
    )


def _commanded(axis: AxisControl, controls_N: Floats) -> Floats:
    """Return the distances from c = 0 that controls of an axis command, under its own law, else the default one."""
    law = AXES[axis.name].default_law if isinstance(axis.law, NoLaw) else axis.law
    return np.array([AXES[axis.name].distance(law.value(float(control)), law.value(0.0)) for control in controls_N])


def _over(readings_PSN: Floats, statistic: Callable[[Floats], float]) -> Floats:
    """Return a statistic of every sweep, [P, S]."""
    return np.array([[statistic(sweep_N) for sweep_N in prompt_SN] for prompt_SN in readings_PSN])
