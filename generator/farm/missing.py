"""The missing clips of a plan in a store, part by part: asked for one by one where they are few, else by lists on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from generator.farm.target import Target
from generator.io.spill_map import SpillMap
from generator.recipe.plan import ClipPlan

LISTED_FROM = 2048  # clips
BUCKETS = tuple(f"records/{bucket:02x}" for bucket in range(256))


@contextmanager
def lookup(target: Target) -> Iterator[Callable[[Target], list[ClipPlan]]]:
    """Yield what returns the clips of a part that have no record, as the store is now."""
    if target.of < LISTED_FROM:
        yield lambda part: part.missing()
        return
    with SpillMap() as there:
        for paths in record_paths(target):
            there.put((path.rpartition("/")[2].removesuffix(".json"), None) for path in paths)
        yield lambda part: [clip for clip in part.plan.clips if part.keys[clip.clip_id] not in there]


def record_paths(target: Target) -> Iterator[list[str]]:
    """Yield the records that a store has, folder by folder; an empty one was set aside as damaged."""
    for folder in BUCKETS:
        sizes = target.retry.of(partial(target.remote.sizes, folder))
        yield [path for path, size in sizes.items() if size]
