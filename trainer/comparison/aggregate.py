"""From the evaluations of several runs to one comparison: numbers over seeds, claims, and what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence

from scenes.errors import InputError
from trainer.comparison.claims import comparison_verdict, judge
from trainer.comparison.seed_means import ComparisonReport, GridRunFacts, GridRunReport, arm_rows, arms_of
from trainer.evaluation.arms import ADAPTER_ONLY

# What must be the same in all runs, or their numbers cannot be compared.
SAME = ("controls", "frames", "width", "height", "steps", "guidance", "control_guidance", "prompts_count", "seeds")


def aggregate(name: str, cells: Sequence[GridRunReport]) -> ComparisonReport:
    """Put runs together; raises InputError for runs of other axes, prompts, settings, features or backbones."""
    first = cells[0].report
    for cell in cells[1:]:
        _require_same(cells[0], cell)
    rows = arm_rows(cells)
    judgements = judge(rows)
    seeds = tuple(dict.fromkeys(cell.seed for cell in cells))
    joint = [cell for cell in cells if cell.trained != ADAPTER_ONLY]
    return ComparisonReport(
        name=name,
        fidelities=tuple(dict.fromkeys(cell.fidelity for cell in cells)),
        seeds=seeds,
        arms=arms_of(cells),
        axes=first.axes,
        units={one.axis: one.unit for one in first.accuracy},
        backbone=first.backbone,
        extractor=first.fep[0].extractor if first.fep else next(iter(first.extractors), None),
        prompts=max(len(prompts) for prompts in first.prompts.values()),
        settings={key: first.settings.get(key) for key in SAME},
        cells=tuple(_facts(cell) for cell in cells),
        rows=rows,
        judgements=judgements,
        verdict=comparison_verdict(judgements, len(seeds)),
        notes=_notes(joint, seeds),
        published=first.published,
        versions=first.versions,
    )


def _facts(cell: GridRunReport) -> GridRunFacts:
    return GridRunFacts(
        name=cell.name,
        fidelity=cell.fidelity,
        seed=cell.seed,
        trained=cell.trained,
        dataset_version=cell.report.dataset_version,
        steps=cell.report.adapter_step,
        wall_s=cell.wall_s,
    )


def _require_same(one: GridRunReport, other: GridRunReport) -> None:
    ours, theirs = one.report, other.report
    pairs = {
        "axes": (ours.axes, theirs.axes),
        "prompts": (ours.prompts, theirs.prompts),
        "extractors": (ours.extractors, theirs.extractors),
        "backbone": (ours.backbone, theirs.backbone),
        "steps": (ours.adapter_step, theirs.adapter_step),
        "probes": (ours.probes_version, theirs.probes_version),
        **{key: (ours.settings.get(key), theirs.settings.get(key)) for key in SAME},
    }
    different = [key for key, (left, right) in pairs.items() if left != right]
    if different:
        raise InputError(
            f"runs {one.name} and {other.name} differ in {', '.join(different)} and cannot be compared; run the "
            "comparison again"
        )


def _notes(cells: Sequence[GridRunReport], seeds: Sequence[int]) -> tuple[str, ...]:
    found = dict.fromkeys(note for cell in cells for note in cell.report.notes)
    shown = [note for note in found if ADAPTER_ONLY not in note and "one seed" not in note]  # those are of a run alone
    written = ", ".join(map(str, seeds))
    own = [
        f"seeds {written} are of training and of the noise; each fidelity has one dataset, of the same scenes",
        "published numbers are of another, far larger model: what is or is not reproduced here is so in miniature",
    ]
    return (*own, *shown)
