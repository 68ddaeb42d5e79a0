"""What a build on Ray has yet to render: scenes, and what comes back from slots that die.

Jobs are made when they are asked for: beside the plan and a list of its clips, there is one scene per slot and what failed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from generator.build import scene_jobs, spread
from generator.farm.shards import clip_cost_s
from generator.farm.target import Target
from generator.plan import ClipPlan
from generator.render.messages import ClipJob, SceneJob

MAX_ATTEMPTS = 3


class Work:
    """The clips to render, handed out scene by scene; attempts are counted here, and failures kept."""

    def __init__(self, target: Target, missing: Iterable[ClipPlan]) -> None:
        """Take what is missing, the dearest scenes first, so that none is left at the end."""
        scenes = [list(clips) for _, clips in groupby(missing, key=lambda clip: clip.scene_id)]
        scenes.sort(key=lambda clips: clip_cost_s(target.plan, clips), reverse=True)
        self._fresh = _jobs(target, scenes)
        self._returned: deque[SceneJob] = deque()
        self._retries: deque[SceneJob] = deque()
        self._attempts: Counter[str] = Counter()
        self.left = sum(len(clips) for clips in scenes)
        self.failed: dict[str, str] = {}

    def take(self) -> SceneJob | None:
        """Return clips of one scene for a slot: what another gave back, a scene not begun, or else a clip to try again."""
        if self._returned:
            return self._returned.popleft()
        fresh = next(self._fresh, None)
        if fresh is not None:
            return fresh
        return self._retries.popleft() if self._retries else None

    def give_back(self, job: SceneJob) -> None:
        """Take back clips that no one has failed on."""
        if job.clips:
            self._returned.append(job)

    def settle(self) -> None:
        """Count a clip that is in the store."""
        self.left -= 1

    def fail(self, job: SceneJob, message: str) -> bool:
        """Count a failure of the one clip of a job; return whether it will be tried again. After the third it has failed."""
        [clip] = job.clips
        self._attempts[clip.clip_id] += 1
        if self._attempts[clip.clip_id] < MAX_ATTEMPTS:
            self._retries.append(job)
            return True
        del self._attempts[clip.clip_id]
        self.failed[clip.clip_id] = message
        self.left -= 1
        return False


def one(job: SceneJob, clip: ClipJob) -> SceneJob:
    """Return the job of one clip of a scene."""
    return SceneJob(scene_id=job.scene_id, spec=job.spec, clips=(clip,))


def halved(job: SceneJob) -> tuple[SceneJob, SceneJob] | None:
    """Cut a scene's clips in two parts that share no render, or return None where they share one."""
    parts = spread([job], 2)
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _jobs(target: Target, scenes: list[list[ClipPlan]]) -> Iterator[SceneJob]:
    for clips in scenes:
        yield from scene_jobs(target.plan, clips, {clip.clip_id: target.keys[clip.clip_id] for clip in clips})
