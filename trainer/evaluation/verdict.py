"""The verdict of an evaluation in plain words, from its numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.evaluation.plan import TEXT
from trainer.evaluation.results import Accuracy, Fast, Leakage

FOLLOWS_RHO, SOME_RHO = 0.8, 0.4  # of a sweep of five values, 0.8 is reached by chance once in fifteen
FOLLOWS_SLOPE, SOME_SLOPE = 0.5, 0.1  # measured per commanded
LITTLE_READ = 0.5


def verdict(accuracy: Sequence[Accuracy], leakage: Sequence[Leakage], fast: Sequence[Fast], main: str) -> tuple[str, ...]:
    """Return a sentence for each axis in the main arm, then one on how far the backbone was moved."""
    words = {one.axis: one for one in accuracy if one.arm == TEXT}
    lines = [axis_line(one, leakage, words.get(one.axis)) for one in accuracy if one.arm == main]
    return (*lines, *prior_lines(fast, main))


def own_scale(one: Accuracy) -> bool:
    """Return whether an axis is better read on the probe's own scale than as distances from the video at c = 0."""
    return one.share_read < LITTLE_READ and one.share_read_absolute > one.share_read


def axis_line(one: Accuracy, leakage: Sequence[Leakage], words: Accuracy | None = None) -> str:
    """Return what the numbers say of one axis: whether the control acts, how much, what it takes along, and what words do."""
    absolute = own_scale(one)
    rho, slope = (one.rho_absolute, one.slope_absolute) if absolute else (one.rho, one.slope)
    error = one.median_error_absolute if absolute else one.median_error
    read = one.share_read_absolute if absolute else one.share_read
    if rho.value is not None and slope.value is None:
        return (
            f"{one.axis}: ρ {rho.value:.2f} between control and reading; this adapter states no unit law, so there is no scale."
        )
    if rho.value is None or slope.value is None:
        ties = one.rho_sharp_as_ties.value
        told = "" if ties is None else f"; with videos too sharp to read counted as ties, ρ {ties:.2f}"
        return (
            f"{one.axis}: the probe could read {_percent(read)} of the videos, too few to say whether the control works{told}."
        )
    moved = f"a commanded {one.unit} gives {slope.value:.2f} measured {_plural(one.unit)}"
    parts = [f"{one.axis}: {_judgement(rho.value, slope.value)}: {moved}", f"ρ {rho.value:.2f}"]
    if error.value is not None:
        parts.append(f"median error {error.value:.2g} {one.unit} with no fit")
    parts.append(_leaks(one, leakage))
    if words is not None and words.slope.value is not None:
        parts.append(f"words alone give {words.slope.value:.2f}")
    if read < 0.9 or absolute:
        how = " (on the probe's own scale, because the videos at c = 0 are too sharp to compare with)" if absolute else ""
        parts.append(f"{_percent(read)} of the videos could be read{how}")
    return "; ".join(part for part in parts if part) + "."


def prior_lines(fast: Sequence[Fast], main: str) -> tuple[str, ...]:
    """Return how far the main arm moves the backbone, beside what other noise alone does, by the first extractor."""
    ours = next((one for one in fast if one.arm == main), None)
    if ours is None:
        return ()
    floor = next((one for one in fast if one.arm == "noise floor" and one.extractor == ours.extractor), None)
    if floor is None:
        return ()
    less = "less" if ours.ss_fd < floor.ss_fd else "more"
    return (
        f"backbone: in one step the {main} mode is at SSF {ours.ssf:.3f} and SS-FD {ours.ss_fd:.3g} from the clean backbone, "
        f"{less} than other noise alone (SSF {floor.ssf:.3f}, SS-FD {floor.ss_fd:.3g}; features: {ours.extractor}).",
    )


def _judgement(rho: float, slope: float) -> str:
    if rho >= FOLLOWS_RHO and slope >= FOLLOWS_SLOPE:
        return "the control works"
    if rho >= SOME_RHO and slope >= SOME_SLOPE:
        return "the control works weakly"
    if rho <= -SOME_RHO and slope <= -SOME_SLOPE:
        return "the control works backwards"
    return "no control was found"


def _leaks(one: Accuracy, leakage: Sequence[Leakage]) -> str:
    """Return the largest leakage into another axis that could be read, in words."""
    own = [entry for entry in leakage if (entry.arm, entry.swept) == (one.arm, one.axis)]
    known = [entry for entry in own if entry.read != one.axis and entry.share is not None]
    if not known:
        return ""
    worst = max(known, key=lambda entry: entry.share or 0.0)
    assert worst.share is not None
    return f"leakage under {max(1, int(100 * worst.share) + 1)} % (most into {worst.read})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _plural(unit: str) -> str:
    return "stops" if unit == "stop" else unit
