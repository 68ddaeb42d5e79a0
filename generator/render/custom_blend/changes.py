"""What changes the look of a custom .blend while its things stand still: animated materials, world and lights.

Blender renders such a change truly at every exposure, so no label is wrong; but probes take brightness and pattern to be
steady. Values are sampled between frames, too. Import it only in a process that renders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import bpy
import numpy as np

from generator.render.custom_blend.animation import Animated, animated
from generator.render.custom_blend.external_files import reached
from scenes.arrays import Floats
from scenes.families.blend_annotation import Changing

SAME = 1e-4  # relative
_KINDS = ("Material", "World", "Light", "Texture", "ShaderNodeTree")
# What makes things brighter or of another colour as a whole, and moves no pattern: of lights, and of the nodes that shine.
_BRIGHTNESS = re.compile(r"(energy|color|exposure|temperature)$|nodes\[.*\]\.inputs\[(\d+|\".*\")\]\.default_value$")
_SHINING = re.compile(r"BSDF|EMISSION|BACKGROUND|PRINCIPLED|SUBSURFACE|RGB$|VALUE$|BLACKBODY")


@dataclass
class Change:
    """One thing whose look is animated: its values at every moment so far, by property."""

    words: str
    gentle: bool
    read: Any
    values_K: list[Floats] = field(default_factory=list)

    def add(self) -> None:
        """Take in the present moment."""
        value = self.read()
        number = crc32(value.encode()) if isinstance(value, str) else value  # a choice from a list has no size
        self.values_K.append(np.atleast_1d(np.array(number, dtype=np.float64)).ravel())

    def extremes(self) -> tuple[int, int]:
        """Return the moments of the least and the largest value."""
        sum_K = np.stack(self.values_K).sum(axis=1)
        return int(np.argmin(sum_K)), int(np.argmax(sum_K))

    def changing(self, steps: int) -> Changing | None:
        """Return what the annotation says of it; None where it stays as it is."""
        values_KN = np.stack(self.values_K)
        scale = max(float(np.abs(values_KN).max()), 1e-9)
        by_K = np.abs(np.diff(values_KN, axis=0)).max(axis=1) / scale
        if by_K.max(initial=0.0) <= SAME:
            return None
        shares = tuple(float(f"{value:.3g}") if value > SAME else 0.0 for value in by_K)
        return Changing(name=self.words, gentle=self.gentle, steps=steps, by=shares)


def changes_of(scene: Any) -> list[Change]:
    """Return the animated looks of what a scene shows, and its lights that may move."""
    found = [
        Change(words=f"{_kind(owner)} '{owner_name}', {path}", gentle=gentle, read=_reader(one))
        for owner, owner_name, one, path, gentle in _looks(scene)
    ]
    for light in (thing for thing in scene.objects if thing.type == "LIGHT" and not thing.hide_render):
        found.append(Change(words=f"light '{light.name}', its place or direction", gentle=False, read=_place(light)))
    return found


def _looks(scene: Any) -> Iterator[tuple[Any, str, Animated, str, bool]]:
    told: list[tuple[Any, str]] = []
    kinds = tuple(getattr(bpy.types, kind) for kind in _KINDS)
    shown: list[Any] = sorted((data for data in reached(scene) if isinstance(data, kinds)), key=_name)
    for data in shown:
        for owner in (data, *filter(None, [getattr(data, "node_tree", None)])):
            for one in animated(owner):
                if (one.driven or not one.curve.mute) and (owner, one.path) not in told and _is_there(owner, one.path):
                    told.append((owner, one.path))  # a curve for each channel
                    yield data, data.name, one, _path(owner, one), _is_gentle(owner, one)


def _name(data: Any) -> tuple[str, str]:
    return data.bl_rna.identifier, data.name


def _is_there(owner: Any, path: str) -> bool:
    """Return whether a path leads to something: curves outlive what they moved."""
    try:
        owner.path_resolve(path)
    except ValueError:
        return False
    return True


def _is_gentle(owner: Any, one: Animated) -> bool:
    if _BRIGHTNESS.search(one.path) is None:
        return False
    node_path = one.path.rpartition(".inputs[")[0] or one.path.rpartition(".outputs[")[0]
    if not node_path:
        return True
    try:
        node = owner.path_resolve(node_path)
        socket = owner.path_resolve(one.path.rpartition(".")[0])
    except ValueError:
        return False
    return _SHINING.search(node.type) is not None and socket.type in ("RGBA", "VALUE") and socket.name in _STEADY


_STEADY = {"Color", "Base Color", "Strength", "Emission Color", "Emission Strength"}


def _path(owner: Any, one: Animated) -> str:
    """Return what is animated as a person finds it in Blender: `Mapping: Location`."""
    node_path, _, _ = one.path.rpartition(".inputs[")
    try:
        node, socket = owner.path_resolve(node_path), owner.path_resolve(one.path.rpartition(".")[0])
    except ValueError:
        return one.path
    return f"{node.name}: {socket.name}"


def _kind(owner: Any) -> str:
    return {"World": "world", "Material": "material", "ShaderNodeTree": "node group"}.get(
        owner.bl_rna.identifier, "light" if isinstance(owner, bpy.types.Light) else "texture"
    )


def _reader(one: Animated) -> Any:
    return lambda: one.owner.path_resolve(one.path)


def _place(light: Any) -> Any:
    """Return what reads where a light is, and where it shines: a sun, which is far away, only the latter."""

    def read() -> Floats:
        matrix_44 = np.array(light.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world)
        return matrix_44[:3, :3] if light.data.type == "SUN" else matrix_44[:3]

    return read
