"""The tables of a report: words for every number, with its interval, and a note on how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.results import Accuracy, EstimatedValue, EvaluationReport, PublishedNumber
from trainer.evaluation.results_markdown import written


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a title and a note; `main` are the rows to stress."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    main: frozenset[int] = frozenset()


def accuracy_table(report: EvaluationReport) -> Table:
    """Return control accuracy by axis and arm."""
    ordered = sorted(report.accuracy, key=lambda one: (report.axes.index(one.axis), report.arms.index(one.arm)))
    rows = []
    for one in ordered:
        rows.append(
            (
                one.axis,
                one.arm + (" *" if one.note else ""),
                written(one.rho),
                written(one.slope),
                _error(one, one.median_error),
                written(one.resolution),
                f"{100 * one.share_read:.0f} %" + (f", {100 * one.share_sharp:.0f} % too sharp" if one.share_sharp else ""),
                written(one.rho_absolute),
                _error(one, one.median_error_absolute),
                written(one.rho_sharp_as_ties),
                _beyond(one),
                "none" if one.seed_spread is None else f"{one.seed_spread:.2g} {one.unit}",
            )
        )
    notes = " ".join(f"{note[:1].upper()}{note[1:]}." for note in dict.fromkeys(one.note for one in ordered if one.note))
    return Table(
        title="Control accuracy",
        note="Readings of the blind probes against what was commanded, over the trained range, with no fit. ρ is the median "
        "over prompts of Spearman's correlation; measured per commanded is 1 when true; resolution is the smallest step in c "
        "told apart 95 times of 100. Own scale: the absolute reading, where the pixels have one. In brackets: 95 % "
        "bootstrap intervals over prompts. " + (f"* {notes}" if notes else ""),
        head=(
            "axis",
            "arm",
            "ρ",
            "measured per commanded",
            "median error",
            "resolution (c)",
            "read",
            "ρ, own scale",
            "error, own scale",
            "ρ with unreadably sharp as ties",
            "beyond ±1",
            "spread over seeds",
        ),
        rows=tuple(rows),
        main=frozenset(number for number, one in enumerate(ordered) if one.arm == report.main_arm),
    )


def drift_table(report: EvaluationReport) -> Table:
    """Return how far each arm moves the clean backbone in one denoising step."""
    return Table(
        title="Distance from the clean backbone",
        note="After one denoising step from the same noise: SSF is the mean cosine of features, SS-FD the Fréchet distance "
        "between the two sets (covariances shrunk for few samples), DVS the ratio of their variances. The noise floor is the "
        "backbone from other noise: what lies within it cannot be told from chance.",
        head=("arm", "features", "SSF", "SS-FD", "DVS", "videos"),
        rows=tuple(
            (one.arm, one.extractor, f"{one.ssf:.4f}", f"{one.ss_fd:.3g}", f"{one.dvs:.2f}", str(one.videos))
            for one in report.fep
        ),
        main=frozenset(number for number, one in enumerate(report.fep) if one.arm == report.main_arm),
    )


def kept_table(report: EvaluationReport) -> Table:
    """Return how alike the videos of a sweep stay."""
    rows: list[tuple[str, ...]] = []
    main: list[int] = []
    for one in report.consistency:
        for extractor, likeness in one.cosine.items():
            if one.arm == report.main_arm:
                main.append(len(rows))
            other = one.other_seed_cosine[extractor]
            rows.append(
                (
                    one.axis,
                    one.arm,
                    extractor,
                    written(likeness, 4),
                    "none" if other is None else f"{other:.4f}",
                    written(one.outside_levels, 1),
                    "none" if one.other_seed_levels is None else f"{one.other_seed_levels:.1f}",
                )
            )
    return Table(
        title="What a sweep keeps",
        note="Cosine of features to the video at c = 0, and the difference of what stands still after gain and small shifts, "
        "in 8-bit levels; beside each, the same between two seeds, which is what another scene looks like.",
        head=("axis", "arm", "features", "cosine to c = 0", "between seeds", "difference outside the effect", "between seeds"),
        rows=tuple(rows),
        main=frozenset(main),
    )


def words_table(report: EvaluationReport) -> Table:
    """Return how well videos fit their prompt, keep their subject, and flicker."""
    unsteady = {one.arm: one.levels for one in report.flicker}
    return Table(
        title="Words, subject, flicker",
        note="Text-video cosine with the plain prompt, where the extractor knows words; mean cosine of frames to the first at "
        "c = 0; mean second difference of the frames' luma in 8-bit levels.",
        head=("arm", "features", "text and video", "subject kept", "flicker", "videos"),
        rows=tuple(
            (
                one.arm,
                one.extractor,
                written(one.text_video, 3),
                written(one.subject_consistency, 4),
                written(unsteady[one.arm]),
                str(one.videos),
            )
            for one in report.svp
        ),
        main=frozenset(number for number, one in enumerate(report.svp) if one.arm == report.main_arm),
    )


def published_table(published: Sequence[PublishedNumber]) -> Table:
    """Return published numbers of the full-size method: another model, which ours cannot be compared with."""
    return Table(
        title="Published, for context",
        note="Another model, other data and other features: these numbers say what the method does at full size, and cannot be "
        "held against ours.",
        head=("metric", "axis", "model", "full LoRA", "decoupled", "noise floor", "source"),
        rows=tuple(
            (one.metric, one.axis, one.model, _plain(one.full_lora), _plain(one.decoupled), _plain(one.noise_floor), one.source)
            for one in published
        ),
    )


def _error(one: Accuracy, error: EstimatedValue) -> str:
    digits = 2 if one.unit == "stop" else 1
    return "none" if error.value is None else f"{written(error, digits)} {one.unit}"


def _beyond(one: Accuracy) -> str:
    """Return how readings go on beyond the trained range, both sides."""
    parts: Sequence[str] = [
        f"to {side.to_control:+.2g}: {100 * side.goes_on:.0f} % go on" for side in one.extrapolation if side.goes_on is not None
    ]
    return "; ".join(parts).replace("-", "−") or "none"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
