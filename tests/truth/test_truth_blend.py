"""Truth of a custom .blend: what Blender knows of it is had, flow where things are rigid; the rest is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from blender_child import run_in_blender

RECIPE = """
name = "custom"
[video]
width = 64
height = 64
[render]
fidelity = "pbr"
samples = 1
[scene]
family = "blend"
file = "{file}.blend"
[truth]
[[pyramid]]
axes = ["shutter"]
family = ["blend"]
layers = [1]
scenes_per_layer = 1
frames = [5]
"""
STEP_PX = 0.25 * 64 / 5.6  # a frame's step of the ball, whose front is 5.55 m away, at a focal length of the sensor's width


def waving(scene: Any) -> None:
    """Let the ball change its shape."""
    import bpy

    bpy.data.objects["Ball"].modifiers.new("wave", "WAVE")


def told_of(folder: str) -> dict[str, Any]:
    """Return what the truth of the plain scene says, and the refusal of the one that changes its shape."""
    import shutil

    from custom_blend_support import make_and_mark

    make_and_mark(folder, {"plain": lambda scene: None, "waving": waving}, {})

    from generator.recipe.load import load_recipe
    from generator.recipe.plan import make_plan
    from generator.render.scene_renderer import SceneRenderer
    from generator.truth.read_truth import TruthReader
    from generator.truth.scene_pictures import truth_pictures
    from scenes.errors import InputError

    told: dict[str, Any] = {}
    for name in ("plain", "waving"):
        recipe = Path(folder) / f"{name}.toml"
        recipe.write_text(RECIPE.format(file=name))
        plan = make_plan(load_recipe(recipe))
        spec = plan.scenes[0].spec
        assert spec.blend is not None
        shutil.copy(Path(folder) / f"{name}.blend", Path(folder) / f"{spec.blend.sha256}.blend")
        renderer = SceneRenderer(spec, plan.recipe.render, 1, Path(folder))
        passes = ("depth", "flow", "instances", "normals")
        try:
            files = dict(truth_pictures(spec, renderer.stage(), renderer.geometries(passes), passes, "5.0.1"))
        except InputError as error:
            told[name] = str(error)
            continue
        reader = TruthReader({path: path for path in files}, files.__getitem__, "here")
        ids_THW, flow = reader.instances(), reader.flow()
        told["names"] = [thing.name for thing in reader.scene.objects]
        told["box"] = reader.scene.objects[0].frames[0].box_full
        told["depth"] = float(reader.depth()[0][ids_THW[0] == 1].min())
        told["flow"] = flow.forward[0][ids_THW[0] == 1].mean(axis=0).tolist()
        told["still"] = float(abs(flow.forward[0][ids_THW[0] != 1]).max())
    return told


def test_a_custom_blend_has_truth_and_refuses_flow_of_what_changes_its_shape(tmp_path: Path) -> None:
    told = run_in_blender(told_of, str(tmp_path))
    assert told["names"] == ["Ball", "Card", "Wall"] and told["box"] is None
    assert told["depth"] == pytest.approx(5.55, abs=0.01)
    assert told["flow"] == pytest.approx([STEP_PX, 0.0], abs=0.15) and told["still"] == 0.0
    assert told["waving"] == ("truth has no flow for this .blend: 'Ball' changes its shape; take 'flow' out of truth.passes")
