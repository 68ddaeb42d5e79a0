"""What a plan cannot keep of its promise, told before anything is rendered: effects too faint or too strong to be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from generator.recipe.backbone_grid import DEFAULT_BACKBONE, LEAST, backbone_grid
from generator.recipe.label_proof import short_blurs, unproven
from generator.recipe.plan import Plan
from generator.recipe.schema import Recipe
from generator.store.labels import measure
from scenes.axes import AXES
from scenes.control_axis import Reading
from scenes.errors import InputError

UNREAD = Reading(value=None, confidence=0.0)
SLACK = 1e-6  # of an error unit: laws that are written to nine digits


def check_trainable(recipe: Recipe) -> None:
    """Raise InputError for a picture size or a length that training will refuse, where the recipe has a [train] section.

    One that names another dataset than this recipe's does not train on what is built here.
    """
    train, video = recipe.train, recipe.video
    if not train or Path(str(train.get("dataset", recipe.name))).name != recipe.name:
        return
    backbone = train.get("backbone")
    given = backbone.get("name", DEFAULT_BACKBONE) if isinstance(backbone, dict) else DEFAULT_BACKBONE
    grid = backbone_grid(given) if isinstance(given, str) else None
    for frames in sorted({length for pyramid in recipe.pyramid for length in pyramid.frames}):
        try:
            (LEAST if grid is None else grid).check(width=video.width, height=video.height, frames=frames)
        except InputError as error:
            most = "" if grid is not None else "; most backbones take multiples of 16"
            raise InputError(f"video: {error} (this recipe trains on backbone {given}{most})") from None


def judged_clips(plan: Plan) -> Mapping[str, tuple[int, int]]:
    """Return, by axis, how many clips show it largely enough to be held to the tolerance, and how many are labelled with it.

    The closed form alone decides that; no frame is needed.
    """
    counts = dict.fromkeys(plan.recipe.used_axes, (0, 0))
    for clip in plan.clips:
        for axis in clip.values:
            judged, labelled = counts[axis]
            large = measure(plan, clip, axis, UNREAD).judged
            counts[axis] = (judged + int(large), labelled + 1)
    return counts


def concerns(plan: Plan, judged_by_axis: Mapping[str, tuple[int, int]] | None = None) -> Iterator[str]:
    """Yield a line for every axis whose law turns it round, exceeds what scenes have room for, or is too faint to be judged.

    And for every axis of a custom .blend that has labels without proof. `judged_by_axis` is what `judged_clips` returned,
    where that is known already.
    """
    recipe = plan.recipe
    yield from (one.line for one in unproven(plan))
    yield from filter(None, [short_blurs(plan)])
    for name, (judged, labelled) in (judged_clips(plan) if judged_by_axis is None else judged_by_axis).items():
        axis, law, layout = AXES[name], recipe.law(name), recipe.layout_law(name)
        if law.rises != axis.default_law.rises:
            yield (
                f"axes.{name}.{law.recipe_keys(6)[1]} turns the axis round: c = +1 is {axis.format(law.value(1.0))}, the "
                f"weaker effect, and everywhere else +1 is the stronger; write {law.turned().recipe_keys(6)[1].split()[-1]}"
            )
        keep = f"axes.{name}.layout = {{ {', '.join(law.recipe_keys())} }}"
        strongest, roomy = (
            max((one.value(-1.0), one.value(1.0)), key=lambda v: axis.distance(v, law.neutral)) for one in (law, layout)
        )
        if recipe.scene is None and axis.distance(strongest, roomy) > SLACK:
            yield (
                f"{name} reaches {axis.format(strongest)}, and scenes are laid out for {axis.format(roomy)} at the strongest: "
                f"beyond it things may touch, leave the picture or clip, and the probe misread them; {keep} draws other "
                "scenes, with room for it"
            )
        if judged == 0 and recipe.scene is None:  # of a custom .blend `generator.recipe.label_proof` knows the reason
            yield (
                f"{name}: in none of {labelled} clips is the effect large enough to be judged, so that no label is verified; "
                f"make the picture larger or the range stronger, or draw other scenes with {keep}"
            )
