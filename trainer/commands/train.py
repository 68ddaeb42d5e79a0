"""`stopdown train`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from generator.console.terminal import Console
from trainer.config.requirements import require_training_stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.config.train import TrainSettings
    from trainer.training.dry_run import PackedMemory
    from trainer.training.setup import Opened

RecipeFile = Annotated[Path, typer.Argument(help="A .toml file with a [train] section.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key; repeatable. Example: train.steps=500"),
]


def command(
    recipe: RecipeFile,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; train.out, or runs/RECIPE, if not given.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N; train.device if not given.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, clips, parameters and memory; train nothing.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Train a control adapter on a dataset version. Run the same command again to resume.

    Several GPUs: accelerate launch -m stopdown train RECIPE. Exit code 1 if the loss is NaN or explodes (such a step
    changes no weight), 2 for bad input, 130 if interrupted (a checkpoint is written first).
    """
    require_training_stack()
    from trainer.config.recipe import load_settings

    settings = load_settings(recipe, _all_overrides(overrides or [], device))
    folder = out if out is not None else Path(settings.out or Path("runs") / recipe.stem)
    _train(settings, folder, dry_run)


def _all_overrides(overrides: list[str], device: str | None) -> list[str]:
    return overrides if device is None else [*overrides, f'train.device="{device}"']


def _train(settings: TrainSettings, folder: Path, dry_run: bool) -> None:
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()
    from trainer.methods import METHODS
    from trainer.training.checkpoints.best import best_checkpoints
    from trainer.training.setup import make_accelerator, open_run

    _require_own_folder(settings, folder)
    accelerator = make_accelerator(settings)
    console = Console(quiet=not accelerator.is_main_process)
    opened = open_run(settings, accelerator.device, weightless=dry_run, folder=folder)
    _show_data(console, opened)
    if dry_run:
        _show_dry_run(console, opened)
        return
    step = _run(console, opened, folder, accelerator)
    method = METHODS[settings.method]
    result = folder / method.result
    console.print(f"{result}: {method.name} after {step} steps", markup=False, highlight=False, soft_wrap=True)
    for best in best_checkpoints(folder):
        console.print(best.line(folder), markup=False, highlight=False, soft_wrap=True)
    if method.adapter is not None:
        console.print(f"next: {_next(opened, result)}", markup=False, highlight=False, soft_wrap=True)


def _require_own_folder(settings: TrainSettings, folder: Path) -> None:
    """Refuse a folder with another run's checkpoints before the backbone is loaded; data and backbone are compared later."""
    from trainer.config.train import deciding_settings, require_same
    from trainer.training.checkpoints.checkpoint import latest_identity

    before, now = latest_identity(folder), deciding_settings(settings)
    if before is not None:
        comparable = set(now) - {"adapter.axes"}  # resolved with the dataset
        require_same({key: before.get(key) for key in comparable}, {key: now[key] for key in comparable}, str(folder))


def _run(console: Console, opened: Opened, folder: Path, accelerator: Any) -> int:
    from trainer.training.checkpoints.checkpoint import checkpoint_steps
    from trainer.training.session import run_training

    try:
        return run_training(opened, folder, accelerator, console)
    except KeyboardInterrupt:
        kept = [f"checkpoint-{step}" for step in checkpoint_steps(folder)[-1:]]
        words = f"{folder / kept[0]} is kept: run the same command again to go on" if kept else "there is no checkpoint yet"
        Console(stderr=True, quiet=console.quiet).print(f"interrupted; {words}", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None


def _show_data(console: Console, opened: Opened) -> None:
    data = opened.data
    axes = ", ".join(f"{axis.name} ({axis.format(-1.0)} to {axis.format(1.0)})" for axis in data.axes)
    console.print(
        f"{opened.settings.dataset}, version {data.version_id[:12]}: {len(data.train)} clips to learn from, "
        f"{len(data.validation)} held out" + (f"; {axes}" if axes else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for note in (*data.notes, *opened.notes):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _show_dry_run(console: Console, opened: Opened) -> None:
    """Print what a run would take and do: memory, every setting, what trains."""
    from trainer.config.train import flat
    from trainer.methods import METHODS
    from trainer.training.dry_run import Sizes, memory_by_packing, swap_for_cards, trainable_counts, training_memory

    settings, sizes = opened.settings, Sizes.of(opened)
    if METHODS[settings.method].adapter is not None:
        console.print(f"memory: {training_memory(sizes)}", markup=False, highlight=False, soft_wrap=True)
        for card, (count, memory) in swap_for_cards(sizes).items():
            line = f"on {card} GB: train.backbone.blocks_to_swap = {count} takes {memory}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(_memory_table(memory_by_packing(sizes), settings.backbone.quantization, settings.backbone.offload))
    table = Table("setting", "value", box=None)
    for key, value in flat(settings.model_dump(mode="json", by_alias=True)).items():
        table.add_row(Text(f"train.{key}"), Text(str(value)))
    console.print(table)
    for name, count in trainable_counts(sizes).items():
        console.print(f"trains {count:,} parameters of {name}", highlight=False)


def _memory_table(rows: Sequence[PackedMemory], packing: str, offload: str) -> Table:
    """Return the memory on the device for each packing of the backbone; the recipe's own stands in bold."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("packing", no_wrap=True)
    for name in ("encoding captions", "encoding clips", "training", "training with encoders"):
        table.add_column(name, justify="right")
    for row in rows:
        chosen = row.packing == packing
        cells = [f"{size / 1e9:.1f} GB" for size in (row.captions, row.clips, row.training.total, row.with_encoders)]
        name = f"{row.packing} (the recipe)" if chosen else str(row.packing)
        table.add_row(name, *cells, style="bold" if chosen else "")
    stay = "stay on the device, as backbone.offload = 'none' says" if offload == "none" else "have left the device by then"
    table.caption = f"text encoder and autoencoder {stay}"
    table.caption_justify = "left"
    return table


def _next(opened: Opened, adapter: Path) -> str:
    caption = (opened.data.validation or opened.data.train)[0].caption
    words = ["stopdown", "generate", "--adapter", str(adapter), "--prompt", caption]
    for axis in opened.data.axes[:1]:
        words += [f"--{axis.name}", f"{axis.format(-1.0)}..{axis.format(1.0)}:5".replace(" ", "")]
    return shlex.join(words)
