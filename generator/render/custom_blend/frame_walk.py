"""Goes through the frames of a custom .blend and the moments between them: where its things are, evaluated as rendered.

Bones, modifiers, geometry nodes, shape keys, parents and constraints all show in the evaluated geometry. A frame is reached
twice, by a jump and frame by frame: what looks different then hangs on a simulation that is not baked. Import it only in a
process that renders.

Array legend: K moments, P points, 4 homogeneous coordinates, 3 coordinates (metres).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np

from generator.render.custom_blend.changes import Change, changes_of
from generator.render.custom_blend.simulations import why_history
from scenes.arrays import Floats
from scenes.errors import InputError
from scenes.families.blend_annotation import AnnotatedObject
from scenes.spec import Vec3

STEPS = 4  # moments a frame
MOST_FRAMES = 20_000
MOST_POINTS = 256  # of a thing that are followed
MOST_OTHERS = 24  # things beside the marked ones that are followed, the largest
JUMPS = 5
SAME = 1e-4  # relative to the size of what is compared
DIGITS = 9
SHAPES = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
SEEN_TYPES = SHAPES | {"CURVES", "POINTCLOUD", "VOLUME"}
TURNS, SHAPE, MESH = "turns", "changes its shape or size", "changes its mesh from frame to frame"


@dataclass
class ObjectTrack:
    """What is seen of one thing at every moment so far: its centre, and how loose its points moved since the last one."""

    thing: Any
    center_K3: list[Floats] = field(default_factory=list)
    loose_K: list[float] = field(default_factory=list)
    size_3: Floats = field(default_factory=lambda: np.zeros(3))
    how: str = ""
    _last_P3: Floats | None = None

    def add(self, points_P3: Floats) -> None:
        """Take in a moment's points."""
        low_3, high_3 = points_P3.min(axis=0), points_P3.max(axis=0)
        self.center_K3.append((low_3 + high_3) / 2)
        if not self.size_3.any():
            self.size_3 = high_3 - low_3
        picked_P3 = points_P3[np.linspace(0, len(points_P3) - 1, min(len(points_P3), MOST_POINTS)).astype(int)]
        picked_P3 = picked_P3 - picked_P3.mean(axis=0)
        if self._last_P3 is not None:
            self._compare(self._last_P3, picked_P3)
        self._last_P3 = picked_P3

    def _compare(self, before_P3: Floats, now_P3: Floats) -> None:
        if len(before_P3) != len(now_P3):
            self.loose_K.append(float(np.linalg.norm(self.size_3)))
            self.how = MESH
            return
        moved = float(np.linalg.norm(now_P3 - before_P3, axis=1).max())
        self.loose_K.append(moved)
        stretched = float(np.abs(np.linalg.norm(now_P3, axis=1) - np.linalg.norm(before_P3, axis=1)).max())
        if moved > 1e-5 and self.how != MESH:
            self.how = SHAPE if self.how == SHAPE or stretched > 0.05 * moved else TURNS

    def annotated(self) -> AnnotatedObject:
        """Return what the annotation says of it."""
        return AnnotatedObject(
            name=self.thing.name,
            size_m=vec3(self.size_3),
            path_m=tuple(vec3(center_3) for center_3 in self.center_K3),
            steps=STEPS,
            loose_m=tuple(float(f"{value:.4g}") if value > 1e-6 else 0.0 for value in self.loose_K),
            how=self.how,
        )


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What going through the frames found: a track for each named thing, each other mover and each animated look, and the
    camera's moments.
    """

    named: tuple[ObjectTrack, ...]
    others: tuple[ObjectTrack, ...]
    changes: tuple[Change, ...]
    camera_K: tuple[tuple[Floats, Floats], ...]


def walk(scene: Any, layer: Any, camera: Any, named: list[Any], first: int, last: int) -> Walk:
    """Go through all frames from one before the first to one after the last; the file must be freshly opened.

    Raises InputError where a frame looks different by the way it is reached, or a named thing has no shape.
    """
    if last - first >= MOST_FRAMES:
        raise InputError(
            f"the file has {last - first + 1:,} frames, and marking looks at {STEPS} moments of each; "
            f"set a range of at most {MOST_FRAMES:,} frames (Output > Frame Range) and save it"
        )
    show_as_rendered(scene, layer)
    frames = sorted({round(frame) for frame in np.linspace(first, last, JUMPS)})
    jumped = {frame: _snapshot(scene, frame) for frame in (frames[-1], *frames[:-1])}
    others = [ObjectTrack(thing=thing) for thing in _movers(jumped, named)]
    tracks = [ObjectTrack(thing=thing) for thing in named]
    changes, camera_K = changes_of(scene), []
    for moment in range((first - 1) * STEPS, (last + 1) * STEPS + 1):
        graph = set_moment(scene, moment // STEPS, (moment % STEPS) / STEPS)
        for track in tracks:
            track.add(_points(track.thing, graph))
        for track in others:
            track.add(_corners(track.thing, graph))
        for change in changes:
            change.add()
        camera_K.append(_lens(camera, graph))
        if moment % STEPS == 0 and moment // STEPS in jumped:
            _refuse_history(jumped[moment // STEPS], _snapshot(scene, moment // STEPS))
    return Walk(named=tuple(tracks), others=tuple(others), changes=tuple(changes), camera_K=tuple(camera_K))


def set_moment(scene: Any, frame: int, part: float = 0.0) -> Any:
    """Go to a moment and return the evaluated scene."""
    scene.frame_set(frame, subframe=part)
    return bpy.context.evaluated_depsgraph_get()


def show_as_rendered(scene: Any, layer: Any) -> None:
    """Let evaluation show what a render shows: what is hidden in renders only, or in the viewport only."""
    for thing in all_things(scene):
        if thing.hide_viewport != thing.hide_render:
            thing.hide_viewport = thing.hide_render
        if thing.name in layer.objects and thing.hide_get(view_layer=layer):
            thing.hide_set(False, view_layer=layer)
        for modifier in thing.modifiers:
            if modifier.show_viewport != modifier.show_render:
                modifier.show_viewport = modifier.show_render
    for collection in (scene.collection, *scene.collection.children_recursive):
        if collection.hide_viewport != collection.hide_render:
            collection.hide_viewport = collection.hide_render
    waiting = [layer.layer_collection]
    while waiting:
        branch = waiting.pop()
        branch.hide_viewport = False
        waiting += list(branch.children)


def all_things(scene: Any) -> list[Any]:
    """Return the objects of a scene and of the scenes behind it."""
    things, seen = list(scene.objects), {scene.name}
    while scene.background_set is not None and scene.background_set.name not in seen:
        scene = scene.background_set
        seen.add(scene.name)
        things += list(scene.objects)
    return things


def _snapshot(scene: Any, frame: int) -> dict[str, Floats]:
    """Return a few numbers per object that change when anything of its shape or place does."""
    graph = set_moment(scene, frame)
    found: dict[str, list[Floats]] = {}
    for instance in graph.object_instances:
        thing = instance.object
        if thing.type not in SEEN_TYPES | {"CAMERA", "LIGHT"}:
            continue
        name = (instance.parent if instance.is_instance else thing).original.name
        numbers = [np.array(instance.matrix_world).ravel(), np.array(thing.bound_box).ravel()]
        if not instance.is_instance and thing.type == "MESH":
            numbers.append(_sums(thing.data))
        found.setdefault(name, []).append(np.concatenate(numbers))
    return {name: _joined(parts) for name, parts in found.items()}


def _sums(mesh: Any) -> Floats:
    points = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    return np.array([len(points), *np.abs(points.reshape(-1, 3)).mean(axis=0)] if len(points) else [0.0] * 4)


def _joined(parts: list[Floats]) -> Floats:
    """Return the number of parts and their sum: instances come in no promised order."""
    longest = max(map(len, parts))
    return np.array([len(parts), *np.sum([np.pad(part, (0, longest - len(part))) for part in parts], axis=0)])


def _differs(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return True
    return bool(np.abs(one - other).max() > SAME * max(1.0, float(np.abs(one[1:]).max())))


def _refuse_history(jumped: dict[str, Floats], walked: dict[str, Floats]) -> None:
    for name in sorted(jumped.keys() | walked.keys()):
        if _differs(jumped.get(name), walked.get(name)):
            raise InputError(
                f"{why_history(name)}, so clips would differ by the frames rendered before them; bake it (packed, not to disk) "
                "or apply it, save, and mark the file again"
            )


def _movers(jumped: dict[int, dict[str, Floats]], named: list[Any]) -> list[Any]:
    """Return what moves beside the named things, the largest first and only so many."""
    snapshots = list(jumped.values())
    known = {thing.name for thing in named}
    names = sorted({name for snapshot in snapshots for name in snapshot} - known)
    moving = [name for name in names if any(_differs(snapshots[0].get(name), other.get(name)) for other in snapshots[1:])]
    things = [bpy.data.objects[name] for name in moving if name in bpy.data.objects]
    things = [thing for thing in things if thing.type in SEEN_TYPES]
    return sorted(things, key=lambda thing: (-float(np.prod(thing.dimensions)), thing.name))[:MOST_OTHERS]


def _points(thing: Any, graph: Any) -> Floats:
    """Return the points of a thing as evaluated, with those of its instances (metres, in the world) `[P, 3]`."""
    parts = list(_instances(thing, graph)) if _may_instance(thing) else []
    seen = thing.evaluated_get(graph)
    if thing.type in SHAPES:
        mesh = seen.to_mesh()
        if mesh is not None and len(mesh.vertices):
            points = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
            mesh.vertices.foreach_get("co", points)
            parts.append(_moved(seen.matrix_world, points.reshape(-1, 3)))
        seen.to_mesh_clear()
    elif not parts:
        parts.append(_corners(thing, graph))
    if not parts:
        raise InputError(f"'{thing.name}' has no shape in frame {graph.scene.frame_current}; mark an object that is seen")
    return np.concatenate(parts)


def _may_instance(thing: Any) -> bool:
    return thing.instance_type != "NONE" or any(part.type in ("NODES", "PARTICLE_SYSTEM") for part in thing.modifiers)


def _instances(thing: Any, graph: Any) -> Iterator[Floats]:
    for instance in graph.object_instances:
        if instance.is_instance and instance.parent is not None and instance.parent.original == thing:
            yield _moved(instance.matrix_world, np.array(instance.object.bound_box))


def _corners(thing: Any, graph: Any) -> Floats:
    seen = thing.evaluated_get(graph)
    return _moved(seen.matrix_world, np.array(seen.bound_box))


def _moved(matrix: Any, points_P3: Any) -> Floats:
    matrix_44 = np.array(matrix)
    return np.asarray(points_P3 @ matrix_44[:3, :3].T + matrix_44[:3, 3], dtype=np.float64)


def _lens(camera: Any, graph: Any) -> tuple[Floats, Floats]:
    """Return a camera's matrix and the numbers of its lens."""
    seen = camera.evaluated_get(graph)
    lens = seen.data
    numbers = (lens.lens, lens.sensor_width, lens.sensor_height, lens.shift_x, lens.shift_y, float(lens.type == "PERSP"))
    return np.array(seen.matrix_world), np.array(numbers)


def vec3(values: Any) -> Vec3:
    """Return three numbers as plans hold them."""
    x, y, z = (float(f"{float(value):.{DIGITS}g}") for value in values)
    return (x, y, z)
