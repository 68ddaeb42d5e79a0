"""`stopdown run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generator.console.terminal import Console
from trainer.config.requirements import require_training_stack

if TYPE_CHECKING:
    from trainer.comparison.grid_runs import Sweep
    from trainer.runs.run_stages import RunContext
    from trainer.runs.stage_runner import Event, StageRecord, Tell

Overrides = Sequence[str]
WORDS = {"skipped": "kept", "started": "begins", "finished": "done", "damaged": "damaged"}
STYLES = {"skipped": "dim", "damaged": "yellow"}


def command(
    recipe: Annotated[Path, typer.Argument(help="A .toml file with a dataset, [train] and [evaluate].", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of all runs; each run is a folder OUT/NAME/001 and so on.")] = Path("runs"),
    dataset: Annotated[
        Path | None,
        typer.Option(help="The dataset's folder (with [compare], the folder of its datasets); datasets/NAME if not given."),
    ] = None,
    run: Annotated[str | None, typer.Option(help="The run to resume, such as 001; the last one if not given.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start another run beside the last one.")] = False,
    cell: Annotated[
        list[str] | None, typer.Option(help="With [compare]: do only this run, such as flat-0; repeatable.")
    ] = None,
    first: Annotated[str | None, typer.Option("--from", help="Repeat this stage and all stages after it.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and its cost; do nothing.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Render processes; one per core if not given.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key; repeatable: train.steps=500")
    ] = None,
) -> None:
    """Render a dataset, verify it, train on it, generate sweeps, measure them with the same probes, and write a report.

    Stages: build, verify, version, train, generate, evaluate, report. A stage is not repeated
    if its inputs have not changed; after an interruption, run the same command again. A recipe with [compare] makes several
    runs and a report on all of them.
    """
    require_training_stack()
    from scenes.errors import InputError
    from trainer.comparison.run_grid import is_comparison

    where = {"device": device, "workers": workers, "note": _note}
    if is_comparison(recipe, overrides or ()):
        if run is not None or new:
            raise InputError(
                f"{recipe} has [compare], whose runs have names of their own; use --cell instead of --run and --new"
            )
        sweep = _sweep(recipe, overrides or (), out=out, datasets=dataset, **where)
        _compare(sweep, cell, first=first, until=until, dry_run=dry_run)
        return
    if cell:
        raise InputError(f"{recipe} has no [compare], so it has no cells; leave --cell out")
    context = _context(recipe, overrides or (), out=out, dataset=dataset, run=run, new=new, **where)
    _alone(context, first=first, until=until, dry_run=dry_run)


def _context(
    recipe: Path, overrides: Overrides, *, out: Path, dataset: Path | None, run: str | None, new: bool, **where: Any
) -> RunContext:
    from trainer.runs.run_folder import choose_folder
    from trainer.runs.run_recipe import load_run_recipe
    from trainer.runs.run_stages import RunContext

    loaded = load_run_recipe(recipe, overrides)
    return RunContext(
        folder=choose_folder(out, loaded.dataset.name, run=run, new=new),
        recipe_file=recipe,
        recipe=loaded,
        dataset=dataset if dataset is not None else Path("datasets") / loaded.dataset.name,
        **where,
    )


def _alone(context: RunContext, *, first: str | None, until: str | None, dry_run: bool) -> None:
    """Run the stages of one run and say what it found."""
    if dry_run:
        from trainer.commands.plan_table import show_plan

        show_plan(context, Console(highlight=False))
        return
    from trainer.commands.quiet import quiet_libraries
    from trainer.runs.run_folder import claim
    from trainer.runs.run_stages import make_stages
    from trainer.runs.stage_runner import run_stages

    quiet_libraries()
    claim(context.folder, context.recipe, context.dataset)
    records = run_stages(make_stages(context), context.folder, _teller(), first=first, until=until)
    _show_result(context, records)


def _note(words: str) -> None:
    Console(stderr=True, highlight=False).print(f"  {words}", style="dim", markup=False, soft_wrap=True)


def _teller(prefix: str = "") -> Tell:
    console = Console(stderr=True, highlight=False)

    def tell(event: Event, stage: str, words: str) -> None:
        told = f"{prefix}{stage}: {WORDS[event]}{f' ({words})' if words else ''}"
        console.print(told, style=STYLES.get(event, "bold"), markup=False, soft_wrap=True)

    return tell


def _sweep(recipe: Path, overrides: Overrides, *, out: Path, datasets: Path | None, **where: Any) -> Sweep:
    from trainer.comparison.grid_runs import Sweep
    from trainer.comparison.run_grid import load_comparison

    return Sweep(
        comparison=load_comparison(recipe, overrides),
        recipe_file=recipe,
        runs=out,
        datasets=datasets if datasets is not None else Path("datasets"),
        **where,
    )


def _compare(sweep: Sweep, names: list[str] | None, *, first: str | None, until: str | None, dry_run: bool) -> None:
    """Run the cells of a comparison, and tell what they say together once all are there."""
    from trainer.commands.plan_table import show_comparison
    from trainer.commands.quiet import quiet_libraries
    from trainer.comparison.grid_runs import aggregate_runs, run_grid_runs, unfinished

    console = Console(highlight=False)
    cells = sweep.comparison.chosen(names)
    if dry_run:
        show_comparison(sweep, cells, console)
        return
    quiet_libraries()
    run_grid_runs(sweep, cells, lambda cell: _teller(f"{cell.name} "), first=first, until=until)
    missing = unfinished(sweep)
    if missing:
        console.print(f"no comparison yet: {', '.join(missing)} are not evaluated", markup=False, soft_wrap=True)
        return
    compared = aggregate_runs(sweep)
    for line in compared.verdict:
        console.print(line, markup=False)
    console.print(f"{len(sweep.comparison.cells)} runs, {compared.wall_s / 60:.1f} min of work in all", markup=False)
    console.print(f"open {compared.page}", markup=False, soft_wrap=True)


def _show_result(context: RunContext, records: dict[str, StageRecord]) -> None:
    """Say where the report is and what it found."""
    from trainer.evaluation.results import read_report
    from trainer.runs.run_stages import EVALUATION, REPORT

    console = Console(highlight=False)
    if "evaluate" in records:
        for line in read_report(context.folder / EVALUATION).verdict:
            console.print(line, markup=False)
    took = sum(record.wall_s for record in records.values())
    console.print(
        f"{context.folder}: {', '.join(records)} done, {took / 60:.1f} min of work in all", markup=False, soft_wrap=True
    )
    if "report" in records:
        console.print(f"open {context.folder / REPORT}", markup=False, soft_wrap=True)
