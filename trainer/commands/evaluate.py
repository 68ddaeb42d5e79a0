"""`stopdown evaluate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from generator.commands.options import Json
from trainer.commands import evaluate_options as given
from trainer.commands import generate_options as shared
from trainer.config.requirements import require_training_stack

if TYPE_CHECKING:
    from trainer.evaluation.results import EvaluationReport
    from trainer.evaluation.run import EvaluateRequest


def command(
    adapter: shared.Adapter,
    backbone: shared.Backbone = None,
    out: given.Out = Path("evaluation"),
    prompts: given.PromptFile = None,
    dataset: given.Dataset = None,
    ref: given.Ref = "latest",
    prompts_count: given.PromptsCount = None,
    axis: given.AxisWords = None,
    controls: given.Controls = None,
    seed: given.Seed = None,
    seeds: given.Seeds = None,
    frames: shared.Frames = None,
    width: shared.Width = None,
    height: shared.Height = None,
    steps: shared.Steps = None,
    guidance: shared.Guidance = None,
    control_guidance: shared.ControlGuidance = None,
    text_tokens: shared.TextTokens = None,
    modes: given.ModeWords = None,
    features: given.Features = None,
    text_baseline: given.TextBaseline = True,
    fep: given.FepStep = True,
    fast: given.FormerFast = None,
    adapter_only: given.AdapterOnly = None,
    drift: given.DriftFrom = None,
    dtype: shared.Dtype = None,
    device: shared.Device = None,
    offload: shared.Offload = "none",
    quantize: shared.Quantize = "none",
    batch: given.Batch = None,
    allow_other_backbone: shared.AllowOther = False,
    card: given.Card = False,
    json: Json = False,
) -> None:
    """Measure how well an adapter controls each axis: generate sweeps, read them with the probes, compare with baselines.

    After an interruption, run the same command again. Writes OUT/report.json and OUT/report.html. Exit code 1 if the probes
    could not read any video.
    Example: stopdown evaluate --adapter runs/a/adapter --dataset datasets/shutter --features clip=/models/clip
    """
    require_training_stack()
    from trainer.evaluation.verdict import nothing_read

    if fast is not None:
        word = "fast" if fast else "no-fast"
        print(
            f"stopdown: note: --{word} is --{word.replace('fast', 'fep')} now; the next version will not read the former name",
            file=sys.stderr,
        )

    tree: dict[str, Any] = {"controls": controls, "prompts_count": prompts_count, "seed": seed, "seeds": seeds, "batch": batch}
    tree |= {"frames": frames, "width": width, "height": height, "steps": steps, "guidance": guidance}
    tree |= {
        "control_guidance": control_guidance,
        "text_tokens": text_tokens,
        "text_baseline": text_baseline,
        "fep": fep if fast is None else fast,
        "axes": axis,
        "features": features,
    }
    tree["modes"] = [word.strip() for word in modes.split(",")] if modes else None
    loading = {"backbone": backbone, "dtype": dtype, "device": device, "offload": offload, "quantize": quantize}
    sources = {"prompts": prompts, "dataset": dataset, "ref": ref, "adapter_only": adapter_only, "drift": tuple(drift or ())}
    request = _request(adapter, out, tree, loading | {"allow_other_backbone": allow_other_backbone}, sources)
    report = _run(request, card, _repeated_by(request, tree, loading, card))
    if json:
        print(report.model_dump_json())
    else:
        _show(report, out)
    if nothing_read(report.accuracy, report.main_arm):
        print("stopdown: the probes could read no video of this adapter, so nothing was found out", file=sys.stderr)
        raise typer.Exit(1)


def _request(
    adapter: Path, out: Path, settings: dict[str, Any], loading: dict[str, Any], sources: dict[str, Any]
) -> EvaluateRequest:
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    from generator.recipe.load import validate
    from trainer.adapters.saved import SavedAdapter
    from trainer.backbones.hub import locate_dataset
    from trainer.config.evaluate import EvaluateSettings
    from trainer.evaluation.run import EvaluateRequest
    from trainer.generation.load_pipeline import Loading
    from trainer.training.checkpoints.checkpoint import checkpoint_steps

    told = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items() if value is not None}
    checked = validate(EvaluateSettings, told, "evaluate")
    found = {**sources, "dataset": None if sources["dataset"] is None else locate_dataset(sources["dataset"])}
    found["adapter_only"] = None if sources["adapter_only"] is None else SavedAdapter.open(sources["adapter_only"])
    found["drift"] = tuple(source if checkpoint_steps(source) else SavedAdapter.open(source) for source in sources["drift"])
    return EvaluateRequest(adapter=SavedAdapter.open(adapter), out=out, settings=checked, loading=Loading(**loading), **found)


def _repeated_by(request: EvaluateRequest, settings: dict[str, Any], loading: dict[str, Any], card: bool) -> str:
    """Return the command that was given, without what it says by default."""
    words = ["stopdown", "evaluate", "--adapter", str(request.adapter.folder), "--out", str(request.out)]
    only = None if request.adapter_only is None else request.adapter_only.folder
    sources: dict[str, Any] = {"prompts": request.prompts, "dataset": request.dataset, "adapter_only": only}
    sources["ref"] = request.ref if request.dataset is not None and request.ref != "latest" else None
    plain = {**sources, **{name: value for name, value in loading.items() if value != "none"}, **settings}
    plain["modes"] = ",".join(settings["modes"]) if settings["modes"] else None
    plain["axis"] = plain.pop("axes")
    plain["drift"] = [source if isinstance(source, Path) else source.folder for source in request.drift]
    for name, value in plain.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [] if value else [option.replace("--", "--no-", 1)]
        elif value is not None:
            words += [f"{option}={one}" for one in (value if isinstance(value, list) else [value])]
    words += [*(["--card"] if card else []), *(["--allow-other-backbone"] if request.loading.allow_other_backbone else [])]
    return shlex.join(words)


def _run(request: EvaluateRequest, card: bool, command: str) -> EvaluationReport:
    from generator.versions.working.working_folder import stored_plan
    from trainer.evaluation.results_markdown import put_on_card
    from trainer.evaluation.run import evaluate
    from trainer.generation.video_progress import GenerateProgress
    from trainer.report import ReportParts, write_report
    from trainer.report.page import plotly_source

    plotly_source()  # said now, not after hours
    with GenerateProgress(sys.stderr) as watch:
        try:
            report = evaluate(request, watch)
        except KeyboardInterrupt:
            watch.note(f"videos and readings in {request.out} are kept; run the same command again to go on")
            raise
        watch.note("writing the report")
        dataset = request.dataset
        if dataset is not None and stored_plan(dataset) is None:  # a clone that was never restored, or other people's clips
            watch.note(f"{dataset} has no plan beside its history; the report leaves its plots out")
            dataset = None
        parts = ReportParts(title=request.adapter.name, evaluation=request.out, dataset=dataset, command=command)
        write_report(parts, request.out / "report.html")
    if card:
        put_on_card(request.adapter.folder, report)
    return report


def _show(report: EvaluationReport, out: Path) -> None:
    """Print the verdict and the table of accuracy."""
    from rich.table import Table

    from generator.console.terminal import Console
    from trainer.evaluation.results_markdown import written

    console = Console(highlight=False)
    for line in report.verdict:
        console.print(line, markup=False)
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("arm", "axis", "rho", "slope", "median error", "resolution", "read"):
        table.add_column(column)
    for one in report.accuracy:
        error = written(one.median_error) + (f" {one.unit}" if one.median_error.value is not None else "")
        read = f"{100 * one.share_read:.0f} %"
        table.add_row(one.arm, one.axis, written(one.rho), written(one.slope), error, written(one.resolution), read)
    console.print(table)
    for note in report.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"{out / 'report.json'}: every number\n{out / 'report.html'}: the report", markup=False, soft_wrap=True)
