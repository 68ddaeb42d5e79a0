"""What the extension's tests do inside Blender: `python extension_scenarios.py SCENARIO USER-FOLDER OUT.json [ARGUMENTS]`.

Each scenario runs in a process of its own, with the Blender user folder where the extension was installed, and writes what it
saw as JSON. Nothing of Stopdown is imported before Blender has put the extension's own wheel on the path.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

from extension_files import as_an_artist_would, custom_blend, hostile_file
from extension_inside import ADDON, commands, complaint, enabled, footprint, quietly, session

TESTS = Path(__file__).resolve().parents[1]
HOLDING = [str(TESTS / "hold_in_child"), str(TESTS)]


def install(zip_file: str) -> dict[str, Any]:
    """Install the zip as Blender does, then switch the extension off, on and off again."""
    import bpy

    seen: dict[str, Any] = {"before": footprint()}
    with commands() as found:
        seen["installed"] = sorted(
            bpy.ops.extensions.package_install_files(filepath=zip_file, repo="user_default", enable_on_install=True)
        )
        seen["lazy"] = "generator" not in sys.modules and "pydantic" not in sys.modules
        seen["on"], seen["commands_on"] = footprint(), sorted(found)
        bpy.ops.preferences.addon_disable(module=ADDON)
        seen["off"], seen["commands_off"] = footprint(), sorted(found)
        enabled()
        seen["on_again"] = footprint()
        bpy.ops.preferences.addon_disable(module=ADDON)
        seen["off_again"] = footprint()
    enabled()
    import generator

    seen["wheel"] = str(generator.__path__[0])
    return seen


@contextlib.contextmanager
def without(*packages: str) -> Iterator[None]:
    """Let packages be missing, as they are where the extension's wheels do not fit this Blender."""
    sys.modules.update(dict.fromkeys(packages))
    try:
        yield
    finally:
        for package in packages:
            del sys.modules[package]


def recipes(recipe: str, folder: str) -> dict[str, Any]:
    """Open a recipe, change it in the panel, save it elsewhere, and be refused with bad ones."""
    import bpy

    module = enabled()
    seen: dict[str, Any] = {}
    with without("scenes", "generator"):
        seen["no_packages"] = complaint(bpy.ops.stopdown.open_recipe, filepath=recipe)
        bpy.context.scene.stopdown.live = True
        seen["no_packages_live"] = bpy.context.scene.stopdown.complaint
        bpy.context.scene.stopdown.live = False
        seen["no_packages_code"] = sys.modules[f"{module.__name__}.cli"].run(["plan", recipe])
    seen["opened"] = sorted(bpy.ops.stopdown.open_recipe(filepath=recipe))
    mine = session()
    fields = ("dataset_name", "seed", "width", "layers", "frames", "scenes_per_layer", "fidelity")
    seen["fields"] = {name: getattr(mine, name) for name in fields} | {
        "axes": sorted(mine.axes),
        "families": sorted(mine.families),
    }
    mine.seed, mine.layers = 12, "3, 1"
    seen["saved"] = sorted(bpy.ops.stopdown.save_recipe(filepath=f"{folder}/other.toml"))
    seen["text"] = Path(folder, "other.toml").read_text()
    seen["missing"] = complaint(bpy.ops.stopdown.open_recipe, filepath=f"{folder}/othr.toml")
    mine.layers = "3, many"
    seen["bad_layers"] = complaint(bpy.ops.stopdown.save_recipe, filepath=f"{folder}/bad.toml")
    mine.layers, mine.families = "3", {"tabletop"}
    seen["bad_family"] = complaint(bpy.ops.stopdown.draw_scene)
    mine.families, mine.pyramid = {"flyby"}, 3
    seen["bad_pyramid"] = complaint(bpy.ops.stopdown.draw_scene)
    Path(folder, "broken.toml").write_text("name = ")
    seen["broken"] = complaint(bpy.ops.stopdown.open_recipe, filepath=f"{folder}/broken.toml")
    seen["files"] = sorted(path.name for path in Path(folder).iterdir())
    return seen


