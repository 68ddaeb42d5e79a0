"""`stopdown adapter info | extract | convert | merge`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from generator.commands.options import Json
from trainer.config.requirements import require_training_stack

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show an adapter, copy it from a checkpoint, convert it between formats, or merge its LoRA into a backbone.",
)

Source = Annotated[
    Path,
    typer.Argument(
        help="An adapter's or checkpoint's folder, a .safetensors file, or owner/name@revision.", show_default=False
    ),
]
Axes = Annotated[
    str | None, typer.Option(help="The axes of a published file, in the order of its scalar: shutter or shutter,temperature.")
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="The control's alpha of a published file (fps_lora_alpha of its TOML, which is read if it is beside the file)."
    ),
]
Expert = Annotated[str | None, typer.Option(help="transformer or transformer_2, if the adapter has both.")]
Preset = Annotated[
    str,
    typer.Option(help="Meaning of the result's scalar: keep, stopdown (+1 is stronger) or published (-1 is stronger)."),
]
AllowOther = Annotated[bool, typer.Option("--allow-other-backbone", help="Use a backbone that the adapter was not trained on.")]


@app.command()
def info(
    adapter: Source,
    axes: Axes = None,
    alpha: Alpha = None,
    json: Json = False,
) -> None:
    """Show what an adapter controls, how, and where it comes from."""
    _prepare()
    from trainer.adapters.conversion.describe import describe
    from trainer.adapters.place import adapter_place

    tree = describe(adapter_place(adapter), _names(axes), alpha)
    if json:
        print(json_module.dumps(tree, indent=2, ensure_ascii=False))
    else:
        _show(tree)


@app.command()
def extract(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, RUN/checkpoint-STEP.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="A new folder for the adapter.", show_default=False)],
) -> None:
    """Copy the adapter of a checkpoint into a separate folder, which training does not remove."""
    _prepare()
    from trainer.adapters.conversion.extract import extract as take_out
    from trainer.weights.full_disk import full_disk_in_words

    with full_disk_in_words(out, "free some and run the same command again"):
        card = take_out(checkpoint, out)
    print(f'{out}: the adapter after {card.step} steps\nnext: stopdown generate --adapter {out} --prompt "…"')


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(help="The new file; a new folder for diffusers.", show_default=False)],
    to: Annotated[str, typer.Option(help="diffusers (an adapter's folder), comfyui or published.", show_default=False)],
    preset: Preset = "keep",
    axes: Axes = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="The backbone of the new adapter: hub id, owner/name@revision, folder or tiny."),
    ] = None,
    expert: Expert = None,
    alpha: Alpha = None,
    json: Json = False,
) -> None:
    """Write an adapter in another program's format, and name what that format cannot hold. Nothing is overwritten."""
    _prepare()
    from dataclasses import asdict

    from trainer.adapters.conversion.convert import convert as write
    from trainer.adapters.conversion.convert_lora import ORIGIN, convert_lora
    from trainer.adapters.conversion.sources import is_other_lora, read_source
    from trainer.adapters.place import adapter_place

    source = adapter_place(source)
    if axes is None and alpha is None and is_other_lora(source):
        origin = ORIGIN
        done = convert_lora(source, target, to, preset=preset, backbone=backbone, expert=expert or "transformer")
    else:
        made_of = read_source(source, axes=_names(axes), expert=expert if source.is_dir() else None, alpha=alpha)
        origin = str(made_of.format)
        done = write(made_of, target, to, preset=preset, backbone=backbone, expert=expert or "transformer")
    if json:
        print(json_module.dumps(asdict(done), default=str))
        return
    print(f"{done.path}: {done.tensors} tensors as {done.format}, from {origin}")
    for words in done.notes:
        print(f"note: {words}")
    for words in done.left_out:
        print(f"not in it: {words}")
    if done.settings:
        print("the method's code reads the rest from its TOML; give it these lines:")
        for line in done.settings:
            print(f"    {line}")


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="The adapter's folder, or a checkpoint's.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for the merged backbone.", show_default=False)],
    backbone: Annotated[
        str | None,
        typer.Option(help="Hub id, owner/name@revision, folder or tiny; the one that the adapter was trained on if not given."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="decoupled (conditioned blocks), joint or lora_only (all blocks); its default if not given."),
    ] = None,
    strength: Annotated[float, typer.Option(help="Scale of the merged LoRA.")] = 1.0,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32: the number format of the merged weights.")] = "fp32",
    allow_other_backbone: AllowOther = False,
    json: Json = False,
) -> None:
    """Fold an adapter's LoRA into a backbone's weights: a WanPipeline folder, and in it a control-only adapter for it."""
    _prepare()
    from dataclasses import asdict

    from trainer.adapters.merge import merge as fold
    from trainer.adapters.saved import SavedAdapter
    from trainer.backbones.load import load_backbone
    from trainer.generation.load_pipeline import checked_dtype

    saved = SavedAdapter.open(adapter)
    name = backbone if backbone is not None else saved.card.backbone.id
    pipe = load_backbone(name, dtype=checked_dtype(dtype))
    done = fold(pipe, saved, out, backbone=name, mode=mode, strength=strength, allow_other_backbone=allow_other_backbone)
    if json:
        print(json_module.dumps(asdict(done), default=str))
        return
    blocks = ", ".join(map(str, done.blocks))
    print(f"{done.backbone}: {done.projections} projections of blocks {blocks} changed ({done.mode}, strength {strength:g})")
    if done.adapter is not None:
        at = "" if strength == 1 else f" --strength {strength:g}"
        print(f'control: {done.adapter}\nnext: stopdown generate --adapter {done.adapter} --prompt "…"{at}')


def _prepare() -> None:
    require_training_stack()
    from trainer.commands.quiet import quiet_libraries

    quiet_libraries()


def _names(written: str | None) -> list[str] | None:
    return None if written is None else [name.strip() for name in written.split(",")]


def _show(tree: dict[str, Any]) -> None:
    from generator.console.terminal import Console

    console = Console(highlight=False)
    console.print(_facts(tree))
    if tree["axes"]:
        console.print()
        console.print(_axes(tree["axes"]))


def _facts(tree: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in tree.items():
        if name != "axes" and value is not None:
            table.add_row(name.replace("_", " "), Text(_words(value)))
    return table


def _axes(axes: list[dict[str, str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in axes[0]:
        table.add_column(column)
    for axis in axes:
        table.add_row(*axis.values())
    return table


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
