"""Claiming a store: one plan, one Stopdown and one Blender for all who build there, whoever comes first deciding.

farm.json names the recipe and the versions. It is put where there is none, and replaced only where one machine has built
another recipe in that folder since, as its plan.json says.
"""

from __future__ import annotations

import importlib.metadata
import json
import secrets

from pydantic import ValidationError

from generator.errors import DamagedError, RemoteError
from generator.farm.parts import StoredParts
from generator.io.checksummed_json import checksummed, parse_checksummed
from generator.recipe.plan import PLAN_FORMATS, plan_format
from generator.recipe.schema import Recipe
from generator.remotes.base import Remote
from generator.remotes.retry import Retry
from generator.versions.working.working_folder import difference, unread_format
from scenes.errors import InputError
from scenes.spec import Spec

FARM_FORMAT = 2
PLAN_FILE, FARM_FILE, PROBE_FILE = "plan.json", "farm.json", "farm-probe.json"


class FarmClaim(Spec):
    """What farm.json says: the recipe and what names its plan, how many parts and clips that has, and the versions that render
    it."""

    format: int = FARM_FORMAT
    plan: str
    parts: int
    clips: int
    recipe: Recipe
    stopdown: str
    blender: str


def claim_store(remote: Remote, parts: StoredParts, blender: str, retry: Retry) -> None:
    """Make a store the one of a plan and of these versions; raises InputError where it is another's, naming both."""
    mine = this_claim(parts, blender)
    there = retry.of(lambda: _there(remote))
    if there is None:
        _check_plan_file(remote, parts.recipe, retry)
        retry.of(remote.prepare)
        retry.of(lambda: check_conditional(remote))
        retry.of(lambda: remote.put(FARM_FILE, _data(mine)))
        there = retry.of(lambda: _there(remote))
    if there is None:
        raise RemoteError(f"{remote.name} does not keep {FARM_FILE} as it was written; check that storage")
    if there.recipe != parts.recipe and retry.of(lambda: _stored_recipe(remote)) == (
        plan_format(parts.recipe),
        parts.recipe,
    ):
        there = retry.of(lambda: _replaced(remote, mine))
    check_recipe(remote, there, parts)
    check_versions(remote, there, mine)


def this_claim(parts: StoredParts, blender: str) -> FarmClaim:
    """Return what this installation would claim a store for."""
    return FarmClaim(
        plan=parts.digest, parts=parts.count, clips=parts.clips, recipe=parts.recipe, stopdown=_stopdown(), blender=blender
    )


def read_claim(remote: Remote, retry: Retry) -> FarmClaim:
    """Return what a store was claimed for; raises InputError where no farm builds."""
    there = retry.of(lambda: _there(remote))
    if there is None:
        raise InputError(f"no farm builds at {remote.name} (it has no {FARM_FILE}); check the place")
    return there


def check_conditional(remote: Remote) -> None:
    """Raise RemoteError for a store that overwrites what it was to put only where there is nothing."""
    first, second = (checksummed({"token": secrets.token_hex(16)}) for _ in range(2))
    remote.put(PROBE_FILE, first)
    if remote.put(PROBE_FILE, second) or remote.read(PROBE_FILE) == second:
        raise RemoteError(
            f"{remote.name} cannot put conditionally (it overwrote {PROBE_FILE}), so two workers could harm each other; "
            "use storage that has If-None-Match",
            lasting=True,
        )


def check_recipe(remote: Remote, there: FarmClaim, parts: StoredParts) -> None:
    """Raise InputError where a store is another recipe's, or the same one's with scenes that were laid out otherwise."""
    if there.recipe != parts.recipe or there.plan != parts.digest:
        words = difference(there.recipe, parts.recipe)
        raise InputError(f"{remote.name} is the dataset of another recipe ({words}); build into another place")


def check_versions(remote: Remote, there: FarmClaim, mine: FarmClaim) -> None:
    """Raise InputError where another Blender renders than is here, naming both; another Stopdown's claim is not read at all."""
    if there.blender != mine.blender:
        raise _other_version(remote, "Blender", there.blender, mine.blender)


def _other_version(remote: Remote, program: str, theirs: str, ours: str) -> InputError:
    return InputError(
        f"{remote.name} is built with {program} {theirs}, this machine has {program} {ours}; "
        f"install {program} {theirs} here, or build into another place"
    )


def _stopdown() -> str:
    return importlib.metadata.version("stopdown")


def _there(remote: Remote) -> FarmClaim | None:
    data = remote.read(FARM_FILE)
    return None if data is None else _read_farm(data, remote)


def _data(claim: FarmClaim) -> bytes:
    return checksummed(claim.model_dump(mode="json"))


def _replaced(remote: Remote, mine: FarmClaim) -> FarmClaim:
    """Put our claim in the place of one of an earlier plan of this folder; return the one that holds."""
    if not remote.swap(FARM_FILE, remote.read(FARM_FILE), _data(mine)):
        raise RemoteError(f"another build changed {FARM_FILE} at {remote.name} meanwhile; run the same command again")
    return mine


def _check_plan_file(remote: Remote, recipe: Recipe, retry: Retry) -> None:
    """Raise InputError where one machine builds another recipe in the same folder."""
    there = retry.of(lambda: _stored_recipe(remote))
    if there is not None and there != (plan_format(recipe), recipe):
        raise InputError(
            f"{remote.name} is the dataset of another recipe ({difference(there[1], recipe)}); build into another place"
        )


def _stored_recipe(remote: Remote) -> tuple[int, Recipe] | None:
    """Return the format and the recipe of the plan that one machine built, or builds, in a folder; None where there is none."""
    data = remote.read(PLAN_FILE)
    if data is None:
        return None
    try:
        tree = json.loads(data)
        version, recipe = tree.get("format"), tree.get("recipe")
    except (ValueError, AttributeError):
        raise DamagedError(
            f"{PLAN_FILE} at {remote.name} is damaged: it is not JSON; remove it there and run the same command again"
        ) from None
    if version not in PLAN_FORMATS:
        raise unread_format(remote.name, version)
    try:
        return version, Recipe.model_validate(recipe)
    except ValidationError as error:
        words = error.errors()[0]["msg"]
        raise DamagedError(f"{PLAN_FILE} at {remote.name} is damaged: {words}; build into another place") from None


def _read_farm(data: bytes, remote: Remote) -> FarmClaim:
    try:
        tree = parse_checksummed(data, FARM_FILE)
        if tree.get("format") != FARM_FORMAT:
            raise InputError(
                f"{FARM_FILE} at {remote.name} has format {tree.get('format')}, this Stopdown reads {FARM_FORMAT}; "
                "use the one that made it"
            )
        if tree.get("stopdown") == _stopdown():
            return FarmClaim.model_validate(tree)
    except (ValidationError, DamagedError):
        raise DamagedError(f"{FARM_FILE} at {remote.name} is damaged; remove it there and run the same command again") from None
    raise _other_version(remote, "Stopdown", str(tree.get("stopdown")), _stopdown())  # whose recipes may have other keys
