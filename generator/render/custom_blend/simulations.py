"""Simulations in a custom .blend: only what is baked into the file is the same in every clip.

A simulation that is not baked freezes, vanishes or goes on from the frame rendered before. One baked to a folder is not in the
file, of which a dataset keeps a copy. Import it only in a process that renders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy

from generator.render.custom_blend.animation import animated
from scenes.errors import InputError

_CACHED = {"CLOTH": "cloth", "SOFT_BODY": "a soft body"}
_ON_DISK = {"MESH_CACHE": "a mesh cache", "MESH_SEQUENCE_CACHE": "an Alembic or USD cache"}


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulation by what it is and where: `baked` into the file for the frames `first` to `last`, or why not."""

    words: str
    baked: bool
    outside: bool
    first: int
    last: int


def refuse_unbaked(scene: Any, things: list[Any], first: int, last: int) -> None:
    """Raise InputError for a simulation of these objects that is not baked into the file for all frames of the range."""
    for found in (*_rigid_bodies(scene, things), *(one for thing in things for one in _of_object(thing))):
        if found.outside:
            raise InputError(
                f"{found.words} keeps its cache in a folder, outside the .blend; bake it into the file (no disk cache, packed) "
                "or apply it, save, and mark the file again"
            )
        if not found.baked:
            raise InputError(
                f"{found.words} is simulated and not baked, so it freezes, or differs between clips of one scene; bake it into "
                "the file (or apply it), save, and mark the file again"
            )
        if first < found.first or last > found.last:
            raise InputError(
                f"{found.words} is baked for the frames {found.first} to {found.last}, clips use {first} to {last}; bake them "
                "all, or set a shorter frame range, save, and mark the file again"
            )


def _cached(words: str, cache: Any) -> Simulation:
    return Simulation(
        words=words,
        baked=cache.is_baked,
        outside=cache.use_disk_cache or cache.use_external,
        first=cache.frame_start,
        last=cache.frame_end,
    )


def _rigid_bodies(scene: Any, things: list[Any]) -> Iterator[Simulation]:
    world = scene.rigidbody_world
    if world is None or not world.enabled:
        return
    for thing in things:
        body = thing.rigid_body
        if body is None or body.type != "ACTIVE":
            continue
        keyed = any(found.path == "rigid_body.kinematic" for found in animated(thing))
        if not body.kinematic or keyed:
            yield _cached(f"the rigid body '{thing.name}'", world.point_cache)


def _of_object(thing: Any) -> Iterator[Simulation]:
    for modifier in thing.modifiers:
        if not modifier.show_render and not any("show_render" in found.path for found in animated(thing)):
            continue
        name = f"'{modifier.name}' of '{thing.name}'"
        if modifier.type in _CACHED:
            yield _cached(f"{_CACHED[modifier.type]}, {name},", modifier.point_cache)
        elif modifier.type == "DYNAMIC_PAINT" and modifier.canvas_settings is not None:
            for surface in modifier.canvas_settings.canvas_surfaces:
                if surface.is_active:
                    outside = surface.surface_format == "IMAGE"
                    found = _cached(f"dynamic paint, {name},", surface.point_cache)
                    yield _elsewhere(found.words) if outside else found
        elif modifier.type == "PARTICLE_SYSTEM":
            yield from _particles(thing, modifier.particle_system)
        elif modifier.type == "FLUID" and modifier.fluid_type == "DOMAIN":
            yield _elsewhere(f"fluid, {name},")
        elif modifier.type in _ON_DISK:
            yield _elsewhere(f"{_ON_DISK[modifier.type]}, {name},")
        elif modifier.type == "OCEAN" and modifier.is_cached:
            yield _elsewhere(f"an ocean, {name},")
        elif modifier.type == "NODES" and modifier.node_group is not None and zones_in(modifier.node_group):
            yield from _zones(modifier, name)
    for constraint in thing.constraints:
        if constraint.type == "TRANSFORM_CACHE" and not constraint.mute:
            yield _elsewhere(f"an Alembic or USD cache, '{constraint.name}' of '{thing.name}',")


def _particles(thing: Any, system: Any) -> Iterator[Simulation]:
    words = f"the particle system '{system.name}' of '{thing.name}'"
    if system.settings.type == "EMITTER" or system.use_hair_dynamics:
        cache = system.cloth.point_cache if system.use_hair_dynamics and system.cloth is not None else system.point_cache
        yield _cached(words, cache)


def _elsewhere(words: str) -> Simulation:
    return Simulation(words=words, baked=False, outside=True, first=0, last=0)


def _zones(modifier: Any, name: str) -> Iterator[Simulation]:
    """Yield a modifier's simulation zones whose bake lies in a folder.

    Blender does not tell whether a packed bake is there: that is seen by whether a frame hangs on the one before
    (`frame_walk`).
    """
    targets = {bake.bake_target if bake.bake_target != "INHERIT" else modifier.bake_target for bake in modifier.bakes}
    if "DISK" in targets:
        yield _elsewhere(f"a simulation zone, {name},")


def zones_in(tree: Any, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a geometry node tree, or a group in it, holds a simulation zone."""
    for node in tree.nodes:
        if node.bl_idname == "GeometryNodeSimulationOutput":
            return True
        inner = getattr(node, "node_tree", None)
        if inner is not None and inner.name not in seen and zones_in(inner, seen | {tree.name, inner.name}):
            return True
    return False


def why_history(thing_name: str) -> str:
    """Return why a thing may look different when its frame is reached another way, in words."""
    thing = bpy.data.objects.get(thing_name)
    zones = [
        modifier.name
        for modifier in (thing.modifiers if thing is not None else ())
        if modifier.type == "NODES" and modifier.node_group is not None and zones_in(modifier.node_group)
    ]
    if zones:
        return f"the simulation zone in '{zones[0]}' of '{thing_name}' is not baked into the file"
    return f"'{thing_name}' hangs on the frames before (a simulation that is not baked into the file?)"