def drawing(recipe: str) -> dict[str, Any]:
    """Draw a clip, drive its camera, undo it."""
    import bpy

    enabled()
    bpy.ops.stopdown.open_recipe(filepath=recipe)
    bpy.ops.ed.undo_push(message="before")
    before = sorted(bpy.data.scenes.keys()), sorted(bpy.data.objects.keys())
    seen: dict[str, Any] = {"no_clip": complaint(bpy.ops.stopdown.draw_scene, clip="flyby-s3-n3-f5-0000-9")}
    seen["drawn"] = sorted(bpy.ops.stopdown.draw_scene("EXEC_DEFAULT", True, clip="flyby-s3-n3-f5-0000-2"))
    scene = bpy.context.scene
    mover = scene.objects["flyer_0"]
    seen["scene"], seen["kept_scenes"] = scene.name, before[0][0] in bpy.data.scenes
    seen["keys"] = len(mover.animation_data.action.layers[0].strips[0].channelbags[0].fcurves)
    seen["material"] = mover.data.materials[0].name
    seen["exposure"] = scene.stopdown.shutter
    seen["blur"] = scene.render.motion_blur_shutter / scene.render.fps
    scene.stopdown.shutter = 0.02
    seen["slid"] = scene.render.motion_blur_shutter / scene.render.fps
    scene.stopdown.use_aperture, scene.stopdown.aperture = True, 2.0
    seen["f_number"] = scene.camera.data.dof.aperture_fstop
    scene.stopdown.use_temperature, scene.stopdown.temperature = True, 3200.0
    seen["cast"] = scene.compositing_node_group.name
    scene.stopdown.temperature = 6500.0
    seen["no_cast"] = scene.compositing_node_group is None and not [g for g in bpy.data.node_groups if "cast" in g.name]
    scene.stopdown.shutter = 0.5
    seen["too_long"] = scene.stopdown.complaint
    seen["unmoved"] = scene.render.motion_blur_shutter / scene.render.fps
    bpy.ops.ed.undo_push(message="after")
    for _ in range(2):
        bpy.ops.ed.undo()
    seen["undone"] = before == (sorted(bpy.data.scenes.keys()), sorted(bpy.data.objects.keys()))
    return seen


def plain(struct: Any) -> dict[str, str]:
    """Return every plain property of a Blender structure that can be set, but for one that says nothing any more."""
    kinds = {"BOOLEAN", "INT", "FLOAT", "STRING", "ENUM"}
    entries = [entry for entry in struct.bl_rna.properties if entry.type in kinds and not entry.is_readonly]
    values = {entry.identifier: getattr(struct, entry.identifier) for entry in entries if entry.identifier != "use_nodes"}
    return {name: repr(value[:]) if type(value).__name__ == "bpy_prop_array" else repr(value) for name, value in values.items()}


def settings_of(scene: Any) -> dict[str, Any]:
    """Return all of a scene's settings that a render could touch."""
    import bpy

    dof = scene.camera.data.dof
    parts = (scene, scene.render, scene.render.image_settings, scene.cycles, scene.view_settings, scene.camera.data, dof)
    points = [tuple(point.location) for point in scene.render.motion_blur_shutter_curve.curves[0].points]
    group = scene.compositing_node_group
    return {"plain": [plain(part) for part in parts], "focus": dof.focus_object and dof.focus_object.name, "curve": points,
            "group": group and group.name, "groups": len(bpy.data.node_groups)}  # fmt: skip


def users_scene() -> Any:
    """Return Blender's default scene, its settings far from the engine's."""
    import bpy

    scene = bpy.context.scene
    scene.frame_set(7)
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 96, 64, 50
    scene.render.fps, scene.render.fps_base = 16, 1.0
    scene.render.engine, scene.render.filepath = "BLENDER_WORKBENCH", "//mine_####"
    scene.render.image_settings.file_format = "JPEG"
    scene.render.image_settings.quality = 71
    scene.render.use_motion_blur, scene.render.motion_blur_shutter, scene.render.motion_blur_position = True, 0.37, "START"
    scene.render.motion_blur_shutter_curve.curves[0].points[0].location.y = 0.3
    scene.cycles.samples, scene.cycles.seed, scene.cycles.use_denoising = 77, 5, True
    scene.camera.data.dof.use_dof, scene.camera.data.dof.focus_object = True, bpy.data.objects["Cube"]
    scene.camera.data.dof.aperture_fstop, scene.camera.data.dof.aperture_blades = 3.3, 6
    return scene


