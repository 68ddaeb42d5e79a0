"""The plan of a run or a comparison as a table: what each stage does, what it costs, and whether it is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from generator.console.terminal import Console
from generator.recipe.plan import layer_counts
from trainer.comparison.grid_runs import Sweep
from trainer.comparison.run_grid import GridRun
from trainer.config.train import TrainSettings
from trainer.runs.before_rendering import check_before_rendering
from trainer.runs.expect import MEASURED, ExpectedCost, expect, expected_videos
from trainer.runs.run_stages import REPORT, RunContext
from trainer.runs.stage_runner import read_state

RECKONED = (
    f"time is known for backbone {MEASURED} only; that of train, generate and evaluate is reckoned from operations, for one "
    "{card} at {share:.0%} of its peak"
)


def show_plan(context: RunContext, console: Console) -> None:
    """Print the stages of a run; raises InputError for what would end it after its dataset is rendered."""
    check_before_rendering(context.recipe, context.dataset)
    done = read_state(context.folder).stages
    expected = _expected(context)
    large = _is_large(context)
    heads = ("stage", "what", "one core", *(["one GPU"] if large else []), "disk", "before")
    table = Table(box=None, header_style="dim", pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for name, words in _stages(context).items():
        one = expected[name]
        before = f"done in {done[name].wall_s:.0f} s" if name in done else "not done"
        gpu = ([_time(one.gpu_s)] if one.gpu_s is not None else [""]) if large else []
        table.add_row(*map(Text, (name, words, _time(one.cpu_s), *gpu, _size(one.size_bytes), before)))
    console.print(table)
    if large:
        _show_training(context, console)
    console.print(_whole(expected))


def _show_training(context: RunContext, console: Console) -> None:
    """Print what decides the training, and the memory that it takes."""
    from trainer.runs.expect_large import CARD, SHARE, sizes_of
    from trainer.training.dry_run import training_memory

    train = context.recipe.train(context.dataset, "latest", context.folder / "train")
    console.print(f"training: {settings_line(train)}", markup=False, soft_wrap=True)
    console.print(f"memory in training: {training_memory(sizes_of(context.recipe, train))}", markup=False, soft_wrap=True)
    console.print(RECKONED.format(card=CARD, share=SHARE), markup=False, soft_wrap=True)


def settings_line(train: TrainSettings) -> str:
    """Return what decides a training, in a line."""
    own, adapter = train.optimizer, train.adapter
    return (
        f"{own.name}, learning rate {own.learning_rate:g}, betas {own.betas[0]:g} and {own.betas[1]:g}, weight decay "
        f"{own.weight_decay:g}, {own.warmup_steps} warm-up steps, {train.batch_size} x {train.accumulation} clips a step, "
        f"rank {adapter.rank}, LoRA rank {adapter.lora_rank}, {train.precision} on {train.backbone.dtype} weights, "
        f"gradient checkpointing {'on' if train.gradient_checkpointing else 'off'}"
    )


def show_comparison(sweep: Sweep, cells: Sequence[GridRun], console: Console) -> None:
    """Print the runs of a comparison and what they take together; runs of one fidelity share its dataset."""
    table = Table("run", "data", "training", "videos", "one core", "before", box=None, header_style="dim", pad_edge=False)
    whole: dict[str, list[ExpectedCost]] = defaultdict(list)
    built: set[str] = set()
    checked: set[tuple[str, str]] = set()  # cells that differ in seeds alone are refused alike
    for cell in cells:
        context = sweep.context(cell)
        if (cell.fidelity, cell.trained) not in checked:
            check_before_rendering(context.recipe, context.dataset)
            checked.add((cell.fidelity, cell.trained))
        expected = dict(_expected(context))
        done = read_state(context.folder).stages
        clips = sum(count for *_, count in layer_counts(cell.recipe.dataset))
        data = f"{clips} {cell.fidelity} clips"
        if cell.fidelity in built:
            data, expected["build"] = "the same", ExpectedCost(cpu_s=0.0, size_bytes=0)
        built.add(cell.fidelity)
        for name, one in expected.items():
            whole[name].append(one)
        seconds = _sum([one.cpu_s for one in expected.values()])
        steps = f"{cell.recipe.tree['train'].get('steps', 'the default')} steps, {cell.trained}"
        before = f"{next(reversed(done))} done" if done else "not done"
        table.add_row(*map(Text, (cell.name, data, steps, str(expected_videos(cell.recipe)), _time(seconds), before)))
    console.print(table)
    sums = {
        name: ExpectedCost(
            cpu_s=_sum([one.cpu_s for one in found]),
            size_bytes=sum(one.size_bytes or 0 for one in found),
            gpu_s=sum(one.gpu_s or 0.0 for one in found) or None,
        )
        for name, found in whole.items()
    }
    console.print(", ".join(f"{name} {_time(one.cpu_s)}" for name, one in sums.items() if one.cpu_s is None or one.cpu_s >= 30))
    console.print(_whole(sums))


def _stages(context: RunContext) -> dict[str, str]:
    recipe = context.recipe
    settings = recipe.train(context.dataset, "latest", context.folder / "train")
    clips = sum(count for *_, count in layer_counts(recipe.dataset))
    return {
        "build": f"{clips} clips in {context.dataset}",
        "verify": "every label, by its probe",
        "version": f"tag {context.tag}",
        "train": f"{settings.steps} steps of {settings.batch_size} x {settings.accumulation} clips on {settings.backbone.name}",
        "generate": f"up to {expected_videos(recipe)} videos",
        "evaluate": f"their probes, {', '.join(recipe.evaluate.features)} features",
        "report": str(context.folder / REPORT),
    }


def _is_large(context: RunContext) -> bool:
    """Whether nothing was measured on the recipe's backbone, so that operations are counted."""
    return context.recipe.train(context.dataset, "latest", context.folder / "train").backbone.name != MEASURED


def _expected(context: RunContext) -> Mapping[str, ExpectedCost]:
    train = context.recipe.train(context.dataset, "latest", context.folder / "train")
    found = expect(context.recipe, train)
    if train.backbone.name == MEASURED:
        return found
    from trainer.runs.expect_large import expect_large, sizes_of  # which needs torch

    return found | expect_large(context.recipe, train, sizes_of(context.recipe, train))


def _whole(expected: Mapping[str, ExpectedCost]) -> str:
    seconds = _sum([one.cpu_s for one in expected.values()])
    size = sum(one.size_bytes or 0 for one in expected.values())
    gpu = sum(one.gpu_s or 0.0 for one in expected.values())
    beside = f", {_time(gpu)} on one GPU" if gpu else ""
    return f"in all about {_time(seconds)} on one core{beside} and {_size(size)} on the disk"


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 5400:
        return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return ""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.1f} GB"
