"""What a build on Ray has yet to render: scenes, and what comes back from slots that die.

Jobs are made when they are asked for: of the plan two parts are held, and beside them one scene per slot and what failed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Mapping
from dataclasses import replace

from generator.building.scene_jobs import scene_jobs, spread
from generator.farm.missing import lookup
from generator.farm.parts import Parts
from generator.farm.prefetch import prefetch
from generator.farm.shards import SceneCosts
from generator.farm.target import Target
from generator.render.messages import ClipJob, SceneJob

MAX_ATTEMPTS = 3
MOST_RETRIES = 64  # clips that failed and wait for the end: what is held must not grow with the build


def missing_counts(target: Target) -> dict[int, int]:
    """Return how many clips are missing in a store by part of the plan, where any are; all are where no one has begun."""
    assert isinstance(target.parts, Parts), "a target for reading renders nothing"
    counts: dict[int, int] = {}
    with lookup(target) as missing:
        for number in range(target.parts.count):
            part = target.stored_part(number)
            counts[number] = sum(key.clips for key in target.parts.keys(number)) if part is None else len(missing(part))
    return {number: count for number, count in counts.items() if count}


class PendingWork:
    """The clips to render, handed out scene by scene; attempts are counted here, and failures kept."""

    def __init__(self, target: Target, counts: Mapping[int, int]) -> None:
        """Take what is missing, by part of the plan (`missing_counts`)."""
        self._fresh = self._jobs(target, counts)
        self._returned: deque[SceneJob] = deque()
        self._retries: deque[SceneJob] = deque()
        self._attempts: Counter[str] = Counter()
        self.left = sum(counts.values())
        self.failed: dict[str, str] = {}

    def take(self) -> SceneJob | None:
        """Return clips of one scene for a slot: what another gave back, a scene not begun, or else a clip to try again."""
        if self._returned:
            return self._returned.popleft()
        fresh = None if len(self._retries) >= MOST_RETRIES else next(self._fresh, None)
        if fresh is not None:
            return fresh
        return self._retries.popleft() if self._retries else None

    def give_back(self, job: SceneJob) -> None:
        """Take back clips that no one has failed on."""
        if job.clips:
            self._returned.append(job)

    def finish(self, clip_id: str) -> None:
        """Count a clip that is in the store."""
        self._attempts.pop(clip_id, None)
        self.left -= 1

    def close(self) -> None:
        """Draw no more of the plan."""
        self._fresh.close()

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

    def _jobs(self, target: Target, counts: Mapping[int, int]) -> Generator[SceneJob, None, None]:
        """Yield scenes, the dearest parts first, one part ahead; what others have put meanwhile is not left to render."""
        assert isinstance(target.parts, Parts), "a target for reading renders nothing"
        costs, keys = SceneCosts(target.parts.recipe), target.parts.keys
        dearest = {number: max(costs.of(key)[0] for key in keys(number)) for number in counts}
        order = sorted(counts, key=lambda number: -dearest[number])
        for number, part in zip(order, prefetch(target.part, order), strict=True):
            missing = part.missing()
            self.left -= counts[number] - len(missing)
            record_keys = {clip.clip_id: part.keys[clip.clip_id] for clip in missing}
            yield from scene_jobs(part.plan, missing, record_keys, target.blender)


def one(job: SceneJob, clip: ClipJob) -> SceneJob:
    """Return the job of one clip of a scene."""
    return replace(job, clips=(clip,))


def halved(job: SceneJob) -> tuple[SceneJob, SceneJob] | None:
    """Cut a scene's clips in two parts that share no render, or return None where they share one."""
    parts = spread([job], 2)
    return (parts[0], parts[1]) if len(parts) == 2 else None
