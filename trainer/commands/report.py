"""`stopdown report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.config.requirements import require_training_stack


def command(
    out: Annotated[
        Path, typer.Argument(help="The HTML file to write; with --comparison, also a .md file.", show_default=False)
    ],
    evaluation: Annotated[Path | None, typer.Option(help="The folder of `stopdown evaluate`.")] = None,
    run: Annotated[Path | None, typer.Option(help="The folder of a training run.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="The dataset's folder.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="The recipe, to be shown.")] = None,
    comparison: Annotated[
        Path | None, typer.Option(help="The folder of a run with [compare]; not together with the others.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title; the file's name if not given.")] = None,
) -> None:
    """Write one self-contained HTML report of an evaluation, a training run and a dataset, or of some of them.

    With --comparison, write the page of a comparison. If OUT is a Markdown page, put the results between its two comment lines.
    Example: stopdown report report.html --evaluation evaluation --run runs/a --dataset datasets/shutter
    """
    require_training_stack()
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    from generator.recipe.load import read_text
    from scenes.errors import InputError
    from trainer.report import ReportParts, write_report

    if comparison is not None:
        if any(part is not None for part in (evaluation, run, dataset)):
            raise InputError("--comparison has all its runs with it; give it without --evaluation, --run and --dataset")
        _compared(comparison, out, None if recipe is None else read_text(recipe))
        return
    parts = ReportParts(
        title=title or out.stem,
        evaluation=evaluation,
        training=run,
        dataset=dataset,
        recipe=None if recipe is None else read_text(recipe),
    )
    written = write_report(parts, out)
    for line in written.verdict:
        typer.echo(line)
    typer.echo(f"{out}: {written.size_bytes / 1e6:.1f} MB")


def _compared(folder: Path, out: Path, recipe: str | None) -> None:
    from trainer.comparison.comparison_page import ComparisonPage, fill_markdown, write_comparison
    from trainer.comparison.seed_means import read_comparison

    report = read_comparison(folder)
    if out.suffix.lower() == ".md":
        fill_markdown(out, report)
    else:
        write_comparison(report, ComparisonPage(folder=folder, recipe=recipe), out)
    for line in report.verdict:
        typer.echo(line)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
