"""The plan of a farm in parts: some hundred clips each, drawn by whoever needs them first and put into the store.

STORE/.stopdown/plan/000042.jsonl   a line with the format and the checksum of the rest, and a line with scenes and clips

How a plan is cut is known before any scene is drawn, so nobody needs to hold more of it than the part at hand, and machines
that begin together draw different parts. Two that draw the same one put the same bytes, and the first put stays.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from pydantic import ValidationError

from generator.io.checksummed_json import sha256
from generator.recipe.plan import (
    ClipPlan,
    Plan,
    SceneKey,
    SceneKeys,
    ScenePlan,
    canonical_json,
    draw_plan,
    plan_format,
    plan_of,
)
from generator.recipe.schema import Recipe
from generator.remotes.base import Remote
from generator.remotes.put_verified import put_verified
from generator.remotes.retry import Retry
from scenes.spec import Spec

CLIPS_PER_PART = 256
FOLDER = "plan"


class RecipeSource:
    """Scenes of a recipe, drawn when they are asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.keys = SceneKeys(recipe)

    def draw(self, first: int, count: int) -> Plan:
        """Return the part with so many scenes from the one numbered `first`; raises SceneError."""
        return draw_plan(self.recipe, (self.keys[position] for position in range(first, first + count)))


class PlanSource:
    """Scenes of a plan that was drawn before."""

    def __init__(self, plan: Plan) -> None:
        self.recipe = plan.recipe
        self._scenes = plan.scenes
        self._clips = [tuple(clips) for _, clips in groupby(plan.clips, key=lambda clip: clip.scene_id)]
        self.keys = [_key_of(clips) for clips in self._clips]

    def draw(self, first: int, count: int) -> Plan:
        """Return the part with so many scenes from the one numbered `first`."""
        clips = (clip for its_clips in self._clips[first : first + count] for clip in its_clips)
        return plan_of(self.recipe, self._scenes[first : first + count], clips)


Source = RecipeSource | PlanSource


class _Lines(Spec):
    """The second line of a part."""

    scenes: tuple[ScenePlan, ...]
    clips: tuple[ClipPlan, ...]


class StoredParts:
    """The parts of one plan that lie in a store, numbered from 0, for reading."""

    def __init__(self, recipe: Recipe, count: int, clips: int, remote: Remote, retry: Retry) -> None:
        self.recipe = recipe
        self.digest = recipe_digest(recipe)
        self.count, self.clips = count, clips
        self._remote, self._retry = remote, retry

    def read(self, number: int) -> Plan | None:
        """Return a part as it lies in the store, or None where it is not there, or damaged."""
        data = self._retry.of(lambda: self._remote.read(part_file(number)))
        return None if data is None else self._parsed(number, data)

    def _parsed(self, number: int, data: bytes) -> Plan | None:
        """Return the part that bytes hold, or None where they are not whole or of another plan."""
        head, _, text = data.partition(b"\n")
        try:
            if json.loads(head) != {"check": sha256(text), "part": number, "plan": self.digest}:
                return None
            lines = _Lines.model_validate_json(text)
        except (ValueError, ValidationError):
            return None
        return plan_of(self.recipe, lines.scenes, lines.clips)


class Parts(StoredParts):
    """The parts of one plan: as they lie in the store, or else drawn and put there."""

    def __init__(self, plan: Plan | Recipe, remote: Remote, retry: Retry) -> None:
        self.source: Source = PlanSource(plan) if isinstance(plan, Plan) else RecipeSource(plan)
        self._firsts, clips = cut(self.source.keys)
        super().__init__(self.source.recipe, len(self._firsts), clips, remote, retry)

    def keys(self, number: int) -> list[SceneKey]:
        """Return the keys of a part's scenes; nothing is read or drawn."""
        return [self.source.keys[position] for position in self._scenes(number)]

    def part(self, number: int) -> Plan:
        """Return a part as it lies in the store, or draw it and put it there; raises SceneError, RemoteError."""
        found = self.read(number)
        if found is not None:
            return found
        scenes = self._scenes(number)
        drawn = self.source.draw(scenes.start, len(scenes))
        data, path = self._written(number, drawn), part_file(number)
        if self._retry.of(
            lambda: put_verified(self._remote, path, data, lambda there: self._parsed(number, there) is not None)
        ):
            return drawn
        return self.read(number) or drawn

    def text(self) -> Iterator[str]:
        """Yield the canonical text of the whole plan, as `Plan.to_json` returns it, part by part."""
        opening = "{"
        for name, value in sorted(header(self.recipe).model_dump(mode="json").items()):
            yield f'{opening}"{name}":'
            yield from self._entries(name) if name in _Lines.model_fields else [canonical_json(value)]
            opening = ","
        yield "}"

    def _entries(self, name: str) -> Iterator[str]:
        """Yield the text of all scenes or clips, part by part."""
        yield "["
        for number in range(self.count):
            entries = (canonical_json(entry.model_dump(mode="json")) for entry in getattr(self.part(number), name))
            yield ("," if number else "") + ",".join(entries)
        yield "]"

    def _scenes(self, number: int) -> range:
        end = self._firsts[number + 1] if number + 1 < self.count else len(self.source.keys)
        return range(self._firsts[number], end)

    def _written(self, number: int, part: Plan) -> bytes:
        text = canonical_json(_Lines(scenes=part.scenes, clips=part.clips).model_dump(mode="json")).encode() + b"\n"
        return canonical_json({"check": sha256(text), "part": number, "plan": self.digest}).encode() + b"\n" + text


class HeldParts(Parts):
    """The parts of a plan that one machine builds and holds as a whole; none of them lies in a store."""

    def read(self, number: int) -> Plan | None:
        """Return a part."""
        scenes = self._scenes(number)
        return self.source.draw(scenes.start, len(scenes))


def cut(keys: Iterable[SceneKey]) -> tuple[Sequence[int], int]:
    """Return the number of the scene that each part begins with, and how many clips there are."""
    firsts, clips, room = array("Q"), 0, 0
    for position, key in enumerate(keys):
        if room < key.clips:
            firsts.append(position)
            room = max(CLIPS_PER_PART, key.clips)
        room -= key.clips
        clips += key.clips
    return firsts, clips


def part_file(number: int) -> str:
    """Return the path of a part in a store."""
    return f"{FOLDER}/{number:06d}.jsonl"


def recipe_digest(recipe: Recipe) -> str:
    """Return what names a recipe's plan: a sha256, known before the plan is drawn."""
    text = canonical_json({"format": plan_format(recipe), "recipe": recipe.model_dump(mode="json")})
    return hashlib.sha256(text.encode()).hexdigest()


def header(recipe: Recipe) -> Plan:
    """Return the plan of a recipe without scenes and clips: what all parts share."""
    return plan_of(recipe, (), ())


def _key_of(clips: Sequence[ClipPlan]) -> SceneKey:
    first = clips[0]
    return SceneKey(
        scene_id=first.scene_id,
        pyramid=first.pyramid,
        layer=first.layer,
        frames=first.frames,
        number=first.scene,
        family=first.family,
        clips=len(clips),
    )
