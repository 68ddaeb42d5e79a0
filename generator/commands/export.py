"""`stopdown export`."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from generator.commands.options import Json
from generator.export import EXPORTS
from generator.export.base import ExportOptions
from generator.export.run import ExportReport, export
from generator.export.source import source_of
from generator.pairs.dataset_pairs import PAIR_KINDS
from scenes.errors import InputError


def command(
    dataset: Annotated[Path | None, typer.Argument(help="The dataset's folder.", show_default=False)] = None,
    format: Annotated[str | None, typer.Argument(help="The format; `--list` shows all.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Argument(help="The export's folder, new or empty.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="The format's preset, such as how a control is written.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="The kind of pairs that format `pairs` holds; `--list` shows all.", show_default=False)
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option(help="A version (id, tag, latest~1); what the folder shows if not given."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="One split, or all; if not given, train, or all for formats that hold splits.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Export only this many clips, the first ones.")] = None,
    root: Annotated[str, typer.Option(help="Path of OUT on the training machine, for the trainer's configuration.")] = ".",
    license: Annotated[str | None, typer.Option(help="SPDX identifier of the licence you choose, such as CC-BY-4.0.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy clips, also if hard links are possible.")] = False,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats and their presets.")] = False,
    json: Json = False,
) -> None:
    """Export a dataset in a layout that a trainer or loader reads. After an interruption, run it again to resume."""
    if list_formats:
        _list(json)
        return
    if dataset is None or format is None or out is None:
        raise InputError(
            "give DATASET FORMAT OUT, such as `stopdown export my-dataset videofolder out`; --list shows the formats"
        )
    options = ExportOptions(preset=preset, pairs=pairs, split=split, limit=limit, root=root, copy=copy)
    source, words = source_of(dataset, ref, license)
    if words:
        print(f"stopdown: {words}", file=sys.stderr)
    report = export(source, format, out, options)
    print(json_module.dumps(_tree(report)) if json else _words(report))


def _list(json: bool) -> None:
    if json:
        tree = {
            name: {"summary": format.summary, "presets": dict(format.presets or {})}
            | ({"pairs": {kind: one.summary for kind, one in PAIR_KINDS.items()}} if format.takes_pairs else {})
            for name, format in EXPORTS.items()
        }
        print(json_module.dumps(tree))
        return
    for name, exporter in EXPORTS.items():
        print(f"{name:15} {exporter.summary}")
        for preset, words in (exporter.presets or {}).items():
            print(f"{'':15}   --preset {preset}: {words}")
        for kind, pair_kind in PAIR_KINDS.items() if exporter.takes_pairs else ():
            print(f"{'':15}   --pairs {kind}: {pair_kind.summary}")


def _tree(report: ExportReport) -> dict[str, object]:
    counts = {key: value for key, value in asdict(report.written).items() if key not in ("facts", "before")}
    return {
        "path": str(report.path),
        "format": report.format,
        "clips": report.clips,
        "files": len(report.written.facts),
        **counts,
        "left_out": report.left_out,
        "usage": report.usage,
        "notes": list(report.notes),
    }


def _words(report: ExportReport) -> str:
    done = report.written
    parts = [
        f"{count} {word}" for word, count in (("linked", done.linked), ("copied", done.copied), ("made", done.made)) if count
    ]
    parts += [f"{done.kept} were there"] if done.kept else []
    lines = [f"{report.path}: {report.clips} clips as {report.format}, {len(done.facts)} files ({', '.join(parts)})"]
    if report.left_out:
        rest = ", ".join(f"{count} clips of {name}" for name, count in report.left_out.items())
        lines.append(f"left out: {rest}; --split all takes everything")
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join([*lines, f"next: {report.usage}"])
