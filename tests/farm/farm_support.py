"""A tiny plan with uneven scenes, and shards of it built in one process that keeps Blender warm."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from generator.console.progress import JsonProgress, Progress
from generator.farm.parts import HeldParts, Parts
from generator.farm.shard_build import ShardOptions, build_shard
from generator.farm.shards import Shard, piece_clips, shard_pieces
from generator.farm.target import Target, open_target
from generator.io.checksummed_json import sha256
from generator.recipe.blend_file import FOLDER
from generator.recipe.load import parse_recipe
from generator.recipe.plan import ClipPlan, Plan, make_plan, plan_of
from generator.remotes.folder import FolderRemote
from generator.remotes.retry import Retry
from generator.render.messages import Done, Event, Failed, SceneJob, WorkerSettings
from generator.render.pool import PoolOptions
from generator.store.objects import ClipRecord, Store
from generator.versions.history.version import Version

ROOT = Path(__file__).parents[2]
BLENDER = "5.0.1"
RECIPE = """
name = "farm"
seed = 11
[video]
width = 64
height = 64
[render]
samples = 4
[[pyramid]]
axes = ["aperture"]
family = ["depth_row"]
layers = [9, 7, 3]
scenes_per_layer = 3
frames = [1]
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [5, 1]
scenes_per_layer = 4
frames = [1]
[[pyramid]]
axes = ["shutter"]
family = ["flyby"]
layers = [3]
scenes_per_layer = 1
frames = [5]
"""


def farm_plan(text: str = RECIPE) -> Plan:
    """Return the plan of a recipe's text."""
    return make_plan(parse_recipe(text, source="farm.toml"))


def parts_of(plan: Plan) -> Parts:
    """Return the parts of a plan, of which none lies in a store."""
    return HeldParts(plan, FolderRemote(ROOT / "no-store"), hasty())


def shard_clips(plan: Plan, shard: Shard) -> list[ClipPlan]:
    """Return the clips of one shard, in the plan's order."""
    parts = parts_of(plan)
    mine = shard_pieces(parts, shard)
    return [clip for number in sorted(mine) for clip in piece_clips(mine[number], parts.part(number))]


def shards_of(plan: Plan, count: int, clips: list[ClipPlan]) -> list[int]:
    """Return the numbers of the shards that clips belong to."""
    ids = {clip.clip_id for clip in clips}
    mine = {number: shard_clips(plan, Shard(number, count)) for number in range(1, count + 1)}
    return [number for number, its_clips in mine.items() if ids & {clip.clip_id for clip in its_clips}]


def whole(parts: Parts) -> Plan:
    """Return the plan that parts make up."""
    plans = [parts.part(number) for number in range(parts.count)]
    scenes = (scene for plan in plans for scene in plan.scenes)
    return plan_of(parts.recipe, scenes, (clip for plan in plans for clip in plan.clips))


def quiet() -> Progress:
    """Return a progress that no one sees."""
    return JsonProgress(io.StringIO())


def hasty() -> Retry:
    """Return a retry that tries as often as any but waits for nothing."""
    return Retry(sleep=lambda _: None)


def timeless(version: Version) -> str:
    """Return the id that a version would have, had it been committed at another version's second."""
    return version.model_copy(update={"time": ""}).id


def render_here(
    settings: WorkerSettings,
    options: PoolOptions,
    jobs: Iterable[SceneJob],
    progress: Progress,
    on_done: Callable[[str, float], None],
) -> dict[str, str]:
    """Render jobs in this process, which must be one of its own for Blender; no clip is tried twice."""
    from generator.render.engine.start import start_blender, use_own_settings
    from generator.render.scene_renderer import SceneRenderer
    from generator.render.worker import render_scene

    failed: dict[str, str] = {}
    if "bpy" not in sys.modules:
        use_own_settings(settings.store.parents[2] / "blender")  # beside the scratch folder
        start_blender(settings.threads)

    def send(event: Event) -> None:
        match event:
            case Done(clip_id, cpu_s):
                on_done(clip_id, cpu_s)
            case Failed(clip_id, message):
                failed[clip_id] = message

    for job in jobs:
        render_scene(
            job, settings, lambda spec: SceneRenderer(spec, settings.render, settings.threads, settings.store / FOLDER), send
        )
    return failed


def run_shards(where: str, shards: list[Shard], scratch: Path) -> list[tuple[str, int, int]]:
    """Build shards one after the other; return of each its name, the clips rendered and those that were there."""
    target = open_target(where, farm_plan(), blender=BLENDER)
    done = []
    for shard in shards:
        report = build_shard(target, shard, options=ShardOptions(scratch=scratch), progress=quiet(), render=render_here)
        assert not report.failed, report.failed
        done.append((str(shard), report.rendered, report.reused))
    return done


def records_of(target: Target) -> dict[str, bytes]:
    """Return the bytes of every record of a target's plan, by clip id."""
    return {clip_id: target.remote.read(f"records/{key[:2]}/{key}.json") or b"" for clip_id, key in target.keys.items()}


def begin(target: Target) -> None:
    """Put every part of the plan into the store, as whoever renders of them does first."""
    assert target.parts is not None
    for number in range(target.parts.count):
        target.part(number)


def fake_clips(target: Target, scratch: Store, count: int) -> list[str]:
    """Put clips of random bytes for the plan's first ids into a scratch store."""
    begin(target)
    rng = random.Random(4)
    ids = [clip.clip_id for clip in target.plan.clips[:count]]
    for clip_id in ids:
        data, still = rng.randbytes(300), rng.randbytes(50)
        scratch.put_record(
            ClipRecord(
                key=target.keys[clip_id],
                sha256_bytes=scratch.put(data),
                sha256_frames=sha256(data),
                size_bytes=len(data),
                frames={"0000.png": scratch.put(still)},
                blender=BLENDER,
                encoder="x",
                cpu_s=0.1,
            )
        )
    return ids


def made(path: Path) -> Path:
    """Return a folder that was not there."""
    path.mkdir()
    return path
