"""Animation in a custom .blend that would win over what the recipe sets: keys, drivers and NLA strips are switched off.

Blender evaluates animation again for every moment of an exposure, after anything that was set by hand. What the engine sets
(exposure, lens opening, focus, samples, seed, size, …) must therefore have no animation of its own. Import it only in a process
that renders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy

from scenes.errors import InputError

# What the engine sets, by the kind of data it lies in; of a scene's own entries only the frame range.
_SET_STRUCTS = {
    "RenderSettings",
    "CyclesRenderSettings",
    "CyclesRenderLayerSettings",
    "ImageFormatSettings",
    "FFmpegSettings",
    "ColorManagedViewSettings",
    "ColorManagedDisplaySettings",
    "CurveMapping",
    "CurveMapPoint",
    "SceneEEVEE",
    "ViewLayer",
    "CameraDOFSettings",
}
_SET_OF_SCENE = {"frame_start", "frame_end", "frame_step", "use_preview_range", "use_nodes", "camera"}


@dataclass(frozen=True, kw_only=True)
class Animated:
    """One animated property: the data it belongs to, its path, and the curve or driver that moves it."""

    owner: Any
    path: str
    curve: Any
    driven: bool

    @property
    def words(self) -> str:
        """Return what is animated, as Blender's Python names it."""
        return f"{self.owner.name}: {self.path}"


def all_data() -> Iterator[Any]:
    """Yield every data-block of the file that may hold animation, the node trees inside others too."""
    for kind in bpy.data.bl_rna.properties:
        if kind.type != "COLLECTION":
            continue
        for data in getattr(bpy.data, kind.identifier):
            yield data
            inside = getattr(data, "node_tree", None)
            if inside is not None and inside.is_embedded_data:
                yield inside


def animated(owner: Any) -> Iterator[Animated]:
    """Yield every property of a data-block that keys, drivers or NLA strips move."""
    animation = getattr(owner, "animation_data", None)
    if animation is None:
        return
    for driver in list(animation.drivers):
        yield Animated(owner=owner, path=driver.data_path, curve=driver, driven=True)
    for action, slot in _actions(animation):
        for curve in _curves(action, slot):
            yield Animated(owner=owner, path=curve.data_path, curve=curve, driven=False)


def _actions(animation: Any) -> Iterator[tuple[Any, Any]]:
    if animation.action is not None:
        yield animation.action, animation.action_slot
    strips = [strip for track in animation.nla_tracks for strip in track.strips]
    while strips:
        strip = strips.pop()
        strips += list(getattr(strip, "strips", ()))
        if getattr(strip, "action", None) is not None:
            yield strip.action, strip.action_slot


def _curves(action: Any, slot: Any) -> Iterator[Any]:
    for layer in action.layers:
        for strip in layer.strips:
            for bag in strip.channelbags:
                if slot is None or bag.slot_handle == slot.handle:
                    yield from bag.fcurves


def mute_what_the_engine_sets(scene: Any, camera: Any) -> list[str]:
    """Switch off every animation of what the engine sets in a scene and its camera; return what was animated, by path."""
    muted: list[str] = []
    for owner in all_data():
        for found in animated(owner):
            if is_set_by_engine(owner, found.path, scene, camera):
                muted.append(found.path)
                if found.driven:
                    owner.animation_data.drivers.remove(found.curve)
                else:
                    found.curve.mute = True
    return sorted(set(muted))


def is_set_by_engine(owner: Any, path: str, scene: Any, camera: Any) -> bool:
    """Return whether a path from a data-block leads to something that the engine sets in this scene or this camera."""
    try:
        place = owner.path_resolve(path, False)
    except (ValueError, AttributeError):
        return False
    place = getattr(place, "data", place)
    data, kind = getattr(place, "id_data", None), getattr(getattr(place, "bl_rna", None), "identifier", "")
    if data == scene:
        return kind in _SET_STRUCTS or (kind == "Scene" and _last(path) in _SET_OF_SCENE)
    return data == camera.data and kind in _SET_STRUCTS


def refuse_content_that_reads_controls(scene: Any, camera: Any) -> None:
    """Raise InputError for a driver whose input is something that the engine sets: its content would follow the label."""
    for owner in all_data():
        for found in animated(owner):
            if not found.driven:
                continue
            for variable in found.curve.driver.variables:
                for target in variable.targets:
                    source = scene if variable.type == "CONTEXT_PROP" else target.id
                    if source is not None and is_set_by_engine(source, target.data_path, scene, camera):
                        raise InputError(
                            f"the driver of {found.words} reads {target.data_path}, which the recipe sets, so the content "
                            "would change with the label; remove the driver or bake it to keys (Bake Action)"
                        )


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
