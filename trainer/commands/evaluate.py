"""`stopdown evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generator.commands.options import Json
from trainer.requirements import require_training_stack

if TYPE_CHECKING:
    from trainer.evaluation.results import EvaluationReport
    from trainer.evaluation.run import EvaluateRequest

PROMPTS, SWEEPS, COMPARE, MACHINE = "Prompts", "Sweeps", "What to compare", "Machine"
MORE = "the backbone's usual ones if not given"


def command(
    adapter: Annotated[Path, typer.Option(help="The adapter's folder.", show_default=False)],
    backbone: Annotated[
        str | None, typer.Option(help="Hub id, folder, tiny or tiny-random; the adapter's own if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of videos, readings and report; finished ones are kept.")] = Path(
        "evaluation"
    ),
    prompts: Annotated[Path | None, typer.Option(help="A .txt, .jsonl or .toml file.", rich_help_panel=PROMPTS)] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="A dataset: captions of its held-out scenes.", rich_help_panel=PROMPTS)
    ] = None,
    ref: Annotated[str, typer.Option(help="Version or tag of the dataset.", rich_help_panel=PROMPTS)] = "latest",
    prompts_count: Annotated[int | None, typer.Option(help="Prompts at most, 32.", rich_help_panel=PROMPTS)] = None,
    axis: Annotated[
        list[str] | None, typer.Option(help="Axis to sweep; repeatable. All if not given.", rich_help_panel=SWEEPS)
    ] = None,
    controls: Annotated[
        str | None, typer.Option(help="LOW..HIGH:COUNT or a list; -1.5..1.5:7.", rich_help_panel=SWEEPS)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="First seed of the noise.", rich_help_panel=SWEEPS)] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds for each prompt, 1.", rich_help_panel=SWEEPS)] = None,
    frames: Annotated[int | None, typer.Option(help=f"Frames, 4n+1; {MORE}.", rich_help_panel=SWEEPS)] = None,
    width: Annotated[int | None, typer.Option(help=f"Pixels; {MORE}.", rich_help_panel=SWEEPS)] = None,
    height: Annotated[int | None, typer.Option(help=f"Pixels; {MORE}.", rich_help_panel=SWEEPS)] = None,
    steps: Annotated[int | None, typer.Option(help=f"Denoising steps; {MORE}.", rich_help_panel=SWEEPS)] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance.", rich_help_panel=SWEEPS)] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Text tokens; as in training.", rich_help_panel=SWEEPS)] = None,
    modes: Annotated[str | None, typer.Option(help="decoupled,joint,lora_only,backbone_only", rich_help_panel=COMPARE)] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="clip[=PATH], xclip[=PATH], or tiny for the backbone's own; repeatable. clip and xclip if not given.",
            rich_help_panel=COMPARE,
        ),
    ] = None,
    text_baseline: Annotated[
        bool, typer.Option("--text-baseline/--no-text-baseline", help="Compare with words.", rich_help_panel=COMPARE)
    ] = True,
    fast: Annotated[
        bool, typer.Option("--fast/--no-fast", help="Drift from the backbone in one step.", rich_help_panel=COMPARE)
    ] = True,
    adapter_only: Annotated[
        Path | None, typer.Option(help="An adapter trained without LoRA, to compare.", rich_help_panel=COMPARE)
    ] = None,
    drift: Annotated[
        list[Path] | None,
        typer.Option(
            help="A training run with checkpoints, or an adapter of another step; repeatable.", rich_help_panel=COMPARE
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32.", rich_help_panel=MACHINE)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel=MACHINE)] = None,
    offload: Annotated[str, typer.Option(help="none, model or sequential.", rich_help_panel=MACHINE)] = "none",
    quantize: Annotated[str, typer.Option(help="none, fp8 or nf4.", rich_help_panel=MACHINE)] = "none",
    batch: Annotated[int | None, typer.Option(help="Videos at a time.", rich_help_panel=MACHINE)] = None,
    allow_other_backbone: Annotated[
        bool, typer.Option("--allow-other-backbone", help="Not the backbone it was trained on.", rich_help_panel=MACHINE)
    ] = False,
    json: Json = False,
) -> None:
    """Measure what an adapter controls: sweeps of every axis, read by the probes that proved the data, against baselines.

    Run the same command again to go on after an interruption. Writes OUT/report.json and OUT/report.html.
    Example: stopdown evaluate --adapter runs/a/adapter --dataset datasets/shutter --features clip=/models/clip
    """
    require_training_stack()
    given = {
        "axes": tuple(axis) if axis else None,
        "controls": controls,
        "prompts_count": prompts_count,
        "seed": seed,
        "seeds": seeds,
        "modes": tuple(word.strip() for word in modes.split(",")) if modes else None,
        "features": tuple(features) if features else None,
        "frames": frames,
        "width": width,
        "height": height,
        "steps": steps,
        "guidance": guidance,
        "text_tokens": text_tokens,
        "batch": batch,
    }
    tree = {name: value for name, value in given.items() if value is not None}
    tree |= {"text_baseline": text_baseline, "fast": fast}
    loading = {"backbone": backbone, "dtype": dtype, "device": device, "offload": offload, "quantize": quantize}
    sources = {"prompts": prompts, "dataset": dataset, "ref": ref, "adapter_only": adapter_only, "drift": tuple(drift or ())}
    request = _request(adapter, out, tree, loading | {"allow_other_backbone": allow_other_backbone}, sources)
    report = _run(request)
    if json:
        print(report.model_dump_json())
    else:
        _show(report, out)


def _request(
    adapter: Path, out: Path, settings: dict[str, Any], loading: dict[str, Any], sources: dict[str, Any]
) -> EvaluateRequest:
    from generator.recipe_io import validate
    from trainer.evaluation.run import EvaluateRequest
    from trainer.evaluation.settings import EvaluateSettings
    from trainer.generation.load import Loading

    checked = validate(EvaluateSettings, settings, "evaluate")
    return EvaluateRequest(adapter=adapter, out=out, settings=checked, loading=Loading(**loading), **sources)


def _run(request: EvaluateRequest) -> EvaluationReport:
    from trainer.commands.generate_progress import GenerateProgress
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    from trainer.evaluation.run import evaluate
    from trainer.report import ReportParts, write_report

    with GenerateProgress(sys.stderr) as watch:
        try:
            report = evaluate(request, watch)
        except KeyboardInterrupt:
            watch.note(f"videos and readings in {request.out} are kept; run the same command again to go on")
            raise
        watch.note("writing the report")
        parts = ReportParts(title=request.adapter.resolve().name, evaluation=request.out, dataset=request.dataset)
        write_report(parts, request.out / "report.html")
    return report


def _show(report: EvaluationReport, out: Path) -> None:
    """Print the verdict and the table of accuracy."""
    from rich.console import Console
    from rich.table import Table

    from trainer.evaluation.card import written

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
