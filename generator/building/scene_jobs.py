"""What the render processes are given: the pending clips of a plan by scene, with the ground truth that goes with each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from generator.recipe.plan import ClipPlan, Plan, canonical_json
from generator.render.messages import ClipJob, SceneJob, TruthJob
from generator.truth.truth_names import TRUTH_FORMAT
from scenes.spec import Optics


def scene_jobs(
    plan: Plan,
    pending: Sequence[ClipPlan],
    keys: dict[str, str],
    blender: str,
    donors: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> list[SceneJob]:
    """Return the pending clips by scene, the scenes with most frames to render first, so that none is left at the end.

    `donors` are by clip id the keys of records that have its frames already, with other truth beside them.
    """
    by_scene: dict[str, list[ClipJob]] = defaultdict(list)
    for clip in pending:
        by_scene[clip.scene_id].append(
            ClipJob(
                clip_id=clip.clip_id,
                key=keys[clip.clip_id],
                optics=clip.optics,
                values=clip.values,
                donors=donors.get(clip.clip_id, ()),
            )
        )
    jobs = [
        SceneJob(
            scene_id=scene_id,
            spec=plan.scene_by_id[scene_id].spec,
            clips=tuple(clips),
            truth=truth_job(plan, scene_id, blender),
        )
        for scene_id, clips in by_scene.items()
    ]
    return sorted(jobs, key=_frames_to_render, reverse=True)


def truth_job(plan: Plan, scene_id: str, blender: str) -> TruthJob | None:
    """Return the ground truth that a scene of a plan has, or None for a recipe without any."""
    truth = plan.recipe.truth
    if truth is None:
        return None
    tree = {
        "format": TRUTH_FORMAT,
        "passes": truth.passes,
        "blender": blender,
        "spec": plan.scene_by_id[scene_id].spec.model_dump(mode="json"),
        "render": plan.recipe.render.model_dump(mode="json"),
        "video": plan.recipe.video.model_dump(mode="json"),
    }
    return TruthJob(key=hashlib.sha256(canonical_json(tree).encode()).hexdigest(), passes=truth.passes)


def spread(jobs: list[SceneJob], workers: int) -> list[SceneJob]:
    """Cut the longest scenes in two while there are fewer scenes than workers; clips that share a render stay together."""
    jobs = list(jobs)
    while len(jobs) < workers:
        long = next((job for job in jobs if len(_by_optics(job)) > 1), None)
        if long is None:
            break
        groups = _by_optics(long)
        half = len(groups) // 2
        jobs.remove(long)
        for part in (groups[:half], groups[half:]):
            clips = tuple(clip for group in part for clip in group)
            jobs.append(replace(long, clips=clips))
        jobs.sort(key=_frames_to_render, reverse=True)
    return jobs


def _by_optics(job: SceneJob) -> list[list[ClipJob]]:
    groups: dict[Optics, list[ClipJob]] = defaultdict(list)
    for clip in job.clips:
        groups[clip.optics].append(clip)
    return list(groups.values())


def _frames_to_render(job: SceneJob) -> int:
    return len(_by_optics(job)) * job.spec.shot.frames
