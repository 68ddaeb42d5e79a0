"""A tiny real plan, and a program that builds it, which the kill tests start and kill: `python tests/tiny.py OUT [options]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from held import HeldProgress

from generator.building.local import build
from generator.console.progress import make_progress
from generator.recipe.plan import ClipPlan, Plan, ScenePlan
from generator.recipe.schema import Recipe
from scenes.axes import AXES
from scenes.errors import StopdownError
from scenes.spec import Background, Camera, Light, Material, Motion, SceneSpec, Shot, Solid

FRAMES = {"shutter": 5, "aperture": 1, "temperature": 1}
FAMILY = {"shutter": "flyby", "aperture": "depth_row", "temperature": "tabletop"}
CONTROLS = (-0.8, 0.1, 0.9)
AXIS_OF_SCENE = ("shutter", "temperature", "shutter", "aperture", "shutter")


def spec(number: int, axis: str, kind: str = "sphere") -> SceneSpec:
    """Return a small scene: a moving (shutter) or still solid before a grey card."""
    velocity = (1.2 + 0.3 * number, 0.0, 0.0) if axis == "shutter" else (0.0, 0.0, 0.0)
    red = Material(color_name="red", albedo=(0.63, 0.024, 0.024))
    grey = Material(color_name="grey", albedo=(0.26, 0.26, 0.26))
    return SceneSpec(
        family=FAMILY[axis],
        shot=Shot(width=64, height=64, fps=16, frames=FRAMES[axis]),
        camera=Camera(
            location_m=(0.0, -4.0, 0.0), target_m=(0.0, 0.0, 0.0), focal_length_mm=50.0, focus_distance_m=4.0
        ),
        light=Light(direction=(0.4, -0.6, 0.7)),
        background=Background(name="pale blue", bottom=(0.74, 0.82, 0.88), top=(0.46, 0.62, 0.79)),
        solids=(
            Solid(
                name="subject",
                role="subject",
                kind=kind,
                scale_m=(0.6, 0.6, 0.6),
                material=red,
                motion=Motion(location_m=(-0.3, 0.1 * number, 0.3), velocity_m_per_s=velocity),
            ),
            Solid(
                name="card", role="patch", kind="cube", scale_m=(0.8, 0.1, 0.5), material=grey,
                motion=Motion(location_m=(0.2, 0.6, -0.6)),
            ),
        ),
    )  # fmt: skip


def plan(*, poison: int | None = None, keep_frames: tuple[str, ...] = ()) -> Plan:
    """Return five scenes of three clips each; the scene numbered `poison` names a mesh that no renderer knows."""
    pyramids = [{"axes": [axis], "family": [FAMILY[axis]], "layers": [3], "frames": [FRAMES[axis]]} for axis in FAMILY]
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "seed": 7,
            "video": {"width": 64, "height": 64, "keep_frames": list(keep_frames)},
            "render": {"samples": 16},
            "pyramid": pyramids,
        }
    )
    scenes, clips = [], []
    for number, axis in enumerate(AXIS_OF_SCENE):
        scene_id = f"tiny-{number}"
        ids = tuple(f"{scene_id}-{index}" for index in range(len(CONTROLS)))
        kind = "no-such-kind" if number == poison else ("sphere", "cube", "cone", "torus", "cylinder")[number]
        scenes.append(ScenePlan(scene_id=scene_id, spec=spec(number, axis, kind), clip_ids=ids))
        for index, control in enumerate(CONTROLS):
            clips.append(
                ClipPlan(
                    clip_id=ids[index], scene_id=scene_id, pyramid=list(FAMILY).index(axis), layer=3, scene=number,
                    index=index, frames=FRAMES[axis], family=FAMILY[axis], axes=(axis,), controls={axis: control},
                    values={axis: AXES[axis].default_law.value(control)}, caption=f"a red solid, scene {number}",
                )
            )  # fmt: skip
    plan = Plan(name="tiny", seed=7, recipe=recipe, scenes=tuple(scenes), clips=tuple(clips))
    return Plan.from_json(plan.to_json())  # rounded, as plans are


def main() -> int:
    """Build the tiny plan as `stopdown build --json` would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hold", nargs=2, metavar=("CLIPS", "FILE"), help="wait after so many clips while a file exists")
    options = parser.parse_args()
    progress = make_progress(sys.stdout, json_lines=True)
    if options.hold:
        progress = HeldProgress(sys.stdout, int(options.hold[0]), Path(options.hold[1]))
    try:
        report = build(plan(), options.out, workers=options.workers, threads=1, progress=progress)
    except StopdownError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
