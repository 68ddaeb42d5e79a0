"""What ground truth costs: CPU seconds of every pass of a scene's truth against those of its clips, in one run.

    python benchmarks/truth_cost.py [RECIPE ...] [--scenes N] [--layers 5]

Scenes are taken from each layer of the recipes (9, 7, 5, 3 and 1 clips), so that the ratio is that of a whole dataset. A
clip is counted as a build makes it: rendered, developed, encoded, decoded, hashed and read by its probes. One thread, no build
around it: both sides run in this process, in turns, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from generator.building.scene_jobs import scene_jobs
from generator.recipe.load import load_recipe
from generator.recipe.plan import Plan, make_plan
from generator.recipe.truth_section import PASSES, TruthPasses
from generator.render.engine.start import start_blender
from generator.render.messages import Failed, SceneJob, WorkerSettings
from generator.render.scene_renderer import SceneRenderer
from generator.render.worker import render_scene
from generator.store.record_keys import clip_keys

BAR = 0.35
RECIPES = ("examples/shutter.toml", "examples/aperture.toml", "examples/temperature.toml")
FRAMES = 9


def with_truth(plan: Plan) -> Plan:
    """Return the plan with every pass of truth."""
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"truth": TruthPasses(passes=PASSES)})})


def jobs_of(plan: Plan, scenes: int, layers: list[int]) -> list[SceneJob]:
    """Return one job for each of the first scenes of these layers (none named: of all), at the recipe's longest clips."""
    chosen: dict[int, list[str]] = defaultdict(list)
    for clip in plan.clips:
        if layers and clip.layer not in layers:
            continue
        if clip.frames == FRAMES and clip.scene_id not in chosen[clip.layer] and len(chosen[clip.layer]) < scenes:
            chosen[clip.layer].append(clip.scene_id)
    ids = {scene_id for some in chosen.values() for scene_id in some}
    clips = [clip for clip in plan.clips if clip.scene_id in ids]
    return scene_jobs(plan, clips, clip_keys(plan, "bench"), "bench")


def seconds(job: SceneJob, plan: Plan) -> float:
    """Return the CPU seconds of rendering a scene's clips into a new store, with the truth that the job asks for."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = plan.recipe
        settings = WorkerSettings(store=Path(folder), render=recipe.render, video=recipe.video, threads=1, blender="bench")
        failures: list[str] = []

        def tell(event: object) -> None:
            if isinstance(event, Failed):
                failures.append(event.message)

        start_s = time.process_time()
        render_scene(job, settings, lambda spec: SceneRenderer(spec, recipe.render, 1), tell)
        if failures:
            raise SystemExit(f"{job.scene_id}: {failures[0]}")
        return time.process_time() - start_s


def main() -> None:
    """Print a table by recipe and the ratio over all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--scenes", type=int, default=1, help="scenes of each layer")
    parser.add_argument(
        "--layers", type=int, nargs="*", default=[], help="layers; 5 alone has the pyramid's mean clips a scene"
    )
    options = parser.parse_args()
    total = [0.0, 0.0]
    print("| recipe | scenes | clips | clips alone, CPU s | with truth, CPU s | added |")
    print("|---|---|---|---|---|---|")
    for file in options.recipes:
        plain = make_plan(load_recipe(Path(file)))
        truth = with_truth(plain)
        sums = [0.0, 0.0]
        jobs = (jobs_of(plan, options.scenes, options.layers) for plan in (plain, truth))
        pairs = list(zip(*jobs, strict=True))
        start_blender(1)
        for one, two in pairs:
            sums[0] += seconds(one, plain)
            sums[1] += seconds(two, truth)
        clips = sum(len(job.clips) for job, _ in pairs)
        added = sums[1] / sums[0] - 1.0
        print(f"| {plain.name} | {len(pairs)} | {clips} | {sums[0]:.1f} | {sums[1]:.1f} | {added:+.0%} |", flush=True)
        total = [total[0] + sums[0], total[1] + sums[1]]
    ratio = total[1] / total[0] - 1.0
    print(f"\nall together {ratio:+.0%}; the bar is {BAR:+.0%}: {'met' if ratio <= BAR else 'missed'}")


if __name__ == "__main__":
    main()
