"""`stopdown verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from generator.commands.options import DatasetFolder, Json, counting
from generator.commands.remote_options import Anonymous, Endpoint, Region, remote_at
from generator.commands.version_options import print_json
from generator.console.terminal import Console
from generator.processes.processors import allowed_processors
from generator.verify.findings import VerifyReport
from generator.verify.plot import plot_report
from generator.verify.table import print_report
from generator.verify.verify_dataset import verify
from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.sync.repair import repair_all
from generator.versions.working.working_folder import WorkingFolder


def command(
    dataset: DatasetFolder,
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="Verify the stored bytes of this version instead.")] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="REMOTE", help="Fetch damaged files from this folder or s3:// place; implies --all if no REF is given."
        ),
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    anonymous: Anonymous = False,
    every: Annotated[bool, typer.Option("--all", help="Verify every byte of the store and of all versions instead.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Picture of measured against labelled values; DATASET/verify.png if not given, none with --json."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read and probe; one per core if not given.")] = None,
    json: Json = False,
) -> None:
    """Verify a dataset: every file's hash, every label's range, and every label against a blind probe.

    Exit code 1 if something is damaged or beyond the recipe's tolerances. With a REF or --all, the stored bytes of versions are
    verified instead, and the clips and versions that a damaged object affects are named.
    """
    if repair is not None:
        history, refs = History.open(dataset), None if ref is None else [ref]
        with counting("repairing", silent=json) as progress:
            repaired, _ = repair_all(history, remote_at(repair, endpoint, region, anonymous), refs, progress=progress)
        if not json:
            print(f"repaired {len(repaired.repaired)} files from {repair}")
    if ref is not None or every or repair is not None:
        _verify_history(dataset, ref, json)
    opened = WorkingFolder.open(dataset)
    with counting("verifying", silent=json) as progress:
        report = verify(opened, progress, workers=workers if workers is not None else allowed_processors())
    if json:
        print(report.model_dump_json(indent=1))
    else:
        print_report(report, Console(markup=True))
    if plot is not None or not json:
        _draw(report, plot if plot is not None else dataset / "verify.png", silent=json)
    raise typer.Exit(report.exit_code)


def _draw(report: VerifyReport, picture: Path, *, silent: bool) -> None:
    """Draw the plot, after the verdict: a folder that cannot be written to changes nothing of what was found."""
    try:
        plot_report(report, picture)
    except (OSError, ValueError) as error:  # ValueError: a suffix that is no kind of picture
        reason = getattr(error, "strerror", None) or error
        print(f"no plot: {picture} cannot be written ({reason}); --plot FILE puts it elsewhere", file=sys.stderr)
    else:
        if not silent:
            print(f"plot: {picture}")


def _verify_history(dataset: Path, ref: str | None, json: bool) -> NoReturn:
    history = History.open(dataset)
    with counting("verifying", silent=json) as progress:
        report = check(history, None if ref is None else [ref], progress=progress)
    if json:
        print_json(asdict(report))
        raise typer.Exit(0 if report.clean else 1)
    for damage in report.damages:
        hit = (
            f" (hits {len(damage.clips)} clips of versions {', '.join(v[:12] for v in damage.versions)})"
            if damage.clips
            else ""
        )
        print(f"{damage.path}: {damage.message}{hit}")
    size = f"{report.objects} objects, {report.size_bytes / 1e6:.1f} MB, {report.versions} versions"
    print(f"verified: {size}" if report.clean else f"not verified: {len(report.damages)} damages in {size}")
    print(f"these are the bytes; what the labels say of the pixels is verified by `stopdown verify {dataset}`")
    raise typer.Exit(0 if report.clean else 1)
