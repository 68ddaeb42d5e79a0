"""The verdict of an evaluation in plain words, from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.evaluation.arms import TEXT
from trainer.evaluation.results import Accuracy, Fep, Leakage, Validated

FOLLOWS_RHO, SOME_RHO = 0.8, 0.4  # of a sweep of five values, 0.8 is reached by chance once in fifteen
FOLLOWS_SLOPE, SOME_SLOPE = 0.5, 0.1  # measured per commanded
LITTLE_READ = 0.5  # below, nothing is said of the control
# What a control must keep to be said to work without a "but".
TRUE_SLOPE = (0.8, 1.25)
MOST_ERROR = 0.3  # median error, as a share of the median commanded distance from c = 0; a control that does nothing has 1
ENOUGH_READ = 0.8
LEARNT = 0.01  # share of the held-out loss that a control saves, from which a sweep in which it does nothing disagrees
Outcome = Literal["works", "but", "weak", "backwards", "none", "unread"]
HEADS: Mapping[Outcome, str] = {
    "works": "the control works",
    "but": "the control acts, but",
    "weak": "the control works weakly",
    "backwards": "the control works backwards",
    "none": "no control was found",
}


@dataclass(frozen=True, kw_only=True)
class AxisVerdict:
    """The numbers of one axis on the scale that more videos could be read on."""

    rho: float | None
    slope: float | None
    error: float | None
    read: float
    own_scale: bool

    @classmethod
    def of(cls, one: Accuracy) -> AxisVerdict:
        """Choose the scale: distances from the video at c = 0, or the probe's own."""
        own = own_scale(one)
        return cls(
            rho=(one.rho_absolute if own else one.rho).value,
            slope=(one.slope_absolute if own else one.slope).value,
            error=(one.median_error_absolute if own else one.median_error).value,
            read=one.share_read_absolute if own else one.share_read,
            own_scale=own,
        )


def verdict(
    accuracy: Sequence[Accuracy],
    leakage: Sequence[Leakage],
    fep: Sequence[Fep],
    main: str,
    validated: Mapping[str, Validated] | None = None,
) -> tuple[str, ...]:
    """Return a sentence for each axis in the main arm, then one on how far the backbone was moved.

    `validated` is what the training's validation said of each axis, where it did.
    """
    words = {one.axis: one for one in accuracy if one.arm == TEXT}
    held = validated or {}
    lines = [axis_line(one, leakage, words.get(one.axis), held.get(one.axis)) for one in accuracy if one.arm == main]
    return (*lines, *drift_lines(fep, main))


def nothing_read(accuracy: Sequence[Accuracy], main: str) -> bool:
    """Return whether the probes could read no video of the main arm, on any axis: then nothing at all was found out."""
    return all(not one.share_read and not one.share_read_absolute for one in accuracy if one.arm == main)


def own_scale(one: Accuracy) -> bool:
    """Return whether an axis is better read on the probe's own scale than as distances from the video at c = 0."""
    return one.share_read < LITTLE_READ and one.share_read_absolute > one.share_read


def outcome_of(one: Accuracy, validated: Validated | None = None) -> Outcome:
    """Return what the numbers say of one axis; "but" where the control acts and something is out of its bounds."""
    read = AxisVerdict.of(one)
    if read.rho is None or read.slope is None or read.read < LITTLE_READ:
        return "unread"
    if read.rho >= FOLLOWS_RHO and read.slope >= FOLLOWS_SLOPE:
        return "but" if _wrong(one, read, validated) else "works"
    if read.rho >= SOME_RHO and read.slope >= SOME_SLOPE:
        return "weak"
    return "backwards" if read.rho <= -SOME_RHO and read.slope <= -SOME_SLOPE else "none"


