"""`stopdown plan`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import plotext
import typer
from rich.table import Table
from rich.text import Text

from generator.building.plan_check import check_trainable, concerns, judged_clips
from generator.commands.options import Json, Overrides, RecipeFile
from generator.console.terminal import Console
from generator.recipe.estimate import Estimate, estimate
from generator.recipe.load import load_recipe
from generator.recipe.plan import Plan, layer_counts, make_plan
from scenes.axes import AXES


def command(
    recipe: RecipeFile,
    overrides: Overrides = None,
    clips: Annotated[bool, typer.Option("--clips", help="List every clip with its labels and caption.")] = False,
    json: Json = False,
) -> None:
    """Show the plan of a recipe, without rendering: clips per layer, drawn values, ranges, size and time."""
    loaded = load_recipe(recipe, overrides or ())
    check_trainable(loaded)
    plan = make_plan(loaded)
    judged = judged_clips(plan)
    for words in concerns(plan, judged):
        print(f"stopdown: {words}", file=sys.stderr)
    if json:
        sys.stdout.write(plan.to_json() + "\n")
        return
    console = Console()
    console.print(_layers(plan))
    console.print(_ranges(plan, judged))
    for position, pyramid in enumerate(plan.recipe.pyramid):
        for axis in pyramid.axes:
            console.print(Text.from_ansi(_plot(plan, position, axis, console.width)))
    console.print(_cost(estimate(plan.recipe), len(plan.scenes)))
    console.print(f"plan {plan.digest}", style="dim", soft_wrap=True)
    if clips:
        console.print(_clips(plan))


def _layers(plan: Plan) -> Table:
    table = Table(title=f"{plan.name}: {len(plan.clips)} clips of {len(plan.scenes)} scenes", title_justify="left")
    for heading in ("pyramid", "family", "layer (values)", "frames", "scenes", "clips"):
        table.add_column(heading, justify="left" if heading in ("pyramid", "family") else "right")
    for position, layer, frames, scenes, clips in layer_counts(plan.recipe):
        pyramid = plan.recipe.pyramid[position]
        table.add_row(" x ".join(pyramid.axes), ", ".join(pyramid.family), str(layer), str(frames), str(scenes), str(clips))
    return table


def _ranges(plan: Plan, judged: Mapping[str, tuple[int, int]]) -> Table:
    table = Table(title="physical range", title_justify="left")
    for heading in ("axis", "c = -1", "c = 0", "c = +1", "drawn", "judged"):
        table.add_column(heading)
    for name in plan.recipe.used_axes:
        law, axis = plan.recipe.law(name), AXES[name]
        values = [clip.values[name] for clip in plan.clips if name in clip.values]
        controls = [clip.controls[name] for clip in plan.clips if name in clip.controls]
        table.add_row(
            name,
            *(axis.format(law.value(control)) for control in (-1.0, 0.0, 1.0)),
            f"{axis.format(min(values))} to {axis.format(max(values))} (c {min(controls):+.2f} to {max(controls):+.2f})",
            "{} of {} clips".format(*judged[name]),
        )
    return table


def _plot(plan: Plan, position: int, axis: str, width: int) -> str:
    layers = sorted(plan.recipe.pyramid[position].layers)
    points = [
        (clip.controls[axis], float(layers.index(clip.layer)))
        for clip in plan.clips
        if clip.pyramid == position and axis in clip.controls
    ]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(min(width, 100), 2 * len(layers) + 5)
    plotext.scatter([x for x, _ in points], [y for _, y in points], marker="dot")
    plotext.yticks(list(range(len(layers))), [f"N={layer}" for layer in layers])
    plotext.xlim(-1.05, 1.05)
    plotext.ylim(-0.5, len(layers) - 0.5)
    plotext.xticks([-1, -0.5, 0, 0.5, 1])
    plotext.title(f"{axis}: drawn control values by layer")
    return str(plotext.build())


def _cost(cost: Estimate, scenes: int) -> str:
    minutes = cost.wall_s / 60
    time = f"{cost.wall_s:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    return (
        f"expected: {cost.frames} frames ({cost.rendered_frames} rendered), about {cost.size_bytes / 1e6:.1f} MB, "
        f"{cost.cpu_s:.0f} CPU s, {time} on this machine"
    )


def _clips(plan: Plan) -> Table:
    table = Table(show_lines=False)
    for heading in ("clip", "labels", "caption"):
        table.add_column(heading, overflow="fold")
    for clip in plan.clips:
        labels = ", ".join(f"{AXES[a].format(v)} (c {clip.controls[a]:+.3f})" for a, v in clip.values.items())
        table.add_row(clip.clip_id, labels, clip.caption)
    return table
