"""Keeps a scene's settings over a render that needs others: every plain property of the structures that a render touches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PASSES = 3  # some properties allow only what others permit: a file format's colour depth


@contextmanager
def kept(scene: Any) -> Iterator[None]:
    """Restore a scene's frame, camera, render, image, Cycles and colour settings on leaving, whatever happened inside."""
    camera = scene.camera.data
    structs = [scene, scene.render, scene.render.image_settings, scene.cycles, scene.view_settings, camera, camera.dof]
    before = [(struct, _values(struct)) for struct in structs]
    points = [tuple(point.location) for point in scene.render.motion_blur_shutter_curve.curves[0].points]
    frame, subframe = scene.frame_current, scene.frame_subframe
    try:
        yield
    finally:
        for _ in range(PASSES):
            for struct, values in before:
                _restore(struct, values)
        curve = scene.render.motion_blur_shutter_curve
        for point, place in zip(curve.curves[0].points, points, strict=True):
            point.location = place
        curve.update()
        scene.frame_set(frame, subframe=subframe)


def _values(struct: Any) -> dict[str, Any]:
    kinds = {"BOOLEAN", "INT", "FLOAT", "STRING", "ENUM", "POINTER"}
    skipped = ("name", "stopdown", "frame_current", "use_nodes")  # the last says nothing any more, and warns when read
    entries = [entry for entry in struct.bl_rna.properties if entry.type in kinds and not entry.is_readonly]
    names = [entry.identifier for entry in entries if entry.identifier not in skipped]
    return {name: _plain(getattr(struct, name)) for name in names}


def _plain(value: Any) -> Any:
    return tuple(value) if type(value).__name__ == "bpy_prop_array" else value


def _restore(struct: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        if _plain(getattr(struct, name)) != value:
            try:
                setattr(struct, name, value)
            except TypeError:  # not allowed yet: another property comes first, the next pass sets it
                continue