def own_camera(recipe: str) -> dict[str, Any]:
    """Drive the camera of a custom .blend and preview it: everything comes back."""
    import bpy

    module = enabled()
    scene = users_scene()
    bpy.ops.stopdown.open_recipe(filepath=recipe)
    scene.render.fps = 24
    seen: dict[str, Any] = {"too_long": complaint(bpy.ops.stopdown.preview_sweep)}
    scene.render.fps = 16
    before = settings_of(scene)
    session().sweep_width, session().sweep_samples, session().sweep_count = 32, 4, 3
    seen["swept"] = sorted(bpy.ops.stopdown.preview_sweep())
    image = bpy.data.images["Stopdown sweep"]
    seen["strip"] = list(image.size)
    pixels = list(image.pixels)
    seen["contrast"] = max(pixels[0::4]) - min(pixels[0::4])
    seen["kept"] = settings_of(scene) == before
    mine = scene.stopdown
    mine.use_shutter, mine.use_temperature = True, True
    mine.live = True
    seen["live"] = scene.render.motion_blur_position == "CENTER" and scene.compositing_node_group is None
    mine.temperature = 2800.0
    seen["cast"] = scene.compositing_node_group is not None
    mine.shutter = 0.03
    seen["moved"] = settings_of(scene) != before
    bpy.ops.stopdown.restore_camera("EXEC_DEFAULT", True)
    after = settings_of(scene)
    seen["restored"] = after == before
    scene.compositing_node_group = bpy.data.node_groups.new("mine", "CompositorNodeTree")
    mine.live, mine.use_temperature = True, False
    seen["no_quarrel"] = mine.complaint
    mine.use_temperature = True
    seen["quarrel"], seen["mine"] = mine.complaint, scene.compositing_node_group.name
    mine.live = False
    bpy.data.node_groups.remove(scene.compositing_node_group)
    mine.live, mine.shutter = True, 0.02
    bpy.ops.preferences.addon_disable(module=ADDON)
    seen["given_back"] = settings_of(scene) == before
    enabled()
    session().axes, session().families = {"shutter"}, {"flyby"}
    scene.camera = None
    seen["no_camera"] = complaint(bpy.ops.stopdown.preview_sweep)
    seen["module"] = module.__name__
    return seen


def interrupted_sweep() -> dict[str, Any]:
    """Let a render fail inside `kept`: the settings come back all the same."""
    module = enabled()
    scene = users_scene()
    before = settings_of(scene)
    kept = sys.modules[f"{module.__name__}.kept"].kept
    try:
        with kept(scene):
            scene.render.engine, scene.cycles.samples = "CYCLES", 1
            scene.render.image_settings.media_type = "IMAGE"
            scene.render.image_settings.file_format, scene.render.image_settings.color_depth = "OPEN_EXR", "32"
            scene.camera.data.dof.focus_object = None
            raise KeyError("render")
    except KeyError:
        return {"kept": settings_of(scene) == before}
    return {}


def command_line(recipe: str, out: str) -> dict[str, Any]:
    """Use the registered command as `blender --command stopdown` does."""
    seen: dict[str, Any] = {}
    with commands() as found:
        enabled()
        for name, words in {
            "plan": ["plan", recipe, "--json"],
            "build": ["build", recipe, "--out", out, "--workers", "1"],
            "verify": ["verify", out, "--workers", "1"],
            "missing": ["plan", "none.toml"],
        }.items():
            seen[name] = quietly(found["stopdown"], words, f"{out}.{name}")
    return seen


