"""Cutting a plan into shards: a pure function of the plan and their number, so that machines need not talk to agree.

Scenes are dealt out longest first, each to the shard with least to do (LPT; Graham, 1969), by the cost that `stopdown plan`
estimates. A scene dearer than an eighth of a shard's fair part is dealt out render by render; clips that share a render stay
together. So no shard has more to do than its fair part and one such piece.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from generator.estimate import finish_cpu_s, render_cpu_s, shares_render
from generator.plan import ClipPlan, Plan
from scenes.errors import InputError

MAX_SHARDS = 1_000_000
_PIECES = 8  # a scene is cut where it is more than this part of a shard's fair part
_SHARD = re.compile(r"(\d{1,7})/(\d{1,7})")

# A render that takes so many times its estimate hangs; the floor covers loading Blender on a slow disk.
_PATIENCE = 50.0
_LEAST_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Shard:
    """The shard numbered `index` of `count`, from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """What its worker is called in beats."""
        return f"shard-{self.index}-of-{self.count}"


def parse_shard(text: str) -> Shard:
    """Return the shard of a text such as `3/64`; raises InputError."""
    match = _SHARD.fullmatch(text)
    if match is None:
        raise InputError(f"--shard '{text}' is none; give its number and how many there are, from 1/64 to 64/64")
    shard = Shard(int(match[1]), int(match[2]))
    if not 1 <= shard.count <= MAX_SHARDS:
        raise InputError(f"--shard {text}: {shard.count} shards; give 1 to {MAX_SHARDS}")
    if not 1 <= shard.index <= shard.count:
        raise InputError(f"--shard {text}: there is no shard {shard.index} of {shard.count}; give 1 to {shard.count}")
    return shard


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Clips of one scene that go to one shard together, and their estimated CPU seconds."""

    clips: tuple[ClipPlan, ...]
    cost_s: float


def clip_cost_s(plan: Plan, clips: Sequence[ClipPlan]) -> float:
    """Return the estimated CPU seconds of clips of one scene, of which those with equal optics share a render."""
    first = clips[0]
    shared = shares_render(plan.recipe, first.pyramid)
    renders = 1 if shared else len({clip.optics for clip in clips})
    render_s, finish_s = render_cpu_s(plan.recipe, first.pyramid, first.frames), finish_cpu_s(plan.recipe, first.frames)
    return renders * render_s + len(clips) * finish_s


def pieces(plan: Plan, count: int) -> list[Piece]:
    """Return the pieces that are dealt out to `count` shards, in the plan's order."""
    scenes: dict[str, list[ClipPlan]] = defaultdict(list)
    for clip in plan.clips:
        scenes[clip.scene_id].append(clip)
    whole = [Piece(clips=tuple(clips), cost_s=clip_cost_s(plan, clips)) for clips in scenes.values()]
    most_s = sum(piece.cost_s for piece in whole) / count / _PIECES
    return [part for piece in whole for part in (_cut(plan, piece) if piece.cost_s > most_s else (piece,))]


def deal(plan: Plan, count: int) -> list[list[Piece]]:
    """Return the pieces of every shard, in the plan's order within each."""
    every = pieces(plan, count)
    loads = [(0.0, shard) for shard in range(count)]
    shard_of: dict[int, int] = {}
    for position in sorted(range(len(every)), key=lambda position: (-every[position].cost_s, position)):
        load_s, shard = loads[0]
        shard_of[position] = shard
        heapq.heapreplace(loads, (load_s + every[position].cost_s, shard))
    dealt: list[list[Piece]] = [[] for _ in range(count)]
    for position, piece in enumerate(every):
        dealt[shard_of[position]].append(piece)
    return dealt


def shard_clips(plan: Plan, shard: Shard) -> list[ClipPlan]:
    """Return the clips of one shard, in the plan's order."""
    return [clip for piece in deal(plan, shard.count)[shard.index - 1] for clip in piece.clips]


def shards_of(plan: Plan, count: int, clips: Iterable[ClipPlan]) -> list[int]:
    """Return the numbers (from 1) of the shards, of `count`, that clips belong to."""
    wanted = {clip.clip_id for clip in clips}
    return [
        number
        for number, dealt in enumerate(deal(plan, count), start=1)
        if any(clip.clip_id in wanted for piece in dealt for clip in piece.clips)
    ]


def time_limit_s(plan: Plan, threads: int) -> float:
    """Return how many seconds one clip may take before its render counts as stuck, from the plan's estimate."""
    kinds = {(clip.pyramid, clip.frames) for clip in plan.clips}
    most_s = max(render_cpu_s(plan.recipe, pyramid, frames) + finish_cpu_s(plan.recipe, frames) for pyramid, frames in kinds)
    return max(_LEAST_PATIENCE_S, _PATIENCE * most_s / threads)


def _cut(plan: Plan, piece: Piece) -> list[Piece]:
    groups: dict[object, list[ClipPlan]] = defaultdict(list)
    for clip in piece.clips:
        groups[clip.optics].append(clip)
    return [Piece(clips=tuple(clips), cost_s=clip_cost_s(plan, clips)) for clips in groups.values()]
