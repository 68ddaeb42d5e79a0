"""Where a dataset comes from: the facts that the card, croissant.json and provenance.json state, gathered once."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from generator.recipe.plan import Plan, canonical_json
from generator.store.splits import SplitRatios


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What rendered and encoded a clip: the Blender version, the encoder, and the key of the clip's record (a sha256)."""

    blender: str
    encoder: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One plan and the recipe it follows from: the whole recipe as a JSON tree, and the plan's sha256."""

    recipe: Mapping[str, Any]
    plan_digest: str

    @property
    def recipe_digest(self) -> str:
        """The sha256 of the recipe's canonical text."""
        return hashlib.sha256(canonical_json(dict(self.recipe)).encode()).hexdigest()

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return int(self.recipe["seed"])


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The facts about a dataset that its label table does not hold.

    `parts` are its plans: one for a built dataset, several for a merged one. `engine` is Stopdown's version. `version`,
    `parents`, `created` (ISO 8601, UTC) and `message` are of the committed version, and empty for a folder that was only built.
    `splits` are the ratios that its clips are split by where the label table has no column for it; None: they are not split.
    `makers` are by clip id, and may be empty; `blenders` and `encoders` are the versions that made it, empty where unknown.
    """

    name: str
    description: str
    axes: tuple[str, ...]
    parts: tuple[Part, ...]
    engine: str
    version: str | None = None
    parents: tuple[str, ...] = ()
    created: str | None = None
    message: str = ""
    makers: Mapping[str, Maker] = field(default_factory=dict)
    blenders: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    splits: SplitRatios | None = None

    @property
    def identity(self) -> str:
        """What names this content: `version:ID` for a committed version, `plan:DIGEST` otherwise."""
        return f"version:{self.version}" if self.version else "+".join(f"plan:{part.plan_digest}" for part in self.parts)


def engine_version() -> str:
    """Return the version of Stopdown."""
    return importlib.metadata.version("stopdown")


def plan_origin(
    plan: Plan,
    *,
    version: str | None = None,
    parents: tuple[str, ...] = (),
    created: str | None = None,
    message: str = "",
    makers: Mapping[str, Maker] | None = None,
    splits: SplitRatios | None = None,
) -> Origin:
    """Return the origin of a plan's clips, with what is known of the version and of the makers."""
    known = (makers or {}).values()
    return Origin(
        name=plan.name,
        description=plan.recipe.description,
        axes=plan.recipe.used_axes,
        parts=(Part(recipe=plan.recipe.model_dump(mode="json"), plan_digest=plan.digest),),
        engine=engine_version(),
        version=version,
        parents=parents,
        created=created,
        message=message,
        makers=makers or {},
        blenders=tuple(sorted({maker.blender for maker in known})),
        encoders=tuple(sorted({maker.encoder for maker in known})),
        splits=splits,
    )
