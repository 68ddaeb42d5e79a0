"""Runs the cells of a comparison one after the other, and puts what they found together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.io.atomic import write_atomic
from scenes.errors import InputError
from trainer.comparison.run_grid import Comparison, GridRun
from trainer.evaluation.results import read_report
from trainer.runs.run_folder import claim
from trainer.runs.run_stages import EVALUATION, Note, RunContext, make_stages
from trainer.runs.stage_runner import StageRecord, Tell, read_state, run_stages

PAGE = "report.html"
TEXT = "results.md"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a comparison left: its verdict, its page, and the seconds of work in all its runs."""

    verdict: tuple[str, ...]
    page: Path
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Where and how a comparison is worked on."""

    comparison: Comparison
    recipe_file: Path
    runs: Path
    datasets: Path
    device: str
    workers: int | None
    note: Note

    def context(self, cell: GridRun) -> RunContext:
        """Return what the stages of a cell's run know."""
        return RunContext(
            folder=self.comparison.folder(self.runs) / cell.name,
            recipe_file=self.recipe_file,
            recipe=cell.recipe,
            dataset=self.comparison.dataset(cell.fidelity, self.datasets),
            device=self.device,
            workers=self.workers,
            note=self.note,
            cell=cell.name,
            overrides=self.comparison.overrides,
        )

    @property
    def repeated_by(self) -> str:
        """The command that makes every run of the comparison again."""
        words = ["stopdown", "run", str(self.recipe_file), "--from", "build"]
        words += [] if self.runs == Path("runs") else ["--out", str(self.runs)]
        words += [] if self.datasets == Path("datasets") else ["--dataset", str(self.datasets)]
        words += [] if self.device == "auto" else ["--device", self.device]
        return shlex.join([*words, *(word for override in self.comparison.overrides for word in ("--set", override))])


def run_grid_runs(
    sweep: Sweep,
    cells: Sequence[GridRun],
    tell: Callable[[GridRun], Tell],
    *,
    first: str | None = None,
    until: str | None = None,
) -> dict[str, dict[str, StageRecord]]:
    """Run the stages of some cells that are not done; returns their records by the cells' names."""
    records = {}
    for cell in cells:
        context = sweep.context(cell)
        claim(context.folder, cell.recipe, context.dataset)
        records[cell.name] = run_stages(make_stages(context), context.folder, tell(cell), first=first, until=until)
    return records


def unfinished(sweep: Sweep) -> list[str]:
    """Return the names of the cells that are not evaluated yet."""
    return [cell.name for cell in sweep.comparison.cells if "evaluate" not in read_state(sweep.context(cell).folder).stages]


def aggregate_runs(sweep: Sweep) -> Compared:
    """Put the evaluations of all cells together and write comparison.json, results.md and the page.

    Raises InputError where a cell is not evaluated yet.
    """
    from trainer.comparison.aggregate import aggregate
    from trainer.comparison.comparison_page import ComparisonPage, comparison_text, write_comparison
    from trainer.comparison.seed_means import FILE, GridRunReport

    missing = unfinished(sweep)
    if missing:
        raise InputError(f"{', '.join(missing)} are not evaluated yet; run the same command without --cell and --until")
    comparison, folder = sweep.comparison, sweep.comparison.folder(sweep.runs)
    cells = []
    for cell in comparison.cells:
        context = sweep.context(cell)
        cells.append(
            GridRunReport(
                name=cell.name,
                fidelity=cell.fidelity,
                seed=cell.seed,
                trained=cell.trained,
                report=read_report(context.folder / EVALUATION),
                wall_s=sum(record.wall_s for record in read_state(context.folder).stages.values()),
            )
        )
    report = aggregate(comparison.name, cells)
    write_atomic(folder / FILE, report.model_dump_json(indent=1).encode() + b"\n")
    write_atomic(folder / TEXT, comparison_text(report).encode())
    write_comparison(report, ComparisonPage(folder=folder, recipe=comparison.text, command=sweep.repeated_by), folder / PAGE)
    return Compared(verdict=report.verdict, page=folder / PAGE, wall_s=sum(cell.wall_s for cell in cells))
