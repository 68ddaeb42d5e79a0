"""The options of `stopdown generate`; those of the axes are made from `AXES`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from scenes.axes import AXES, Axis

PROMPTS, VALUES, SAMPLING, MACHINE = "What to show", "Control", "Sampling", "Machine"

Adapter = Annotated[
    Path, typer.Option(help="The adapter's folder, a checkpoint's, or owner/name@revision on the hub.", show_default=False)
]
Backbone = Annotated[
    str | None,
    typer.Option(help="Hub id, owner/name@revision, folder or tiny; the one that the adapter was trained on if not given."),
]
Out = Annotated[Path, typer.Option(help="The folder of videos, records and grid; finished videos in it are kept.")]

PromptWords = Annotated[
    list[str] | None, typer.Option("--prompt", help="What the video shows; repeatable.", rich_help_panel=PROMPTS)
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="File of prompts: .txt (one per line), .jsonl or .toml.", rich_help_panel=PROMPTS),
]
Negative = Annotated[str, typer.Option(help="What the video should not show.", rich_help_panel=PROMPTS)]
Seed = Annotated[int, typer.Option(help="Seed of the noise, which all values of a sweep share.", rich_help_panel=PROMPTS)]
Seeds = Annotated[int, typer.Option(help="Number of seeds, counting up from --seed.", rich_help_panel=PROMPTS)]

Control = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[AXIS=]VALUES",
        help="Normalised controls instead of units: 0.7, shutter=0.7, shutter=-1..1:5; repeatable.",
        rich_help_panel=VALUES,
    ),
]
Zip = Annotated[
    bool, typer.Option("--zip", help="Pair the values of several axes instead of crossing them.", rich_help_panel=VALUES)
]
Limit = Annotated[
    float | None,
    typer.Option(
        help="Refuse controls above +LIMIT or below -LIMIT; 1 is the trained range; no limit if not given.",
        rich_help_panel=VALUES,
    ),
]
ModeWords = Annotated[
    list[str] | None,
    typer.Option(
        "--mode",
        help="decoupled, joint, control_only, lora_only or backbone_only; repeatable, for rows side by side. "
        "The adapter's own default if not given.",
        rich_help_panel=VALUES,
    ),
]
Strength = Annotated[
    float, typer.Option(help="Scale of the adapter's whole effect; 0 is the backbone alone.", rich_help_panel=VALUES)
]

FROM_BACKBONE = "the backbone's usual one if not given"
Frames = Annotated[int | None, typer.Option(help=f"Number of frames, 4n + 1; {FROM_BACKBONE}.", rich_help_panel=SAMPLING)]
Width = Annotated[int | None, typer.Option(help=f"Width in pixels; {FROM_BACKBONE}.", rich_help_panel=SAMPLING)]
Height = Annotated[int | None, typer.Option(help=f"Height in pixels; {FROM_BACKBONE}.", rich_help_panel=SAMPLING)]
Fps = Annotated[int, typer.Option(help="Frames per second of the files; exposures are meant for 16.", rich_help_panel=SAMPLING)]
Steps = Annotated[int | None, typer.Option(help=f"Denoising steps; {FROM_BACKBONE}.", rich_help_panel=SAMPLING)]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance, 1 for none; 5 if not given.", rich_help_panel=SAMPLING)
]
ControlGuidance = Annotated[
    float | None,
    typer.Option(
        help="Factor on the learned effect of the control: above 1 exaggerates it; 1 if not given.",
        rich_help_panel=SAMPLING,
    ),
]
TextTokens = Annotated[
    int | None, typer.Option(help="Number of text tokens; as in training, or else 512, if not given.", rich_help_panel=SAMPLING)
]

Scheduler = Annotated[str | None, typer.Option(help=f"unipc, dpm++, euler or lcm; {FROM_BACKBONE}.", rich_help_panel=SAMPLING)]
FlowShift = Annotated[
    float | None,
    typer.Option(
        help=f"Shift of the noise levels: larger values spend more steps at high noise; {FROM_BACKBONE}.",
        rich_help_panel=SAMPLING,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE[:WEIGHT]",
        help="Another program's LoRA beside the adapter (musubi, kohya, ComfyUI, DiffSynth, peft, diffusers); repeatable, "
        "and transformer_2=FILE for one of two experts.",
        rich_help_panel=SAMPLING,
    ),
]

Dtype = Annotated[
    str | None,
    typer.Option(
        help="Number format: bf16, fp16 or fp32; bf16 on a GPU and fp32 on the CPU if not given.", rich_help_panel=MACHINE
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; a GPU, if there is one, if not given.", rich_help_panel=MACHINE)
]
Offload = Annotated[
    str,
    typer.Option(
        help="Keep weights in main memory until they are used: none, model, group (one block at a time) or sequential.",
        rich_help_panel=MACHINE,
    ),
]
Quantize = Annotated[
    str,
    typer.Option(
        help="Number format of the frozen backbone's weights: none (as in --dtype), fp8 or nf4.", rich_help_panel=MACHINE
    ),
]
Batch = Annotated[int, typer.Option(help="Number of videos that are generated at once.", rich_help_panel=MACHINE)]
AllowOther = Annotated[
    bool,
    typer.Option("--allow-other-backbone", help="Use a backbone that the adapter was not trained on.", rich_help_panel=MACHINE),
]
Force = Annotated[bool, typer.Option("--force", help="Generate all videos again, and replace existing ones.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be generated; load no backbone.")]


def with_axis_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each axis before its `--control`; its `**axes` then holds what was written, by axis."""
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    mine = [inspect.Parameter(name, keyword, default=None, annotation=_option(axis)) for name, axis in AXES.items()]
    options: list[inspect.Parameter] = []
    for one in signature.parameters.values():
        if one.kind is not inspect.Parameter.VAR_KEYWORD:
            options += [*(mine if one.name == "control" else ()), one.replace(kind=keyword)]
    command.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in options}
    return command


def _option(axis: Axis) -> Any:
    sharp, neutral, strong = (axis.format(axis.default_law.value(control)).replace(" ", "") for control in (-1.0, 0.0, 1.0))
    words = f"{axis.plural}: {neutral}, a list {sharp},{neutral},{strong}, a sweep {sharp}..{strong}:7 or a curve over the "
    words += f"video {sharp}@0s {strong}@0.5s."
    return Annotated[
        str | None, typer.Option(f"--{axis.name.replace('_', '-')}", metavar="VALUES", help=words, rich_help_panel=VALUES)
    ]
