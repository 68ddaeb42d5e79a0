"""Opens a custom .blend the one way that marking and rendering share, so that what is marked is what is rendered.

Objects, materials, light and light transport stay as they are; what the engine sets has no animation of its own. Import it only
in a process that renders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from generator.render.custom_blend.animation import mute_what_the_engine_sets
from scenes.blender import Handle, set_color, set_format, set_optics
from scenes.errors import InputError
from scenes.spec import BlendSource, Optics, SceneSpec

WORKING_SPACE = "Linear Rec.709"


@dataclass(frozen=True, kw_only=True)
class NormalisedScene:
    """A scene as it is rendered: its one view layer, the factor of its exposure, and what was switched off, in words."""

    scene: Any
    camera: Any
    layer: Any
    gain: float
    notes: tuple[str, ...]


def open_custom(path: Path, spec: SceneSpec, source: BlendSource) -> tuple[Handle, float]:
    """Open a .blend in place of everything and set what a clip needs; return it and the factor on its linear pixels.

    No script in it is run. Raises InputError where it cannot be rendered as it was marked.
    """
    load_unscripted(path)
    normalised = normalise(bpy.data.scenes[source.scene], bpy.data.objects[source.camera])
    set_format(normalised.scene, spec.shot)
    handle = Handle(spec=spec, fidelity="pbr", scene=normalised.scene, camera=normalised.camera, objects={})
    set_optics(handle, Optics())
    return handle, normalised.gain


def load_unscripted(path: Path) -> None:
    """Open a .blend without its interface and without running what is embedded in it: a person brings files of others.

    Raises InputError where Blender cannot read it.
    """
    try:
        bpy.ops.wm.open_mainfile(filepath=str(path), load_ui=False, use_scripts=False)
    except RuntimeError as error:
        said = " ".join(str(error).removeprefix("Error:").split())
        raise InputError(
            f"Blender cannot read {path.name} ({said}); save it again with Blender {bpy.app.version_string}"
        ) from None
    if not bpy.data.scenes:
        raise InputError(f"{path.name} holds no scene; it is damaged or a library: save it again from Blender")


def normalise(scene: Any, camera: Any) -> NormalisedScene:
    """Make a scene render from one camera and one view layer, without animation of what the engine sets.

    Raises InputError where its colours are not linear Rec.709 or no view layer is rendered.
    """
    space = bpy.data.colorspace.working_space
    if space != WORKING_SPACE:
        raise InputError(
            f"the file's working colour space is {space}; labels hold in {WORKING_SPACE}: set it (Scene > Color Management > "
            "Working Space, with its colours converted), save, and mark the file again"
        )
    layer = _one_layer(scene)
    if bpy.context.window is not None:
        bpy.context.window.scene = scene
        bpy.context.window.view_layer = layer
    notes = _unbind_markers(scene)
    scene.camera = camera
    muted = mute_what_the_engine_sets(scene, camera)
    if muted:
        notes.append(f"animation switched off, because recipes set it: {', '.join(muted)}")
    left_out = [other.name for other in scene.view_layers if other.name != layer.name and other.use]
    if left_out:
        notes.append(f"only view layer '{layer.name}' is rendered, not {', '.join(left_out)}")
        for name in left_out:
            scene.view_layers[name].use = False
    layer.use_pass_combined = layer.use_motion_blur = True
    layer.samples = 0  # a layer's own number of samples would win over the recipe's
    gain = 2.0**scene.view_settings.exposure
    notes += _dropped(scene)
    set_color(scene)
    scene.cycles.use_guiding = False  # it learns in an order that depends on the threads
    return NormalisedScene(scene=scene, camera=camera, layer=layer, gain=gain, notes=tuple(notes))


def _one_layer(scene: Any) -> Any:
    """Return the view layer that is rendered: the first that is used for rendering."""
    used = [layer for layer in scene.view_layers if layer.use]
    if not used:
        raise InputError(
            f"no view layer of scene '{scene.name}' is rendered; switch one on (View Layer > Use for Rendering), save, and "
            "mark the file again"
        )
    return used[0]


def _unbind_markers(scene: Any) -> list[str]:
    """Take cameras off the timeline's markers, which would switch the camera in mid-clip."""
    bound = [marker for marker in scene.timeline_markers if marker.camera is not None]
    for marker in bound:
        marker.camera = None
    return ["cameras bound to timeline markers are not used"] if bound else []


def _dropped(scene: Any) -> list[str]:
    """Return, in words, what the file does to a picture after rendering and the engine leaves out."""
    view, render = scene.view_settings, scene.render
    notes = []
    if view.view_transform not in ("Standard", "Raw") or view.look not in ("None", ""):
        notes.append(f"view transform {view.view_transform} is not used: pictures are plain sRGB")
    if view.exposure:
        notes.append(f"exposure of {view.exposure:+g} stops is applied")
    if view.gamma != 1.0 or view.use_curve_mapping or view.use_white_balance:
        notes.append("gamma, curves and white balance of Color Management are not used")
    if render.use_compositing and scene.compositing_node_group is not None:
        notes.append("its compositor is not used")
    if render.use_sequencer and scene.sequence_editor is not None and len(scene.sequence_editor.strips):
        notes.append("its video sequencer is not used")
    return notes
