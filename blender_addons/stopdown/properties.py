"""The panel's settings: those of the session (never saved), and a scene's controls and annotation (saved in the .blend)."""

from __future__ import annotations

from functools import cache
from typing import Any

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import choices, live

RELATIVE = {"PATH_SUPPORTS_BLEND_RELATIVE"}  # a path may begin with //, the folder of the .blend


@cache  # Blender keeps no reference to the words of items that a function returns
def _items(kind: str) -> tuple[tuple[str, str, str, int], ...]:
    numbers = (index if kind == "fidelities" else 1 << index for index in range(64))  # the others are sets, one bit each
    return tuple((name, name, words, number) for (name, words), number in zip(choices.known(kind), numbers, strict=False))


def axis_items(_self: Any, _context: Any) -> tuple[tuple[str, str, str, int], ...]:
    """Return the control axes as items of a set."""
    return _items("axes")


def family_items(_self: Any, _context: Any) -> tuple[tuple[str, str, str, int], ...]:
    """Return the scene families as items of a set."""
    return _items("families")


def fidelity_items(_self: Any, _context: Any) -> tuple[tuple[str, str, str, int], ...]:
    """Return the fidelities."""
    return _items("fidelities")


def clip_search(session: Any, _context: Any, typed: str) -> list[str]:
    """Return the ids of the plan's clips that hold what is typed."""
    return [clip_id for clip_id in choices.clip_ids(session) if typed in clip_id]


class StopdownRow(bpy.types.PropertyGroup):
    """One clip of the open dataset."""

    clip_id: StringProperty()
    labels: StringProperty()
    caption: StringProperty()
    path: StringProperty()


class StopdownSession(bpy.types.PropertyGroup):
    """What a person is doing: the recipe at hand, the clip to draw, the build that runs, the dataset that is open."""

    recipe: StringProperty(name="Recipe", subtype="FILE_PATH", options=RELATIVE, description="the recipe's .toml file")
    dataset_name: StringProperty(name="Name", default="my-dataset", description="name of the dataset")
    seed: IntProperty(name="Seed", min=0, description="seed of all random numbers of the plan")
    width: IntProperty(name="Width", default=512, min=16, max=8192, subtype="PIXEL", description="width of the clips")
    height: IntProperty(name="Height", default=512, min=16, max=8192, subtype="PIXEL", description="height of the clips")
    fidelity: EnumProperty(name="Fidelity", items=fidelity_items)
    pyramid: IntProperty(name="Pyramid", min=0, description="number of the recipe's pyramid in the fields below, from 0")
    axes: EnumProperty(name="Axes", items=axis_items, options={"ENUM_FLAG"})
    families: EnumProperty(name="Families", items=family_items, options={"ENUM_FLAG"})
    layers: StringProperty(name="Layers", default="9, 7, 5, 3, 1", description="control values per scene, one number per layer")
    frames: StringProperty(name="Frames", default="9", description="frames per clip: numbers of the form 4n+1")
    scenes_per_layer: IntProperty(
        name="Scenes per layer", default=2, min=1, description="scenes of each layer, at each number of frames"
    )
    scene_file: StringProperty(
        name="Scene file", subtype="FILE_PATH", options=RELATIVE, description="the marked .blend, for the family 'blend'"
    )

    clip: StringProperty(name="Clip", search=clip_search, description="the clip to draw, as `stopdown plan --clips` lists them")
    sweep_width: IntProperty(
        name="Width", default=128, min=16, max=1024, subtype="PIXEL", description="width of each preview picture"
    )
    sweep_samples: IntProperty(
        name="Samples", default=16, min=1, max=4096, description="samples per pixel of each preview picture"
    )
    sweep_count: IntProperty(
        name="Values", default=5, min=2, max=25, description="number of values from c = -1 to c = +1, for a custom .blend"
    )

    out: StringProperty(name="Dataset", subtype="DIR_PATH", options=RELATIVE, description="the dataset's folder")
    workers: IntProperty(name="Processes", default=1, min=1, description="render processes of a build")
    build_share: FloatProperty(min=0.0, max=1.0, subtype="FACTOR", options={"SKIP_SAVE"})
    build_words: StringProperty(options={"SKIP_SAVE"})

    ref: StringProperty(name="Version", description="a version or tag; if empty, the content of the folder")
    rows: CollectionProperty(type=StopdownRow)
    row: IntProperty(name="Clip")


class StopdownScene(bpy.types.PropertyGroup):
    """A scene's camera controls in physical units, and what is marked in it."""

    clip_id: StringProperty(description="the clip that was drawn; empty: a custom .blend")
    sweep: StringProperty(description="JSON: the values of the scene's clips, one object each")
    before: StringProperty(description="JSON: the camera settings before the sliders touched them")
    quiet: BoolProperty(description="the sliders are being set together, or for the last time: nothing follows yet")
    complaint: StringProperty(description="why the sliders were not obeyed")
    live: BoolProperty(
        name="Live controls", update=live.switched, description="the sliders set this scene's camera while you drag them"
    )
    use_shutter: BoolProperty(name="Shutter", update=live.changed)
    use_aperture: BoolProperty(name="Aperture", update=live.changed)
    use_temperature: BoolProperty(name="Temperature", update=live.changed)
    shutter: FloatProperty(
        name="Exposure time",
        default=1 / 80,
        min=1e-5,
        soft_min=1 / 1000,
        soft_max=1 / 16,
        precision=5,
        step=0.1,
        unit="TIME_ABSOLUTE",
        update=live.changed,
        description="exposure time in seconds, at most the frame interval",
    )
    aperture: FloatProperty(
        name="f-number", default=5.6, min=0.1, soft_min=1.0, soft_max=32.0, precision=2, update=live.changed
    )
    temperature: FloatProperty(
        name="Kelvin",
        default=6500.0,
        min=1000.0,
        max=40000.0,
        soft_min=2000.0,
        soft_max=22000.0,
        precision=0,
        step=10000,
        unit="COLOR_TEMPERATURE",
        update=live.changed,
        description="colour temperature in kelvin; 6500 K is neutral",
    )

    subject: PointerProperty(name="Subject", type=bpy.types.Object, description="the object that moves")
    focus: PointerProperty(
        name="Focus", type=bpy.types.Object, description="the object in focus; if empty, the camera's own focus"
    )
    patch: PointerProperty(
        name="Neutral", type=bpy.types.Object, description="a neutral grey or white object, for the temperature"
    )
    caption: StringProperty(name="Caption", description="one sentence that describes the picture, without naming the effect")


_CLASSES = (StopdownRow, StopdownSession, StopdownScene)


def register() -> None:
    """Register the property groups and hang them on the window manager and on scenes."""
    for kind in _CLASSES:
        bpy.utils.register_class(kind)
    bpy.types.WindowManager.stopdown = PointerProperty(type=StopdownSession)
    bpy.types.Scene.stopdown = PointerProperty(type=StopdownScene)


def unregister() -> None:
    """Give the scenes their cameras back and remove the property groups."""
    live.restore_all()
    del bpy.types.Scene.stopdown
    del bpy.types.WindowManager.stopdown
    for kind in reversed(_CLASSES):
        bpy.utils.unregister_class(kind)
    _items.cache_clear()
    choices.plan_of_text.cache_clear()
