"""The options of `stopdown evaluate` that `stopdown generate` does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PROMPTS, SWEEPS, COMPARE = "Prompts", "Sweeps", "What to compare"

Out = Annotated[Path, typer.Option(help="The folder of videos, readings and report; finished videos in it are kept.")]
Card = Annotated[bool, typer.Option("--card", help="Put the results into the adapter's README.")]

PromptFile = Annotated[
    Path | None, typer.Option(help="File of prompts: .txt (one per line), .jsonl or .toml.", rich_help_panel=PROMPTS)
]
Dataset = Annotated[
    Path | None, typer.Option(help="A dataset; the captions of its held-out scenes are the prompts.", rich_help_panel=PROMPTS)
]
Ref = Annotated[str, typer.Option(help="Version or tag of the dataset.", rich_help_panel=PROMPTS)]
PromptsCount = Annotated[
    int | None, typer.Option(help="At most this many prompts per axis; 32 if not given.", rich_help_panel=PROMPTS)
]

AxisWords = Annotated[
    list[str] | None, typer.Option("--axis", help="Axis to sweep; repeatable. All if not given.", rich_help_panel=SWEEPS)
]
Controls = Annotated[
    str | None,
    typer.Option(help="Controls of a sweep: LOW..HIGH:COUNT or a list; -1.5..1.5:7 if not given.", rich_help_panel=SWEEPS),
]
Seed = Annotated[
    int | None,
    typer.Option(help="First seed of the noise, which all values of a sweep share; 0 if not given.", rich_help_panel=SWEEPS),
]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds per prompt; 1 if not given.", rich_help_panel=SWEEPS)]
Batch = Annotated[
    int | None, typer.Option(help="Number of videos that are generated at once; 1 if not given.", rich_help_panel="Machine")
]

ModeWords = Annotated[
    str | None,
    typer.Option(
        "--modes", help="Inference modes; decoupled,joint,lora_only,backbone_only if not given.", rich_help_panel=COMPARE
    ),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        help="Features: clip[=PATH], xclip[=PATH] or tiny (the backbone's own); repeatable; clip and xclip if not given.",
        rich_help_panel=COMPARE,
    ),
]
TextBaseline = Annotated[
    bool,
    typer.Option(
        "--text-baseline/--no-text-baseline",
        help="Compare with prompts that name the effect in words.",
        rich_help_panel=COMPARE,
    ),
]
FepStep = Annotated[
    bool,
    typer.Option("--fep/--no-fep", help="FEP: distance from the backbone after one denoising step.", rich_help_panel=COMPARE),
]
FormerFast = Annotated[bool | None, typer.Option("--fast/--no-fast", hidden=True)]
AdapterOnly = Annotated[
    Path | None, typer.Option(help="An adapter that was trained without LoRA, as a baseline.", rich_help_panel=COMPARE)
]
DriftFrom = Annotated[
    list[Path] | None,
    typer.Option(
        "--drift",
        help="For the drift rate: a training run with checkpoints, or an adapter of another step; repeatable.",
        rich_help_panel=COMPARE,
    ),
]
