"""`stopdown run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from trainer.requirements import require_training_stack

if TYPE_CHECKING:
    from trainer.run.recipe import RunRecipe
    from trainer.run.stages import Event, StageRecord
    from trainer.run.work import Place

WORDS = {"skipped": "kept", "started": "begins", "finished": "done", "damaged": "damaged"}


def command(
    recipe: Annotated[Path, typer.Argument(help="A .toml file with a dataset, [train] and [evaluate].", show_default=False)],
    out: Annotated[Path, typer.Option(help="Where runs live: OUT/NAME/001 and so on.")] = Path("runs"),
    dataset: Annotated[Path | None, typer.Option(help="The dataset's folder; datasets/NAME if not given.")] = None,
    run: Annotated[str | None, typer.Option(help="The run to go on with; the last one if not given.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start another run beside the last one.")] = False,
    first: Annotated[str | None, typer.Option("--from", help="Do this stage and all after it again.")] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done and what it takes.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Render processes; one per core if not given.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key; repeatable: train.steps=500")
    ] = None,
) -> None:
    """Render a dataset, prove it, train on it, generate sweeps, measure them with the same probes, and write a report.

    Stages: build, verify, version, train, generate, evaluate, report. One whose inputs have not changed is not done again;
    run the same command after any interruption.
    """
    require_training_stack()
    from trainer.run.folder import choose_folder, claim
    from trainer.run.recipe import load_run_recipe
    from trainer.run.stages import run_stages
    from trainer.run.work import Place, make_stages

    loaded = load_run_recipe(recipe, overrides or ())
    console = Console(stderr=True, highlight=False)
    name = loaded.dataset.name
    place = Place(
        folder=choose_folder(out, name, run=run, new=new),
        recipe_file=recipe,
        recipe=loaded,
        dataset=dataset if dataset is not None else Path("datasets") / name,
        device=device,
        workers=workers,
        note=lambda words: console.print(f"  {words}", style="dim", markup=False, soft_wrap=True),
    )
    if dry_run:
        _show_plan(place, Console(highlight=False))
        return
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    claim(place.folder, loaded, place.dataset)

    def tell(event: Event, stage: str, words: str) -> None:
        style = {"skipped": "dim", "damaged": "yellow"}.get(event, "bold")
        console.print(f"{stage}: {WORDS[event]}{f' ({words})' if words else ''}", style=style, markup=False, soft_wrap=True)

    records = run_stages(make_stages(place), place.folder, tell, first=first, until=until)
    _show_result(place, records)


def _show_plan(place: Place, console: Console) -> None:
    from generator.estimate import estimate
    from generator.plan import layer_counts
    from trainer.run.stages import read_state

    recipe: RunRecipe = place.recipe
    cost = estimate(recipe.dataset)
    done = read_state(place.folder).stages
    clips = sum(count for *_, count in layer_counts(recipe.dataset))
    settings = recipe.train(place.dataset, "latest", place.folder / "train")
    videos = _videos(recipe)
    rows = {
        "build": f"{clips} clips in {place.dataset}: about {cost.cpu_s / 60:.1f} CPU min, {cost.size_bytes / 1e6:.1f} MB",
        "verify": "every label, by its probe",
        "version": f"tag {place.tag}",
        "train": f"{settings.steps} steps of {settings.batch_size} x {settings.accumulation} clips on {settings.backbone.name}",
        "generate": f"up to {videos} videos",
        "evaluate": f"their probes, {', '.join(recipe.evaluate.features)} features",
        "report": str(place.folder / "report.html"),
    }
    table = Table("stage", "what", "before", box=None, header_style="dim", pad_edge=False)
    for name, words in rows.items():
        table.add_row(name, words, f"done in {done[name].wall_s:.0f} s" if name in done else "not done")
    console.print(table)


def _videos(recipe: RunRecipe) -> int:
    """Return how many videos an evaluation makes at most."""
    from trainer.evaluation.settings import parse_controls

    settings = recipe.evaluate
    axes = settings.axes or recipe.dataset.used_axes
    arms = len(settings.modes) + settings.text_baseline
    return len(axes) * settings.prompts_count * settings.seeds * len(parse_controls(settings.controls)) * arms


def _show_result(place: Place, records: dict[str, StageRecord]) -> None:
    """Say where the report is and what it found."""
    from trainer.evaluation.results import read_report
    from trainer.run.work import EVALUATION, REPORT

    console = Console(highlight=False)
    if "evaluate" in records:
        for line in read_report(place.folder / EVALUATION).verdict:
            console.print(line, markup=False)
    took = sum(record.wall_s for record in records.values())
    console.print(
        f"{place.folder}: {', '.join(records)} done, {took / 60:.1f} min of work in all", markup=False, soft_wrap=True
    )
    if "report" in records:
        console.print(f"open {place.folder / REPORT}", markup=False, soft_wrap=True)
