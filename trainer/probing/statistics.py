"""What a sweep of readings says: rank correlation, slope, calibration error, resolution; each with an interval.

All readings are in the axis's error unit (stops or mired) relative to c = 0. A reading that a probe refused is NaN and is
left out, never guessed; how many were read stands beside every number.

Shapes: P prompts (or prompts x seeds), N control values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from scenes.arrays import Floats

MIN_READ = 3  # readings of one sweep below which it has no rank correlation
MIN_PROMPTS = 3  # below, resampling them says nothing of other prompts
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its percentile-bootstrap interval, over prompts."""

    value: float
    low: float
    high: float


def rank_correlation(expected_N: Floats, measured_N: Floats) -> float:
    """Return Spearman's rho over the readings of one sweep; NaN for fewer than `MIN_READ`, 0 where all readings are equal."""
    read = np.isfinite(measured_N) & np.isfinite(expected_N)
    if read.sum() < MIN_READ or np.ptp(expected_N[read]) == 0.0:
        return float("nan")
    if np.ptp(measured_N[read]) == 0.0:
        return 0.0  # nothing changed, which is a reading of its own
    return float(spearmanr(expected_N[read], measured_N[read]).statistic)


def slope(expected_N: Floats, measured_N: Floats) -> float:
    """Return measured per commanded unit over one sweep, by least squares; 1 is true, NaN for fewer than two readings."""
    read = np.isfinite(measured_N) & np.isfinite(expected_N)
    if read.sum() < 2 or np.ptp(expected_N[read]) == 0.0:
        return float("nan")
    return float(np.polyfit(expected_N[read], measured_N[read], 1)[0])


def median_error(expected_PN: Floats, measured_PN: Floats) -> float:
    """Return the median absolute difference between readings and commands, after no fit at all; NaN if nothing was read."""
    apart = np.abs(measured_PN - expected_PN)
    return float(np.nanmedian(apart)) if np.isfinite(apart).any() else float("nan")


def resolution(controls_N: Floats, measured_PN: Floats) -> float:
    """Return the smallest step in c that two videos of one prompt are told apart by, 95 times of 100; NaN if none is.

    A step is told apart when at least 95 % of the pairs (same prompt, both read) that lie at least so far apart are in the
    commanded order.
    """
    first_K, second_K = np.triu_indices(len(controls_N), 1)
    order = np.argsort(controls_N)
    sorted_N, sorted_PN = controls_N[order], measured_PN[:, order]
    steps_K = sorted_N[second_K] - sorted_N[first_K]
    rises_PK = sorted_PN[:, second_K] - sorted_PN[:, first_K]
    for step in np.unique(np.round(steps_K, 9)):
        chosen = rises_PK[:, steps_K >= step - 1e-9]
        chosen = chosen[np.isfinite(chosen)]
        if step > 0 and chosen.size and float(np.mean(chosen > 0)) >= 0.95:
            return float(step)
    return float("nan")


def median(values: Floats) -> float:
    """Return the median of the numbers among values of any shape, NaN where there is none. `values` is `[N]`."""
    found = values[np.isfinite(values)]
    return float(np.median(found)) if found.size else float("nan")


def mean(values: Floats) -> float:
    """Return the mean of the numbers among values of any shape, NaN where there is none. `values` is `[N]`."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if found.size else float("nan")


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], prompts: int, rng: np.random.Generator, *, resamples: int = RESAMPLES
) -> Interval:
    """Return a statistic of all prompts with its 95 % interval; `statistic` takes the chosen prompts' indices.

    Fewer than `MIN_PROMPTS` prompts have no interval: its ends are NaN.
    """
    everything = np.arange(prompts)
    if prompts < MIN_PROMPTS:
        return Interval(value=statistic(everything), low=float("nan"), high=float("nan"))
    drawn = np.array([statistic(rng.integers(prompts, size=prompts)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn.size else (np.nan, np.nan)
    return Interval(value=statistic(everything), low=float(low), high=float(high))
