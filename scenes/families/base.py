"""What a scene family is: a way to draw scenes from a seed, the rules each must meet, and the axes it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scenes.axes import AXES, UnitLaw
from scenes.errors import SceneError
from scenes.spec import SceneSpec, Shot

Laws = Mapping[str, UnitLaw]  # by axis name: the axes of the pyramid that the scene is drawn for
Draw = Callable[[np.random.Generator, Shot, Laws], SceneSpec]
Check = Callable[[SceneSpec, Laws], str | None]  # None: met; otherwise what is wrong, in a few words


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of scene. Each family is one module of `scenes.families` and one line of `FAMILIES`."""

    name: str
    summary: str
    shows: frozenset[str]
    draw: Draw
    rules: tuple[Check, ...]
    max_tries: int = 400

    @property
    def shown_axes(self) -> frozenset[str]:
        """The axes that its scenes are laid out for, and those that say that its scenes show them."""
        return self.shows | {name for name, axis in AXES.items() if self.name in axis.shown_by}


def draw_scene(family: Family, rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw scenes until one meets every rule of the family; raises SceneError naming the rules that failed most."""
    refused: Counter[str] = Counter()
    for _ in range(family.max_tries):
        scene = family.draw(rng, shot, laws)
        complaint = next((words for rule in family.rules if (words := rule(scene, laws)) is not None), None)
        if complaint is None:
            return scene
        refused[complaint] += 1
    reasons = "; ".join(f"{words} ({count}x)" for words, count in refused.most_common(3))
    raise SceneError(
        f"family '{family.name}' met its rules in none of {family.max_tries} tries at {shot.width}x{shot.height}, "
        f"{shot.frames} frames, {shot.fps} fps: {reasons}; change the size, the frames, the axis's law or the family"
    )