def axis_line(
    one: Accuracy, leakage: Sequence[Leakage], words: Accuracy | None = None, validated: Validated | None = None
) -> str:
    """Return what the numbers say of one axis: whether the control acts, what is wrong, what else it changes, what words do."""
    read, outcome = AxisVerdict.of(one), outcome_of(one, validated)
    if read.rho is not None and read.slope is None:
        return (
            f"{one.axis}: ρ {read.rho:.2f} between control and reading; this adapter states no unit law, so there is no scale."
        )
    if outcome == "unread":
        return f"{one.axis}: {_too_few(one, read)}."
    assert read.rho is not None and read.slope is not None
    wrong = _wrong(one, read, validated) if outcome == "but" else []
    head = " ".join([HEADS[outcome], *([" and ".join(wrong)] if wrong else [])])
    parts = [f"{one.axis}: {head}: a commanded {one.unit} gives {read.slope:.2f} measured {_plural(one.unit)}"]
    parts.append(f"ρ {read.rho:.2f}")
    if read.error is not None:
        parts.append(f"median error {read.error:.2g} {one.unit} with no fit{_of_commanded(one, read)}")
    parts.append(_leaks(one, leakage))
    if words is not None and words.slope.value is not None:
        parts.append(f"words alone give {words.slope.value:.2f}")
    if read.read < 0.9 or read.own_scale:
        how = " (on the probe's own scale, because the videos at c = 0 are too sharp to compare with)" if read.own_scale else ""
        parts.append(f"{_percent(read.read)} of the videos could be read{how}")
    parts.append(_against_validation(outcome, validated))
    return "; ".join(part for part in parts if part) + "."


def _wrong(one: Accuracy, read: AxisVerdict, validated: Validated | None) -> list[str]:
    """Return in words which bounds an acting control breaks."""
    found = []
    low, high = TRUE_SLOPE
    if read.slope is not None and not low <= read.slope <= high:
        found.append(f"{'overshoots' if read.slope > high else 'falls short'} ({low:g} to {high:g} is taken for true)")
    share = _error_share(one, read)
    if share is not None and share > MOST_ERROR:
        found.append(f"is off by more than {_percent(MOST_ERROR)} of what is commanded")
    if read.read < ENOUGH_READ:
        found.append(f"was read in less than {_percent(ENOUGH_READ)} of the videos")
    if validated is not None and validated.gap <= 0:
        found.append("contradicts the training's validation")
    return found


def _against_validation(outcome: Outcome, validated: Validated | None) -> str:
    """Return where the held-out loss says otherwise than the probes."""
    if validated is None:
        return ""
    neutral = validated.loss + validated.gap
    losses = f"held-out loss {validated.loss:.4g} with the true control, {neutral:.4g} with the neutral one"
    if validated.gap <= 0:
        return f"validation at step {validated.step}: the true control predicts no better than the neutral one ({losses})"
    if outcome in ("none", "backwards") and validated.gap > LEARNT * validated.loss:
        return f"validation at step {validated.step} disagrees: something was learnt of it ({losses})"
    return ""


def _too_few(one: Accuracy, read: AxisVerdict) -> str:
    told = f"the probe could read {_percent(read.read)} of the videos, too few to say whether the control works"
    if read.rho is not None and read.slope is not None:
        return f"{told}; of those that were read, ρ {read.rho:.2f} and {read.slope:.2f} measured per commanded {one.unit}"
    ties = one.rho_sharp_as_ties.value
    return told + ("" if ties is None else f"; with videos too sharp to read counted as ties, ρ {ties:.2f}")


def _error_share(one: Accuracy, read: AxisVerdict) -> float | None:
    """Return the median error as a share of the median commanded distance, over the controls that were judged."""
    commanded = sorted(abs(point.expected) for point in one.curve if abs(point.control) <= 1 + 1e-9 and point.expected)
    if read.error is None or not commanded:
        return None
    middle = len(commanded) // 2
    return read.error / ((commanded[middle] + commanded[~middle]) / 2)


def _of_commanded(one: Accuracy, read: AxisVerdict) -> str:
    share = _error_share(one, read)
    return "" if share is None else f" ({_percent(share)} of the median commanded)"


def drift_lines(fep: Sequence[Fep], main: str) -> tuple[str, ...]:
    """Return how far the main arm moves the backbone, beside what other noise alone does, by the first extractor."""
    ours = next((one for one in fep if one.arm == main), None)
    if ours is None:
        return ()
    floor = next((one for one in fep if one.arm == "noise floor" and one.extractor == ours.extractor), None)
    if floor is None:
        return ()
    less = "less" if ours.ss_fd < floor.ss_fd else "more"
    return (
        f"backbone: in one step the {main} mode is at SSF {ours.ssf:.3f} and SS-FD {ours.ss_fd:.3g} from the clean backbone, "
        f"{less} than other noise alone (SSF {floor.ssf:.3f}, SS-FD {floor.ss_fd:.3g}; features: {ours.extractor}).",
    )


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
