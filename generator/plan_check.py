"""What a plan cannot keep of its promise, told before anything is rendered: effects too faint or too strong to be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from generator.labels import measure
from generator.plan import Plan
from generator.proof import unproven
from generator.recipe import Recipe
from scenes.axes import AXES
from scenes.axes.base import Reading
from scenes.errors import InputError

UNREAD = Reading(value=None, confidence=0.0)
AUTOENCODER_STEP = 8  # pixels: no backbone's autoencoder has a finer grid, and training refuses clips that do not fit it
SLACK = 1e-6  # of an error unit: laws that are written to nine digits


def check_trainable(recipe: Recipe) -> None:
    """Raise InputError for a picture size that training will refuse, where the recipe has a [train] section."""
    width, height = recipe.video.width, recipe.video.height
    if recipe.train and (width % AUTOENCODER_STEP or height % AUTOENCODER_STEP):
        fit = [max(16, round(side / 16) * 16) for side in (width, height)]
        raise InputError(
            f"video.width x video.height is {width}x{height}, and this recipe trains: no backbone's autoencoder takes sizes "
            f"that are no multiples of {AUTOENCODER_STEP}, and most take multiples of 16; write {fit[0]}x{fit[1]}"
        )


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


def concerns(plan: Plan) -> Iterator[str]:
    """Yield a line for every axis whose law turns it round, exceeds what scenes have room for, or is too faint to be judged.

    And for every axis of a scene of one's own that has labels without proof.
    """
    recipe = plan.recipe
    yield from (one.line for one in unproven(plan))
    for name, (judged, labelled) in judged_clips(plan).items():
        axis, law, layout = AXES[name], recipe.law(name), recipe.layout_law(name)
        if (law.ratio > 1) != (axis.default_law.ratio > 1):
            yield (
                f"axes.{name}.ratio = {law.ratio:g} turns the axis round: c = +1 is {axis.format(law.value(1.0))}, the weaker "
                f"effect, and everywhere else +1 is the stronger; write {1 / law.ratio:.6g}"
            )
        keep = f"axes.{name}.layout = {{ neutral = {law.neutral:.9g}, ratio = {law.ratio:.9g} }}"
        strongest, roomy = (
            max((one.value(-1.0), one.value(1.0)), key=lambda v: axis.stops(v, law.neutral)) for one in (law, layout)
        )
        if recipe.scene is None and axis.stops(strongest, roomy) > SLACK:
            yield (
                f"{name} reaches {axis.format(strongest)}, and scenes are laid out for {axis.format(roomy)} at the strongest: "
                f"beyond it things may touch, leave the picture or clip, and the probe misread them; {keep} draws other "
                "scenes, with room for it"
            )
        if judged == 0 and recipe.scene is None:  # of a scene of one's own `generator.proof` knows the reason
            yield (
                f"{name}: in none of {labelled} clips is the effect large enough to be judged, so that no label is proven; "
                f"make the picture larger or the range stronger, or draw other scenes with {keep}"
            )
