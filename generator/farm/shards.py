"""Cutting a plan into shards: a pure function of the recipe and their number, so that machines need not talk to agree.

Pieces are dealt out longest first, each to the shard with least to do (LPT; Graham, 1969), by the cost that `stopdown plan`
estimates. A piece is a run of scenes of one part of the plan that costs an eighth of a shard's fair part at most, so that a
shard needs few parts. A dearer scene is dealt out render by render; clips that share a render stay together. So no shard has
more to do than its fair part and one such piece. No scene is drawn for all that, and pieces are some ten for a shard.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from generator.farm.parts import Parts
from generator.recipe.estimate import acts_on_camera, finish_cpu_s, render_cpu_s, shares_render
from generator.recipe.plan import ClipPlan, Plan, SceneKey, layer_counts
from generator.recipe.schema import Recipe
from scenes.errors import InputError

MAX_SHARDS = 1_000_000
_PIECES = 8  # a scene is cut where it is more than this part of a shard's fair part
_SHARD = re.compile(r"(\d{1,7})/(\d{1,7})")

# A render that takes so many times its estimate hangs; the floor covers loading Blender on a slow disk.
_TIMEOUT_FACTOR = 50.0
_LEAST_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Shard:
    """The shard numbered `index` of `count`, from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """What its worker is called in heartbeats."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What goes to one shard together: scenes of a part of the plan, from the one at `first`, and their estimated CPU seconds.

    `share` (k, n) is every n-th of the one scene's renders, from the k-th.
    """

    part: int
    first: int
    scenes: int
    cost_s: float
    share: tuple[int, int] | None = None

    def size(self, scenes: Sequence[SceneKey]) -> int:
        """Return how many clips it has, by the keys of all scenes of its part."""
        clips = sum(scene.clips for scene in scenes[self.first : self.first + self.scenes])
        return clips if self.share is None else clips // self.share[1]

    def clips(self, part: Plan) -> list[ClipPlan]:
        """Return its clips, of the part of the plan that they are in."""
        ids = {clip_id for scene in part.scenes[self.first : self.first + self.scenes] for clip_id in scene.clip_ids}
        clips = [clip for clip in part.clips if clip.clip_id in ids]
        if self.share is None:
            return clips
        number, of = self.share
        renders = list(dict.fromkeys(clip.optics for clip in clips))
        mine = set(renders[number::of])
        return [clip for clip in clips if clip.optics in mine]


class SceneCosts:
    """What scenes cost that are not drawn yet; reckoned once for all that are alike."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._known: dict[tuple[int, int, int, int], tuple[float, int]] = {}

    def of(self, scene: SceneKey) -> tuple[float, int]:
        """Return the estimated CPU seconds of a scene, and how many renders it takes."""
        kind = (scene.pyramid, scene.layer, scene.frames, scene.clips)
        if kind not in self._known:
            renders = _renders(self._recipe, scene)
            self._known[kind] = (_cost_s(self._recipe, scene.pyramid, scene.frames, renders, scene.clips), renders)
        return self._known[kind]


def pieces(parts: Parts, count: int) -> list[Piece]:
    """Return the pieces that are dealt out to `count` shards, in the plan's order."""
    costs = SceneCosts(parts.recipe)
    most_s = sum(costs.of(scene)[0] for scene in parts.source.keys) / count / _PIECES
    return [piece for number in range(parts.count) for piece in _cut(costs, number, parts.keys(number), most_s)]


def deal(parts: Parts, count: int) -> list[tuple[int, Piece]]:
    """Return every piece in the plan's order, each with the number (from 1) of its shard."""
    every = pieces(parts, count)
    loads = [(0.0, shard) for shard in range(1, count + 1)]
    shards = [0] * len(every)
    for position in sorted(range(len(every)), key=lambda position: (-every[position].cost_s, position)):
        load_s, shard = loads[0]
        shards[position] = shard
        heapq.heapreplace(loads, (load_s + every[position].cost_s, shard))
    return list(zip(shards, every, strict=True))


def shard_pieces(parts: Parts, shard: Shard) -> dict[int, list[Piece]]:
    """Return the pieces of one shard by the part of the plan that they are in, parts with the dearest piece first."""
    mine: dict[int, list[Piece]] = defaultdict(list)
    for number, piece in deal(parts, shard.count):
        if number == shard.index:
            mine[piece.part].append(piece)
    return dict(sorted(mine.items(), key=lambda entry: -max(piece.cost_s for piece in entry[1])))


def piece_clips(pieces: Iterable[Piece], part: Plan) -> list[ClipPlan]:
    """Return the clips of pieces of one part of the plan, in the plan's order."""
    return [clip for piece in pieces for clip in piece.clips(part)]


def time_limit_s(recipe: Recipe, threads: int) -> float:
    """Return how many seconds one clip may take before its render counts as stuck, from the plan's estimate."""
    kinds = {(pyramid, frames) for pyramid, _, frames, _, _ in layer_counts(recipe)}
    most_s = max(render_cpu_s(recipe, pyramid, frames) + finish_cpu_s(recipe, frames) for pyramid, frames in kinds)
    return max(_LEAST_TIMEOUT_S, _TIMEOUT_FACTOR * most_s / threads)


def _cut(costs: SceneCosts, number: int, scenes: Sequence[SceneKey], most_s: float) -> Iterator[Piece]:
    """Yield the pieces of a part: runs of scenes of `most_s` CPU seconds at most, and shares of dearer scenes."""
    first, run_s = 0, 0.0
    for position, scene in enumerate(scenes):
        cost_s, renders = costs.of(scene)
        if run_s and run_s + cost_s > most_s:
            yield Piece(part=number, first=first, scenes=position - first, cost_s=run_s)
            first, run_s = position, 0.0
        if cost_s > most_s and renders > 1:
            for share in range(renders):
                yield Piece(part=number, first=position, scenes=1, cost_s=cost_s / renders, share=(share, renders))
            first = position + 1
        else:
            run_s += cost_s
    if run_s:
        yield Piece(part=number, first=first, scenes=len(scenes) - first, cost_s=run_s)


def _renders(recipe: Recipe, scene: SceneKey) -> int:
    """Return how many renders a scene takes: one for each value of the axes that act on the camera, or one in all."""
    if shares_render(recipe, scene.pyramid):
        return 1
    pyramid = recipe.pyramid[scene.pyramid]
    if pyramid.sampling != "grid":
        return scene.clips
    return int(scene.layer ** sum(acts_on_camera(axis) for axis in pyramid.axes))


def _cost_s(recipe: Recipe, pyramid: int, frames: int, renders: int, clips: int) -> float:
    return renders * render_cpu_s(recipe, pyramid, frames) + clips * finish_cpu_s(recipe, frames)
