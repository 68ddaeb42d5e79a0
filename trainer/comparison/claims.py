"""The method's claims, held against a comparison's numbers: reproduced, not reproduced, or undecided, and by how much.

Source of the claims: arXiv 2511.17844. A claim is a difference between two arms or two fidelities, taken seed by seed: it is
reproduced where the whole 95 % interval lies above 0, not reproduced where it lies below, else undecided. Nothing is said of
what an arm keeps where its control does nothing, because that keeps everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.comparison.seed_means import METRICS, NOISE_FLOOR, Judgement, Outcome, SeedMean, paired
from trainer.comparison.seed_means import ArmNumbers as Row
from trainer.evaluation.arms import ADAPTER_ONLY, TEXT

MOST_OF = 0.8  # of joint's control, which decoupled must keep
OUTCOMES: tuple[Outcome, ...] = ("reproduced", "not reproduced", "undecided", "not measured")
AS_WELL = 0.9  # of the control that richer data teach


@dataclass(frozen=True, kw_only=True)
class Claim:
    """That `larger` exceeds `smaller` times `factor` in a metric; arms of one fidelity, or one arm at two."""

    name: str
    statement: str
    metric: str
    larger: str
    smaller: str
    factor: float = 1.0


MODE_CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="prior kept",
        statement="decoupled inference lies nearer the clean backbone than joint",
        metric="ss_fd",
        larger="joint",
        smaller="decoupled",
    ),
    Claim(
        name="below the noise",
        statement="decoupled inference moves the backbone less than other noise does",
        metric="ss_fd",
        larger=NOISE_FLOOR,
        smaller="decoupled",
    ),
    Claim(
        name="control kept",
        statement=f"decoupled inference keeps at least {100 * MOST_OF:.0f} % of joint's control",
        metric="slope",
        larger="decoupled",
        smaller="joint",
        factor=MOST_OF,
    ),
    Claim(
        name="scene kept",
        statement="over a sweep, decoupled inference keeps the scene better than joint",
        metric="cosine",
        larger="decoupled",
        smaller="joint",
    ),
    Claim(
        name="LoRA absorbs the look",
        statement="a control trained beside a LoRA that is then dropped moves the backbone less than one trained alone",
        metric="ss_fd",
        larger=ADAPTER_ONLY,
        smaller="decoupled",
    ),
    Claim(
        name="more than words",
        statement="the control does more than words for the effect",
        metric="slope",
        larger="decoupled",
        smaller=TEXT,
    ),
)


def judge(rows: Sequence[Row], arm: str = "decoupled") -> tuple[Judgement, ...]:
    """Return every claim at every fidelity and axis, then those between the first fidelity and each other, in `arm`."""
    found = []
    fidelities = list(dict.fromkeys(row.fidelity for row in rows))
    for claim in MODE_CLAIMS:
        for axis in _axes(rows, claim):
            for fidelity in fidelities:
                larger, smaller = (_number(rows, fidelity, one, axis, claim.metric) for one in (claim.larger, claim.smaller))
                acts = _acts(rows, fidelity, arm, axis)
                found.append(_judged(claim, axis, fidelity, larger, smaller, acts=acts))
    plain = fidelities[0]
    for other in fidelities[1:]:
        for claim in _data_claims(plain, other):
            for axis in _axes(rows, claim):
                larger, smaller = (_number(rows, one, arm, axis, claim.metric) for one in (claim.larger, claim.smaller))
                acts = _acts(rows, plain, arm, axis)
                found.append(_judged(claim, axis, other, larger, smaller, acts=acts))
    return tuple(found)


def _axes(rows: Sequence[Row], claim: Claim) -> list[str]:
    """Return the axes that a claim is held against: the first stands for all where the metric knows none."""
    axes = list(dict.fromkeys(row.axis for row in rows))
    return axes if METRICS[claim.metric].by_axis else axes[:1]


def _acts(rows: Sequence[Row], fidelity: str, arm: str, axis: str) -> bool:
    """Return whether an arm's control moves the reading at all, by its whole interval."""
    return outcome_of(_number(rows, fidelity, arm, axis, "slope")) == "reproduced"


def _data_claims(plain: str, rich: str) -> tuple[Claim, ...]:
    return (
        Claim(
            name="less is more, control",
            statement=f"{plain} data teach at least {100 * AS_WELL:.0f} % of the control that {rich} data teach",
            metric="slope",
            larger=plain,
            smaller=rich,
            factor=AS_WELL,
        ),
        Claim(
            name="less is more, prior",
            statement=f"{plain} data move the backbone less than {rich} data",
            metric="ss_fd",
            larger=rich,
            smaller=plain,
        ),
    )


def _number(rows: Sequence[Row], fidelity: str, arm: str, axis: str, metric: str) -> SeedMean:
    for row in rows:
        if (row.fidelity, row.arm, row.axis) == (fidelity, arm, axis):
            return row.numbers.get(metric, SeedMean(value=None))
    return SeedMean(value=None)


def _judged(claim: Claim, axis: str, fidelity: str, larger: SeedMean, smaller: SeedMean, *, acts: bool) -> Judgement:
    difference = paired(larger, smaller, factor=claim.factor)
    outcome = outcome_of(difference)
    idle = outcome == "reproduced" and not acts
    outcome = "undecided" if idle else outcome
    words = "not measured"
    if difference.value is not None:
        words = (
            f"{METRICS[claim.metric].title} {_short(larger.value)} ({claim.larger}) against {_short(smaller.value)} "
            f"({claim.smaller}); difference {_interval(difference)}"
        )
        words += f" from {100 * claim.factor:.0f} % of the second" if claim.factor != 1.0 else ""
        words += "; the control does nothing here that could be told from none" if idle else ""
    return Judgement(
        name=claim.name,
        claim=claim.statement,
        metric=claim.metric,
        axis=axis,
        fidelity=fidelity,
        outcome=outcome,
        difference=difference,
        words=words,
    )


def outcome_of(difference: SeedMean) -> Outcome:
    """Return what a difference says of a claim that it is above 0."""
    if difference.value is None:
        return "not measured"
    if difference.low is None or difference.high is None:
        return "undecided"  # one seed says nothing of others
    return "reproduced" if difference.low > 0 else "not reproduced" if difference.high < 0 else "undecided"


def comparison_verdict(judgements: Sequence[Judgement], seeds: int) -> tuple[str, ...]:
    """Return a sentence for each claim: where it was reproduced, where it was not, and where it cannot be told."""
    counts = Counter(one.outcome for one in judgements)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    lines = [f"in all: of {len(judgements)} trials of the method's claims, {told}."]
    for name, statement in dict.fromkeys((one.name, one.claim) for one in judgements):
        own = [one for one in judgements if one.claim == statement]
        several = len({one.axis for one in own}) > 1
        parts = []
        for outcome in OUTCOMES:
            places = [f"{one.fidelity} {one.axis}" if several else one.fidelity for one in own if one.outcome == outcome]
            if places:
                parts.append(f"{outcome} with {', '.join(places)}")
        lines.append(f"{name}: {statement}: {'; '.join(parts)}.")
    if seeds < 2:
        lines.append("seeds: one seed has no interval, so nothing can be decided; give two or more.")
    return tuple(lines)


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _interval(one: SeedMean) -> str:
    if one.value is None:
        return "none"
    return f"{one.value:+.3g}" if one.low is None else f"{one.value:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"
