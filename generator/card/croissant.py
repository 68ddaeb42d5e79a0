"""croissant.json: Croissant 1.1 metadata with the RAI vocabulary (docs.mlcommons.org/croissant), sha256 per file.

The label table is a record set with every column; each clip is a file object with its sha256, up to `MAX_FILE_OBJECTS` clips:
beyond that the clips are one file set, and their hashes are in the table's column `sha256_bytes` only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from generator.card.card import column_meaning
from generator.card.facts import Facts
from generator.card.limits import BIASES, LIMITS, USES
from generator.card.origin import Origin
from generator.recipe.licence import licence_url
from generator.store.labels import LabelRows

CROISSANT = "http://mlcommons.org/croissant/1.1"
RAI = "http://mlcommons.org/croissant/RAI/1.0"
MAX_FILE_OBJECTS = 10_000

# Appendix 1 of the specification: the recommended JSON-LD context.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """A Parquet file of labels, relative to croissant.json, and its facts."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """Where the clips lie, relative to croissant.json: globs for all, and the folder of one label row."""

    globs: tuple[str, ...]
    folder_of: Callable[[Mapping[str, Any]], str]


FOLDER_CLIPS = ClipSet(globs=("clips/*.mp4",), folder_of=lambda row: "clips")


_CLIPS_HERE = "\0"  # holds the place of the file objects of clips, which are written one by one


def croissant(
    origin: Origin,
    facts: Facts,
    rows: LabelRows,
    *,
    license: str | None,
    labels: Sequence[LabelFile],
    clips: ClipSet = FOLDER_CLIPS,
) -> Iterator[bytes]:
    """Yield croissant.json piece by piece, for a label table stored in `labels` files and clips as `clips` says."""
    text = json.dumps(_tree(origin, facts, license, labels, clips), indent=1, ensure_ascii=False)
    before, _, after = text.partition(f",\n  {json.dumps(_CLIPS_HERE)}")
    yield before.encode()
    if rows.rows <= MAX_FILE_OBJECTS:
        for table in rows.tables():
            yield "".join(_clip_file(row, clips) for row in table.to_pylist()).encode()
    yield f"{after}\n".encode()


def _tree(origin: Origin, facts: Facts, license: str | None, labels: Sequence[LabelFile], clips: ClipSet) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": origin.name,
        "description": origin.description or "Clips rendered by Stopdown for a physical camera control.",
        "version": f"0.0.0+{origin.version or origin.parts[0].plan_digest}",
        "creator": {"@type": "sc:Organization", "name": "not stated"},  # nothing here knows who the owner is
        "citeAs": _citation(origin),
        "keywords": ["synthetic", "camera-control", "text-to-video", *origin.axes],
        "inLanguage": "en",
        "isLiveDataset": False,
        "url": f"urn:stopdown:{origin.identity}",
        "distribution": [*_label_files(labels), _all_clips(clips), _CLIPS_HERE],
        "recordSet": [_record_set(facts.schema, labels)],
        **_responsible(origin, facts),
        "prov:wasDerivedFrom": [{"@id": f"urn:stopdown:plan:{part.plan_digest}"} for part in origin.parts]
        + [{"@id": f"urn:stopdown:version:{parent}"} for parent in origin.parents],
    }
    if license is not None:
        tree["license"] = licence_url(license)
    if origin.created is not None:
        tree["dateCreated"] = tree["datePublished"] = origin.created[:10]
    return tree


def _citation(origin: Origin) -> str:
    year = f", year = {{{origin.created[:4]}}}" if origin.created else ""
    note = f"{origin.identity}, made with Stopdown {origin.engine}"
    return f"@misc{{{origin.name}, title = {{{origin.name}}}, note = {{{note}}}{year}}}"


def _label_files(labels: Sequence[LabelFile]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": file.path,
            "name": file.path,
            "description": "One row per clip: captions, physical labels, controls, probe readings, hashes.",
            "contentUrl": file.path,
            "contentSize": f"{file.size_bytes} B",
            "encodingFormat": "application/x-parquet",
            "sha256": file.sha256,
        }
        for file in labels
    ]


def _all_clips(clips: ClipSet) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": "clips",
        "name": "clips",
        "description": "All clips, H.264 in MP4; their sha256s are in the column sha256_bytes.",
        "encodingFormat": "video/mp4",
        "includes": list(clips.globs),
    }


def _clip_file(row: Mapping[str, Any], clips: ClipSet) -> str:
    """Return the file object of a clip, as it stands in the list that it follows in."""
    path = f"{clips.folder_of(row)}/{row['clip_id']}.mp4"
    tree = {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{row['size_bytes']} B",
        "encodingFormat": "video/mp4",
        "sha256": row["sha256_bytes"],
    }
    return ",\n  " + json.dumps(tree, indent=1, ensure_ascii=False).replace("\n", "\n  ")


def _record_set(schema: pa.Schema, labels: Sequence[LabelFile]) -> dict[str, Any]:
    source = {"fileObject": {"@id": labels[0].path}}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"labels/{column.name}",
            "name": column.name,
            "description": column_meaning(column),
            "dataType": _data_type(column.type),
            "source": {**source, "extract": {"column": column.name}},
        }
        for column in schema
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "labels",
        "name": "labels",
        "description": "One record per clip" + (f" of {labels[0].path}; the others have its columns." if labels[1:] else "."),
        "key": {"@id": "labels/clip_id"},
        "field": fields,
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _responsible(origin: Origin, facts: Facts) -> dict[str, Any]:
    found = [
        f"{row['name']}: {row['judged']} of {row['clips']} clips judged, median error {row['median']}, worst {row['worst']}, "
        f"{row['unread']} unreadable"
        for row in facts.axes
    ]
    blender = f" with Blender {', '.join(origin.blenders)}" if origin.blenders else ""
    return {
        "rai:dataCollection": f"Rendered by Stopdown {origin.engine}{blender} from "
        + ", ".join(f"plan {part.plan_digest} (recipe {part.recipe_digest}, seed {part.seed})" for part in origin.parts)
        + ". Nothing was filmed, recorded or gathered.",
        "rai:dataCollectionType": ["Software Collection"],
        "rai:dataCollectionRawData": "None: labels and content are drawn before a picture exists.",
        "rai:dataPreprocessingProtocol": [
            "Scene-linear frames, display transform sRGB, H.264 4:2:0 bt709 limited range"
            + (f" by {'; '.join(origin.encoders)}" if origin.encoders else "")
        ],
        "rai:dataAnnotationProtocol": [
            "Labels are the camera settings that each clip was rendered at; captions come from a grammar over the scene.",
            "Each label is held against a blind measurement of the encoded frames and a closed form of the scene.",
        ],
        "rai:dataAnnotationAnalysis": found,
        "rai:annotationsPerItem": f"one label per controlled axis ({', '.join(origin.axes)}) and one caption",
        "rai:machineAnnotationTools": [f"Stopdown {origin.engine}"],
        "rai:dataUseCases": [USES],
        "rai:dataLimitations": list(LIMITS),
        "rai:dataBiases": list(BIASES),
        "rai:personalSensitiveInformation": ["None: no person, voice, place or record of one is in the data."],
    }
