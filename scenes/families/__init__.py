"""The scene families. A new family is one module here and one line of `FAMILIES`.

Here: how each family draws a scene from a seed, the rules that scenes must meet (`rules`), and their captions (`captions`).
Not here: what a scene is (`scenes/spec.py`), and which control values it is rendered at (`generator/recipe/sampling.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scenes.families.base import Family, Laws, draw_scene
from scenes.families.blend import BLEND
from scenes.families.depth_row import DEPTH_ROW
from scenes.families.flyby import FLYBY
from scenes.families.studio import STUDIO
from scenes.families.tabletop import TABLETOP
from scenes.families.world import WORLD

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (FLYBY, DEPTH_ROW, TABLETOP, STUDIO, WORLD, BLEND)}
)

__all__ = ["FAMILIES", "Family", "Laws", "draw_scene"]