def ticked(job_module: Any, job: Any) -> tuple[list[str], list[list[str]]]:
    """Let the Build operator's timer tick until it ends, as a window would; return how it ended and what it reported."""
    import bpy

    reports: list[list[str]] = []
    operator = SimpleNamespace(_timer=None, report=lambda kind, words: reports.append([*sorted(kind), words]))
    for name in ("_end", "_remove_timer"):
        setattr(operator, name, MethodType(getattr(job_module.STOPDOWN_OT_build, name), operator))
    context = SimpleNamespace(window_manager=bpy.context.window_manager, screen=bpy.context.window.screen)
    modal = job_module.STOPDOWN_OT_build.modal
    assert modal(operator, context, SimpleNamespace(type="MOUSEMOVE")) == {"PASS_THROUGH"}
    while (ended := modal(operator, context, SimpleNamespace(type="TIMER"))) == {"PASS_THROUGH"}:
        job.wait(0.05)
    return sorted(ended), reports


def building(recipe: str, out: str, missing: str) -> dict[str, Any]:
    """Build, cancel, resume, and open what was built."""
    import bpy

    module = enabled()
    job_module = sys.modules[f"{module.__name__}.build_job"]
    bpy.ops.stopdown.open_recipe(filepath=recipe)
    mine = session()
    mine.recipe, saved = "", mine.recipe
    seen: dict[str, Any] = {"no_recipe": complaint(bpy.ops.stopdown.build)}
    mine.recipe, mine.out = saved, ""
    seen["no_folder"] = complaint(bpy.ops.stopdown.build)
    mine.out = out
    words = job_module.build_words(mine)
    held = Path(out).with_suffix(".hold")  # the build waits after its first clip, so that it is there to be cancelled
    held.touch()
    os.environ |= {"PYTHONPATH": os.pathsep.join(HOLDING), "STOPDOWN_TEST_HOLD": f"1:{held}"}
    job_module.RUNNING.append(job_module.Job(words))
    del os.environ["PYTHONPATH"], os.environ["STOPDOWN_TEST_HOLD"]
    job = job_module.RUNNING[0]
    seen["one_at_a_time"] = not bpy.ops.stopdown.build.poll() and bpy.ops.stopdown.cancel_build.poll()
    done = 0
    while not done and job.code is None:
        job.wait(0.05)
        done = sum(event["event"] == "done" for event in job.events())
    bpy.ops.stopdown.cancel_build()
    seen["cancelled"], seen["cancelled_reports"] = ticked(job_module, job)
    seen["cancelled_code"] = job.code
    seen["built"] = sorted(bpy.ops.stopdown.build())
    seen["words"], seen["share"] = mine.build_words, round(mine.build_share, 3)
    mine.out = missing
    seen["bad_folder"] = complaint(bpy.ops.stopdown.build)
    seen["bad_dataset"] = complaint(bpy.ops.stopdown.open_dataset)
    mine.out = out
    seen["opened"] = sorted(bpy.ops.stopdown.open_dataset())
    seen["rows"] = [[row.clip_id, row.labels, row.caption] for row in mine.rows]
    seen["shown"] = sorted(bpy.ops.stopdown.open_clip())
    seen["image"] = [bpy.data.images[mine.rows[0].clip_id].source, *bpy.data.images[mine.rows[0].clip_id].size]
    seen["at_version"] = sorted(bpy.ops.stopdown.open_dataset(ref="latest"))
    seen["version_rows"] = [[row.clip_id, row.labels, row.caption] for row in mine.rows]
    import generator

    seen["wheel_kept"] = Path(generator.__path__[0], "card", "files.py").is_file()
    seen["bad_ref"] = complaint(bpy.ops.stopdown.open_dataset, ref="v99")
    return seen


SCENARIOS: dict[str, Callable[..., dict[str, Any]]] = {
    scenario.__name__: scenario
    for scenario in (
        install,
        recipes,
        drawing,
        own_camera,
        interrupted_sweep,
        command_line,
        building,
        as_an_artist_would,
        hostile_file,
        custom_blend,
    )
}


def main() -> None:
    """Run one scenario and write what it saw."""
    name, user, out, *arguments = sys.argv[1:]
    os.environ["BLENDER_USER_RESOURCES"] = user
    seen = SCENARIOS[name](*arguments)
    Path(out).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
