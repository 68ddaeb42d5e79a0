"""Speed and memory of a training step: steps/s, video tokens/s, peak memory, utilisation of the device's bf16 peak.

Backbones of true size with random weights, the adapter of DESIGN section 4 (control adapter and LoRA, float32 under bf16
autocast), 512 x 512 pixels, 512 text tokens. On the CPU a step's time is the process's CPU time. Operations come from the
formula in trainer/estimates/flops.py: MFU counts what the step needs, HFU also what gradient checkpointing computes again.
Targets on one H100: MFU of 40 % for 1.3B, 14B at batch 1 in 80 GB.

On one H100, about 15 minutes:

    python benchmarks/train_step.py --backbones wan2.1-t2v-1.3b wan2.1-t2v-14b --frames 1 5 9 \
        --checkpointing off on --compile off on --quantization none fp8 nf4 --out benchmarks/results/train_step_h100

Without a GPU the tiny backbone is measured, and the report says what is not. Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from rich.console import Console
from rich.table import Table
from step_parts import (
    BACKBONES,
    Step,
    device_name,
    device_peak,
    latent_size,
    random_backbone,
    reference_adapter,
    reference_config,
    seconds,
)

from scenes.errors import InputError
from trainer.backbones.quantize import check_quantization, quantize_in_place
from trainer.estimates.flops import PEAKS, Shape, step_flops
from trainer.estimates.footprint import estimate_memory

RESULTS = Path(__file__).parent / "results"
WANTED = ("wan2.1-t2v-1.3b", "wan2.1-t2v-14b")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One combination to measure."""

    backbone: str
    frames: int
    checkpointing: bool
    compile: bool
    quantization: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured combination; `failed` says why there are no numbers, None in a column means not measured."""

    case: Case
    tokens: int
    step_s: float | None = None
    steps_per_s: float | None = None
    tokens_per_s: float | None = None
    model_tflop: float | None = None
    mfu: float | None = None
    hfu: float | None = None
    peak_memory_gb: float | None = None
    failed: str | None = None


def main() -> None:
    """Measure every combination, print and write the table."""
    options = _options()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    peak, source = device_peak(device)
    rows = []
    for backbone, frames, checkpointing, compiled, quantization in itertools.product(
        options.backbones, options.frames, options.checkpointing, options.compile, options.quantization
    ):
        case = Case(
            backbone=backbone, frames=frames, checkpointing=checkpointing == "on", compile=compiled == "on",
            quantization=quantization,
        )  # fmt: skip
        rows.append(measure(case, device, peak, options))
        Console(stderr=True, soft_wrap=True).print(f"{case}: {_number(rows[-1].step_s, 3)} s", highlight=False)
    report = {
        "device": device_name(device),
        "torch": torch.__version__,
        "peak_flops": peak,
        "peak_source": source,
        "pixels": [options.height, options.width],
        "batch": options.batch,
        "unmeasured": unmeasured(options.backbones, device),
        "estimates": estimates(options),
        "rows": [asdict(row) for row in rows],
    }
    Console(width=150).print(table(rows))
    for line in report["unmeasured"]:
        Console().print(f"unmeasured: {line}", highlight=False)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    options.out.with_suffix(".md").write_text(markdown(report, rows))


def measure(case: Case, device: torch.device, peak: float | None, options: argparse.Namespace) -> Row:
    """Measure one combination in a fresh model; running out of memory is a result."""
    size = latent_size(case.backbone, batch=options.batch, frames=case.frames, height=options.height, width=options.width)
    tokens = size[2] * (size[3] // 2) * (size[4] // 2)
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        step, shape, adapter = _prepare(case, device, size)
        for _ in range(options.warmup):
            step()
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        step_s = statistics.median(seconds(step, clock) for _ in range(options.steps))
    except (torch.cuda.OutOfMemoryError, InputError) as error:
        return Row(case=case, tokens=tokens, failed=str(error).splitlines()[0][:120])
    count = step_flops(shape, adapter, tokens=tokens, batch=options.batch, checkpointing=case.checkpointing)
    return Row(
        case=case,
        tokens=tokens,
        step_s=step_s,
        steps_per_s=1 / step_s,
        tokens_per_s=options.batch * tokens / step_s,
        model_tflop=count.model / 1e12,
        mfu=count.model / step_s / peak if peak else None,
        hfu=count.hardware / step_s / peak if peak else None,
        peak_memory_gb=torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
    )


def _prepare(case: Case, device: torch.device, size: tuple[int, ...]):  # type: ignore[no-untyped-def]
    """Return a step, the backbone's sizes and the adapter's configuration."""
    kind = check_quantization(case.quantization, device, compiled=case.compile)
    transformer = random_backbone(case.backbone, device)
    shape = Shape.of(transformer)
    quantize_in_place(transformer, kind)
    adapter = reference_adapter(transformer, "joint")
    transformer.train()
    if case.checkpointing:
        transformer.enable_gradient_checkpointing()
    if case.compile:
        transformer.compile_repeated_blocks()
    return Step(adapter, size_BCTHW=size, per_token_times=BACKBONES[case.backbone].expand_timesteps), shape, adapter.config


def unmeasured(backbones: list[str], device: torch.device) -> list[str]:
    """Say what a run leaves open."""
    missing = [f"{name} (not among --backbones)" for name in WANTED if name not in backbones]
    if device.type != "cuda":
        missing += ["peak memory, and every figure of a GPU (no CUDA device was used)"]
    return missing


def estimates(options: argparse.Namespace) -> list[dict[str, object]]:
    """Return what formulas say of the wanted backbones at 9 frames with gradient checkpointing; nothing here is measured."""
    found: list[dict[str, object]] = []
    for name in WANTED:
        config = BACKBONES[name].transformer_arguments()
        size = latent_size(name, batch=options.batch, frames=9, height=options.height, width=options.width)
        tokens = size[2] * (size[3] // 2) * (size[4] // 2)
        with torch.device("meta"):
            shape = Shape.of(WanTransformer3DModel(**config))
        adapter = reference_config(shape.layers)
        step = step_flops(shape, adapter, tokens=tokens, batch=options.batch, checkpointing=True)
        for kind in ("none", "fp8", "nf4"):
            memory = estimate_memory(config, adapter, tokens=tokens, batch=options.batch, quantization=kind)
            row = {"backbone": name, "weights": kind, "memory_gb": memory.total / 1e9, "model_tflop": step.model / 1e12}
            found.append(row | {"h100_step_s_at_40_percent": step.model / (0.4 * PEAKS["H100"])})
    return found


def table(rows: list[Row]) -> Table:
    """Return the rows as a table for a terminal."""
    shown = Table(*COLUMNS)
    for row in rows:
        shown.add_row(*_cells(row))
    return shown


COLUMNS = ("backbone", "frames", "tokens", "ckpt", "compile", "weights", "s/step", "tokens/s", "TFLOP", "MFU", "HFU", "peak GB")


def _cells(row: Row) -> list[str]:
    case = row.case
    flags = ["yes" if flag else "no" for flag in (case.checkpointing, case.compile)]
    numbers = [_number(row.step_s, 3), _number(row.tokens_per_s, 0), _number(row.model_tflop, 3)]
    shares = [_percent(row.mfu), _percent(row.hfu), _number(row.peak_memory_gb, 1)]
    tail = numbers + shares if row.failed is None else [row.failed, *["-"] * 5]
    return [case.backbone, str(case.frames), str(row.tokens), *flags, case.quantization, *tail]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def markdown(report: dict, rows: list[Row]) -> str:
    """Return the report as a Markdown page."""
    height, width = report["pixels"]
    lines = [
        f"# A training step on {report['device']}",
        "",
        f"torch {report['torch']}, batch {report['batch']}, {width}x{height} pixels, control adapter and LoRA (rank 32), bf16.",
        f"Peak: {_number((report['peak_flops'] or 0) / 1e12, 3)} TFLOP/s ({report['peak_source']}). `-` is unmeasured.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(_cells(row)) + " |" for row in rows),
        "",
        *(f"Unmeasured: {line}." for line in report["unmeasured"]),
        "",
        "By formula, not measured (9 frames, gradient checkpointing):",
        "",
        "| backbone | weights | memory GB | TFLOP a step | s/step of an H100 at 40 % |",
        "|---|---|---|---|---|",
        *(
            f"| {row['backbone']} | {row['weights']} | {row['memory_gb']:.1f} | {row['model_tflop']:.1f} | "
            f"{row['h100_step_s_at_40_percent']:.2f} |"
            for row in report["estimates"]
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _options() -> argparse.Namespace:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=list(BACKBONES), default=list(WANTED) if cuda else ["tiny-random"])
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 5, 9])
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--checkpointing", nargs="+", choices=["off", "on"], default=["off", "on"])
    parser.add_argument("--compile", nargs="+", choices=["off", "on"], default=["off"])
    parser.add_argument("--quantization", nargs="+", default=["none"])
    parser.add_argument("--steps", type=int, default=5, help="timed steps, of which the median counts")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / ("train_step_gpu" if cuda else "train_step_cpu"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
