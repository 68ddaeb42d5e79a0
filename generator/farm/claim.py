"""Claiming a store: one plan, one Stopdown and one Blender for all who build there, whoever comes first deciding.

plan.json is put where there is none; farm.json says the versions, and is replaced only where it speaks of an earlier plan.
"""

from __future__ import annotations

import importlib.metadata
import json
import secrets

from pydantic import ValidationError

from generator.farm.patience import Patience
from generator.files import DamagedError
from generator.plan import PLAN_FORMAT, Plan
from generator.recipe import Recipe
from generator.sealed import sealed, sha256, unsealed
from generator.versions.remote import Remote, RemoteError
from generator.working_folder import difference
from scenes.errors import InputError
from scenes.spec import Spec

FARM_FORMAT = 1
PLAN_FILE, FARM_FILE, PROBE_FILE = "plan.json", "farm.json", "farm-probe.json"


class FarmClaim(Spec):
    """What farm.json says: the plan (sha256 of its text) and the versions that render it."""

    format: int = FARM_FORMAT
    plan: str
    stopdown: str
    blender: str


def claim_store(remote: Remote, plan: Plan, blender: str, patience: Patience) -> None:
    """Make a store the one of a plan and of these versions; raises InputError where it is another's, naming both."""
    there = patience.of(lambda: remote.read(PLAN_FILE))
    if there is None:
        patience.of(remote.prepare)
        patience.of(lambda: check_conditional(remote))
        patience.of(lambda: remote.put(PLAN_FILE, plan.to_json().encode()))
        there = patience.of(lambda: remote.read(PLAN_FILE))
    if there is None:
        raise RemoteError(f"{remote.name} does not keep {PLAN_FILE} as it was written; check that storage")
    if sha256(there) != plan.digest:
        check_plan(remote, _plan(there, remote), plan)
    mine = this_claim(plan, blender)
    check_versions(remote, patience.of(lambda: _claim(remote, mine)), mine)


def this_claim(plan: Plan, blender: str) -> FarmClaim:
    """Return what this installation would claim a store for."""
    return FarmClaim(plan=plan.digest, stopdown=_stopdown(), blender=blender)


def known_plan(remote: Remote, recipe: Recipe, patience: Patience) -> Plan | None:
    """Return the plan that a store was claimed for, if it is this recipe's and this Stopdown's, or None.

    It is then the plan that the recipe would give here, and reading it is much faster than drawing its scenes again.
    """
    farm = patience.of(lambda: remote.read(FARM_FILE))
    data = None if farm is None else patience.of(lambda: remote.read(PLAN_FILE))
    if farm is None or data is None:
        return None
    claim = _read_farm(farm, remote)
    if claim.stopdown != _stopdown() or claim.plan != sha256(data):
        return None
    plan = _plan(data, remote)
    return plan if plan.recipe == recipe else None


def read_claim(remote: Remote, patience: Patience) -> tuple[Plan, FarmClaim]:
    """Return the plan and the versions that a store was claimed for; raises InputError where no farm builds."""
    plan = patience.of(lambda: _read_plan(remote))
    data = None if plan is None else patience.of(lambda: remote.read(FARM_FILE))
    if plan is None or data is None:
        raise InputError(f"no farm builds at {remote.name} (it has no {PLAN_FILE} with {FARM_FILE}); check the place")
    return plan, _read_farm(data, remote)


def check_conditional(remote: Remote) -> None:
    """Raise RemoteError for a store that overwrites what it was to put only where there is nothing."""
    first, second = (sealed({"token": secrets.token_hex(16)}) for _ in range(2))
    remote.put(PROBE_FILE, first)
    if remote.put(PROBE_FILE, second) or remote.read(PROBE_FILE) == second:
        raise RemoteError(
            f"{remote.name} cannot put conditionally (it overwrote {PROBE_FILE}), so two workers could harm each other; "
            "use storage that has If-None-Match",
            lasting=True,
        )


def _claim(remote: Remote, mine: FarmClaim) -> FarmClaim:
    """Return the claim that holds: ours, or one that came first for this plan."""
    data = sealed(mine.model_dump(mode="json"))
    if remote.put(FARM_FILE, data):
        return mine
    found = remote.read(FARM_FILE)
    there = None if found is None else _read_farm(found, remote)
    if there is not None and there.plan == mine.plan:
        return there
    if not remote.swap(FARM_FILE, found, data):  # it speaks of an earlier plan of this dataset
        raise RemoteError(f"another build changed {FARM_FILE} at {remote.name} meanwhile; run the same command again")
    return mine


def check_plan(remote: Remote, there: Plan, plan: Plan) -> None:
    """Raise InputError where a store is another plan's."""
    if there.digest != plan.digest:
        raise InputError(
            f"{remote.name} is the dataset of another recipe ({difference(there, plan)}); build into another place"
        )


def check_versions(remote: Remote, there: FarmClaim, mine: FarmClaim) -> None:
    """Raise InputError where other versions build than are here, naming both."""
    for program, theirs, ours in (
        ("Stopdown", there.stopdown, mine.stopdown),
        ("Blender", there.blender, mine.blender),
    ):
        if theirs != ours:
            raise InputError(
                f"{remote.name} is built with {program} {theirs}, this machine has {program} {ours}; "
                f"install {program} {theirs} here, or build into another place"
            )


def _stopdown() -> str:
    return importlib.metadata.version("stopdown")


def _read_plan(remote: Remote) -> Plan | None:
    data = remote.read(PLAN_FILE)
    return None if data is None else _plan(data, remote)


def _plan(data: bytes, remote: Remote) -> Plan:
    try:
        tree = json.loads(data)
        version = tree.get("format")
    except (ValueError, AttributeError):
        raise DamagedError(
            f"{PLAN_FILE} at {remote.name} is damaged: it is not JSON; remove it there and run the same command again"
        ) from None
    if version != PLAN_FORMAT:
        raise InputError(
            f"{remote.name} has dataset format {version}, this Stopdown reads format {PLAN_FORMAT}; use the one that made it"
        )
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        words = error.errors()[0]["msg"]
        raise DamagedError(f"{PLAN_FILE} at {remote.name} is damaged: {words}; build into another place") from None


def _read_farm(data: bytes, remote: Remote) -> FarmClaim:
    try:
        tree = unsealed(data, FARM_FILE)
        if tree.get("format") != FARM_FORMAT:
            raise InputError(
                f"{FARM_FILE} at {remote.name} has format {tree.get('format')}, this Stopdown reads {FARM_FORMAT}; "
                "use the one that made it"
            )
        return FarmClaim.model_validate(tree)
    except (ValidationError, DamagedError):
        raise DamagedError(f"{FARM_FILE} at {remote.name} is damaged; remove it there and run the same command again") from None
