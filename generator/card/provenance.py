"""provenance.json: how every clip came to be, as W3C PROV-JSON (www.w3.org/submissions/2013/SUBM-prov-json-20130424).

recipe -> plan -> scene -> clip -> dataset (and its version), with what rendered and encoded each clip. Beyond `MAX_CLIPS` clips
the clips are left to the label table, whose column `sha256_bytes` names each; the dataset entity says so.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Any

from generator.card.origin import Maker, Origin, Part
from generator.store.labels import LabelRows

MAX_CLIPS = 10_000
PROVENANCE_FORMAT = 1
_HELD_BYTES = 2**16  # of a section

_PREFIX = {"prov": "http://www.w3.org/ns/prov#", "sd": "urn:stopdown:vocabulary:", "xsd": "http://www.w3.org/2001/XMLSchema#"}
Tree = dict[str, dict[str, Any]]
Sections = Mapping[str, "_Section"]


def provenance(origin: Origin, labels: LabelRows) -> Iterator[bytes]:
    """Yield provenance.json of label rows in order of clip id, piece by piece."""
    tree: Tree = {name: {} for name in ("entity", "activity", "agent", *_RELATIONS)}
    engine = f"sd:engine/{origin.engine}"
    tree["agent"][engine] = {"prov:type": _qualified("prov:SoftwareAgent"), "sd:name": "Stopdown", "sd:version": origin.engine}
    dataset = f"sd:dataset/{_digest(labels)}"
    tree["entity"][dataset] = {
        "prov:type": _qualified("prov:Collection"),
        "sd:name": origin.name,
        "sd:clips": labels.rows,
        "sd:provenance_format": PROVENANCE_FORMAT,
        "sd:clips_listed": "here" if labels.rows <= MAX_CLIPS else "in the label table, column sha256_bytes",
    }
    for part in origin.parts:
        _planning(tree, part, dataset, engine)
    _version(tree, origin, dataset)
    with ExitStack() as stack:
        texts = (stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_HELD_BYTES)) for _ in tree)
        sections = {name: _Section(text, entries) for text, (name, entries) in zip(texts, tree.items(), strict=True)}
        if labels.rows <= MAX_CLIPS:
            _clips(sections, origin, labels, dataset, engine)
        yield f'{{\n "prefix": {_at(1, _PREFIX)}'.encode()
        for name, section in sections.items():
            if len(section):
                yield f',\n "{name}": {{'.encode()
                yield from section.pieces()
                yield b"\n }"
        yield b"\n}\n"


class _Section:
    """The entries of one section, in the order they were put in: as text on the disk, where they are more than a few."""

    def __init__(self, text: IO[bytes], entries: dict[str, Any]) -> None:
        self._text = text
        self._count = 0
        for key, value in entries.items():
            self.put(key, value)

    def __len__(self) -> int:
        return self._count

    def put(self, key: str, value: Any) -> None:
        """Put an entry in, whose key is not there yet."""
        self._text.write(f"{',' if self._count else ''}\n  {json.dumps(key)}: {_at(2, value)}".encode())
        self._count += 1

    def pieces(self) -> Iterator[bytes]:
        """Yield the text of the entries."""
        self._text.seek(0)
        while piece := self._text.read(_HELD_BYTES):
            yield piece


def _at(depth: int, tree: Any) -> str:
    """Return indented JSON as it stands so deep in a tree."""
    return json.dumps(tree, indent=1).replace("\n", "\n" + " " * depth)


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


def _clips(sections: Sections, origin: Origin, labels: LabelRows, dataset: str, engine: str) -> None:
    scenes: set[str] = set()
    renders: set[str] = set()
    for table in labels.tables():
        for row in table.select(["clip_id", "scene_id", "seed", "sha256_bytes", "sha256_frames"]).to_pylist():
            scene, clip = f"sd:scene/{row['scene_id']}", f"sd:clip/{row['clip_id']}"
            if scene not in scenes:
                scenes.add(scene)
                sections["entity"].put(scene, {"prov:type": "scene"})
                plans = [_plan(part) for part in origin.parts if part.seed == row["seed"]]
                if len(plans) == 1:  # plans of one seed that were merged cannot be told apart by their scenes
                    _tie(sections, "wasDerivedFrom", {"prov:generatedEntity": scene, "prov:usedEntity": plans[0]})
            maker = origin.makers.get(row["clip_id"])
            facts = {
                "prov:type": "clip",
                "sd:sha256_bytes": row["sha256_bytes"],
                "sd:sha256_frames": row["sha256_frames"],
                **({"sd:key": maker.key} if maker else {}),
            }
            sections["entity"].put(clip, facts)
            _tie(sections, "wasDerivedFrom", {"prov:generatedEntity": clip, "prov:usedEntity": scene})
            _tie(sections, "hadMember", {"prov:collection": dataset, "prov:entity": clip})
            if maker is not None:
                activity = _rendering(sections, maker, engine, renders)
                _tie(sections, "wasGeneratedBy", {"prov:entity": clip, "prov:activity": activity})


def _tie(sections: Sections, relation: str, ends: dict[str, str]) -> None:
    sections[relation].put(f"_:{relation}{len(sections[relation])}", ends)


def _rendering(sections: Sections, maker: Maker, engine: str, known: set[str]) -> str:
    """Return the activity of rendering with one Blender and encoder, adding what is not `known`."""
    digest = hashlib.sha256(f"{maker.blender}\n{maker.encoder}".encode()).hexdigest()[:16]
    activity, blender = f"sd:activity/render-{digest}", f"sd:blender/{maker.blender}"
    if activity in known:
        return activity
    sections["activity"].put(activity, {"prov:type": "render, encode and measure", "sd:encoder": maker.encoder})
    if blender not in known:
        facts = {"prov:type": _qualified("prov:SoftwareAgent"), "sd:name": "Blender", "sd:version": maker.blender}
        sections["agent"].put(blender, facts)
    for agent in (engine, blender):
        _tie(sections, "wasAssociatedWith", {"prov:activity": activity, "prov:agent": agent})
    known |= {activity, blender}
    return activity


def _digest(labels: LabelRows) -> str:
    """Return the sha256 over the clips' ids and hashes, in the order of ids: what the collection is named by."""
    digest = hashlib.sha256()
    for table in labels.tables():
        pairs = zip(table["clip_id"].to_pylist(), table["sha256_bytes"].to_pylist(), strict=True)
        digest.update("".join(f"{clip_id} {clip}\n" for clip_id, clip in sorted(pairs)).encode())
    return digest.hexdigest()
