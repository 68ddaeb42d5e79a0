"""provenance.json: how every clip came to be, as W3C PROV-JSON (www.w3.org/submissions/2013/SUBM-prov-json-20130424).

recipe -> plan -> scene -> clip -> dataset (and its version), with what rendered and encoded each clip. Beyond `MAX_CLIPS` clips
the clips are left to the label table, whose column `sha256_bytes` names each; the dataset entity says so.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa

from generator.lineage.origin import Maker, Origin, Part

MAX_CLIPS = 10_000
PROVENANCE_FORMAT = 1

_PREFIX = {"prov": "http://www.w3.org/ns/prov#", "sd": "urn:stopdown:vocabulary:", "xsd": "http://www.w3.org/2001/XMLSchema#"}
Tree = dict[str, dict[str, Any]]


def provenance(origin: Origin, table: pa.Table) -> bytes:
    """Return provenance.json of a label table's clips."""
    tree: Tree = {name: {} for name in ("entity", "activity", "agent", *_RELATIONS)}
    engine = f"sd:engine/{origin.engine}"
    tree["agent"][engine] = {"prov:type": _qualified("prov:SoftwareAgent"), "sd:name": "Stopdown", "sd:version": origin.engine}
    dataset = f"sd:dataset/{_table_digest(table)}"
    tree["entity"][dataset] = {
        "prov:type": _qualified("prov:Collection"),
        "sd:name": origin.name,
        "sd:clips": table.num_rows,
        "sd:provenance_format": PROVENANCE_FORMAT,
        "sd:clips_listed": "here" if table.num_rows <= MAX_CLIPS else "in the label table, column sha256_bytes",
    }
    for part in origin.parts:
        _planning(tree, part, dataset, engine)
    _version(tree, origin, dataset)
    if table.num_rows <= MAX_CLIPS:
        _clips(tree, origin, table, dataset, engine)
    return json.dumps({"prefix": _PREFIX, **{name: part for name, part in tree.items() if part}}, indent=1).encode() + b"\n"


_RELATIONS = ("used", "wasGeneratedBy", "wasDerivedFrom", "wasAssociatedWith", "specializationOf", "hadMember")


def _relate(tree: Tree, relation: str, ends: dict[str, str]) -> None:
    tree[relation][f"_:{relation}{len(tree[relation])}"] = ends


def _qualified(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _plan(part: Part) -> str:
    return f"sd:plan/{part.plan_digest}"


def _planning(tree: Tree, part: Part, dataset: str, engine: str) -> None:
    recipe, plan, planning = f"sd:recipe/{part.recipe_digest}", _plan(part), f"sd:activity/plan-{part.plan_digest[:16]}"
    text = json.dumps(part.recipe, sort_keys=True, ensure_ascii=False)
    tree["entity"][recipe] = {"prov:type": "recipe", "sd:sha256": part.recipe_digest, "prov:value": text}
    tree["entity"][plan] = {"prov:type": "plan", "sd:sha256": part.plan_digest, "sd:seed": part.seed}
    tree["activity"][planning] = {"prov:type": "plan the recipe"}
    _relate(tree, "used", {"prov:activity": planning, "prov:entity": recipe})
    _relate(tree, "wasGeneratedBy", {"prov:entity": plan, "prov:activity": planning})
    _relate(tree, "wasDerivedFrom", {"prov:generatedEntity": plan, "prov:usedEntity": recipe})
    _relate(tree, "wasDerivedFrom", {"prov:generatedEntity": dataset, "prov:usedEntity": plan})
    _relate(tree, "wasAssociatedWith", {"prov:activity": planning, "prov:agent": engine})


def _version(tree: Tree, origin: Origin, dataset: str) -> None:
    if origin.version is None:
        return
    version = f"sd:version/{origin.version}"
    tree["entity"][version] = {"prov:type": "version", "sd:id": origin.version, "sd:message": origin.message}
    if origin.created is not None:
        tree["entity"][version]["sd:created"] = {"$": origin.created, "type": "xsd:dateTime"}
    _relate(tree, "specializationOf", {"prov:specificEntity": version, "prov:generalEntity": dataset})
    for parent in origin.parents:
        tree["entity"][f"sd:version/{parent}"] = {"prov:type": "version", "sd:id": parent}
        _relate(tree, "wasDerivedFrom", {"prov:generatedEntity": version, "prov:usedEntity": f"sd:version/{parent}"})


def _clips(tree: Tree, origin: Origin, table: pa.Table, dataset: str, engine: str) -> None:
    for row in table.select(["clip_id", "scene_id", "seed", "sha256_bytes", "sha256_frames"]).to_pylist():
        scene, clip = f"sd:scene/{row['scene_id']}", f"sd:clip/{row['clip_id']}"
        if scene not in tree["entity"]:
            tree["entity"][scene] = {"prov:type": "scene"}
            plans = [_plan(part) for part in origin.parts if part.seed == row["seed"]]
            if len(plans) == 1:  # plans of one seed that were merged cannot be told apart by their scenes
                _relate(tree, "wasDerivedFrom", {"prov:generatedEntity": scene, "prov:usedEntity": plans[0]})
        maker = origin.makers.get(row["clip_id"])
        tree["entity"][clip] = {
            "prov:type": "clip",
            "sd:sha256_bytes": row["sha256_bytes"],
            "sd:sha256_frames": row["sha256_frames"],
            **({"sd:key": maker.key} if maker else {}),
        }
        _relate(tree, "wasDerivedFrom", {"prov:generatedEntity": clip, "prov:usedEntity": scene})
        _relate(tree, "hadMember", {"prov:collection": dataset, "prov:entity": clip})
        if maker is not None:
            _relate(tree, "wasGeneratedBy", {"prov:entity": clip, "prov:activity": _rendering(tree, maker, engine)})


def _rendering(tree: Tree, maker: Maker, engine: str) -> str:
    """Return the activity of rendering with one Blender and encoder, adding it the first time."""
    digest = hashlib.sha256(f"{maker.blender}\n{maker.encoder}".encode()).hexdigest()[:16]
    activity, blender = f"sd:activity/render-{digest}", f"sd:blender/{maker.blender}"
    if activity not in tree["activity"]:
        tree["activity"][activity] = {"prov:type": "render, encode and measure", "sd:encoder": maker.encoder}
        tree["agent"][blender] = {
            "prov:type": _qualified("prov:SoftwareAgent"),
            "sd:name": "Blender",
            "sd:version": maker.blender,
        }
        for agent in (engine, blender):
            _relate(tree, "wasAssociatedWith", {"prov:activity": activity, "prov:agent": agent})
    return activity


def _table_digest(table: pa.Table) -> str:
    """Return the sha256 over the clips' ids and hashes, in the order of ids: what the collection is named by."""
    pairs = sorted(zip(table["clip_id"].to_pylist(), table["sha256_bytes"].to_pylist(), strict=True))
    return hashlib.sha256("".join(f"{clip_id} {digest}\n" for clip_id, digest in pairs).encode()).hexdigest()
