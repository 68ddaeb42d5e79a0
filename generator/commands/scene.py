"""`stopdown scene`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generator.building.local import blender_version
from generator.commands.options import Overrides, RecipeFile
from generator.processes.processors import allowed_processors
from generator.recipe.load import load_recipe
from generator.recipe.plan import ClipPlan, Plan, make_plan
from generator.render.single import in_render_process, save_blend, save_stills
from generator.versions.working.working_folder import find_clip
from scenes.axes import AXES
from scenes.errors import InputError, closest


def command(
    recipe: RecipeFile,
    clip: Annotated[str, typer.Option(help="The clip's id, as `stopdown plan RECIPE --clips` lists them.")],
    blend: Annotated[Path | None, typer.Option(help="Save the scene as this .blend file.")] = None,
    stills: Annotated[Path | None, typer.Option(help="Render the clip's frames as PNG files into this folder.")] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUE", help="Another value than the clip's: shutter=1/50, aperture=f/2, aperture=c0.5"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Save one clip's scene as a .blend that an artist can open, or render its frames, at any control value."""
    if blend is None and stills is None:
        raise InputError("nothing to write; give --blend FILE.blend, --stills FOLDER or both")
    if blend is not None and blend.suffix != ".blend":
        raise InputError(f"--blend {blend} does not end in .blend; Blender opens no other")
    plan = make_plan(load_recipe(recipe, overrides or ()))
    chosen = find_clip(plan, clip)
    if plan.scene_by_id[chosen.scene_id].spec.blend is not None:
        raise InputError(f"clip '{clip}' is of a custom .blend; open that file in Blender, or build the dataset")
    values = chosen.values | dict(_value(plan, chosen, words) for words in at or ())
    blender_version()
    threads = allowed_processors()
    spec, settings = plan.scene_by_id[chosen.scene_id].spec, plan.recipe.render
    if blend is not None:
        blend.parent.mkdir(parents=True, exist_ok=True)
        in_render_process(save_blend, spec, settings, values, blend, threads)
        print(f"{blend}: {_words(values)}")
    if stills is not None:
        in_render_process(save_stills, spec, settings, values, stills, threads)
        print(f"{stills}: {chosen.frames} frames, {_words(values)}")


def _value(plan: Plan, clip: ClipPlan, words: str) -> tuple[str, float]:
    name, equals, text = words.partition("=")
    if not equals or name not in AXES:
        raise InputError(f"--at '{words}' is not AXIS=VALUE{closest(name, AXES)}; axes: {', '.join(AXES)}")
    if text.startswith("c"):
        try:
            return name, plan.recipe.law(name).value(float(text[1:]))
        except (ValueError, OverflowError):
            raise InputError(f"--at '{words}': '{text}' is not a control such as c0.5 or c-1") from None
    return name, AXES[name].parse(text)


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{axis} {AXES[axis].format(value)}" for axis, value in values.items())
