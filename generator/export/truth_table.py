"""Hugging Face tables of ground truth: one typed row per scene and frame, with pictures, depth, flow, normals and objects.

Parquet by split, which `datasets.load_dataset` opens with the types that the files name: `image` and `instances` as pictures,
arrays as `Array2D` and `Array3D`, objects as lists of structs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from generator.export.base import Exporter, ExportJob
from generator.export.files.entries import Entry, MadeFolder, TextFile
from generator.export.truth_scenes import TruthScene, truth_scenes
from generator.truth.truth_names import frame_file
from scenes.errors import InputError

NAME = "huggingface-truth"
_VALUE = {pa.string(): "string", pa.int32(): "int32", pa.float64(): "float64"}
_OBJECT = {"id": pa.int32(), "name": pa.string(), "role": pa.string(), "kind": pa.string(), "color": pa.string()}
_LISTS = ("box_visible", "box_full", "object_to_world")


def _entries(job: ExportJob) -> Iterator[Entry]:
    scenes = truth_scenes(job, NAME)
    shapes = {(scene.reader.scene.height, scene.reader.scene.width) for part in scenes.values() for scene in part}
    passes = {scene.reader.scene.passes for part in scenes.values() for scene in part}
    if len(shapes) > 1 or len(passes) > 1:
        raise InputError(f"format '{NAME}' holds one picture size and one set of passes; this version has several")
    for split, part in scenes.items():
        yield MadeFolder(path=f"data/{split}", write=partial(_write, part))
    files = "\n".join(f"  - split: {split}\n    path: data/{split}/*.parquet" for split in scenes)
    heading = f"# {job.source.origin.name}: ground truth by frame"
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n\n{heading}\n"
    yield TextFile(path="README.md", data=card.encode())


def _write(scenes: list[TruthScene], target: Path) -> None:
    target.mkdir(parents=True)
    schema = table_schema(scenes[0])
    with pq.ParquetWriter(target / "frames.parquet", schema, compression="zstd") as writer:
        for scene in scenes:  # one scene at a time is held
            writer.write_table(pa.Table.from_pylist(list(_rows(scene)), schema=schema))


def table_schema(scene: TruthScene) -> pa.Schema:
    """Return the Arrow schema of a scene's rows, with the features that `datasets` reads from it."""
    truth = scene.reader.scene
    size = [truth.height, truth.width]
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns: dict[str, tuple[pa.DataType, Any]] = {
        name: (kind, {"dtype": _VALUE[kind], "_type": "Value"})
        for name, kind in (("scene_id", pa.string()), ("caption", pa.string()), ("frame", pa.int32()), ("time_s", pa.float64()))
    }
    if "sharp" in truth.passes:
        columns["image"] = picture, {"_type": "Image"}
    if "instances" in truth.passes:
        columns["instances"] = picture, {"_type": "Image"}
    if "depth" in truth.passes:
        columns["depth_m"] = _array(2, size, "float32")
    if "normals" in truth.passes:
        columns["normals_world"] = _array(3, [*size, 3], "float32")
    if "flow" in truth.passes:
        for way in ("forward", "backward"):
            columns[f"flow_{way}_px"] = _array(3, [*size, 2], "float32")
            columns[f"flow_{way}_seen"] = _array(2, size, "bool")
    for name in ("intrinsics", "world_to_camera_opencv", "matrix_world_blender"):
        side = 3 if name == "intrinsics" else 4
        columns[name] = _array(2, [side, side], "float64")
    columns["objects"] = _objects()
    features = {name: feature for name, (_, feature) in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    fields = [pa.field(name, kind, metadata=_extension(feature)) for name, (kind, feature) in columns.items()]
    return pa.schema(fields, metadata=metadata)


def _array(dimensions: int, shape: list[int], dtype: str) -> tuple[pa.DataType, Any]:
    kind: pa.DataType = {"float32": pa.float32(), "float64": pa.float64(), "bool": pa.bool_()}[dtype]
    for _ in shape:
        kind = pa.list_(kind)
    return kind, {"shape": shape, "dtype": dtype, "_type": f"Array{dimensions}D"}


def _extension(feature: Any) -> dict[str, str] | None:
    """Return what tells `datasets` that nested lists are an array: the name and the parameters of its Arrow type."""
    if not feature["_type"].startswith("Array"):
        return None
    name = f"datasets.features.features.{feature['_type']}ExtensionType"
    return {"ARROW:extension:name": name, "ARROW:extension:metadata": json.dumps([feature["shape"], feature["dtype"]])}


def _objects() -> tuple[pa.DataType, Any]:
    numbers = pa.list_(pa.float64())
    kinds = {**_OBJECT, "pixels": pa.int32(), "visibility": pa.float64(), **dict.fromkeys(_LISTS, numbers)}
    value = {name: {"dtype": _VALUE[kind], "_type": "Value"} for name, kind in kinds.items() if kind in _VALUE}
    lists = {name: {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"} for name in _LISTS}
    return pa.list_(pa.struct(kinds)), {"feature": {**value, **lists}, "_type": "List"}


def _rows(scene: TruthScene) -> Iterator[dict[str, Any]]:
    reader, truth = scene.reader, scene.reader.scene
    arrays: dict[str, NDArray[Any]] = {}
    if "depth" in truth.passes:
        arrays["depth_m"] = reader.depth()
    if "normals" in truth.passes:
        arrays["normals_world"] = reader.normals()
    flow = reader.flow() if "flow" in truth.passes else None
    last = len(truth.times_s) - 1
    for frame, time_s in enumerate(truth.times_s):
        row: dict[str, Any] = {"scene_id": scene.scene_id, "caption": scene.caption, "frame": frame, "time_s": time_s}
        for name, kind in (("image", "sharp"), ("instances", "instances")):
            if kind in truth.passes:
                row[name] = {"bytes": reader.file(frame_file(kind, frame)), "path": None}
        row |= {name: array[frame].tolist() for name, array in arrays.items()}
        if flow is not None:  # the first frame has no backward flow, the last none forward: nothing of it is seen
            empty_HW2 = np.zeros((truth.height, truth.width, 2), dtype=np.float32)
            unseen_HW = np.zeros((truth.height, truth.width), dtype=bool)
            row["flow_forward_px"] = (flow.forward[frame] if frame < last else empty_HW2).tolist()
            row["flow_forward_seen"] = (flow.forward_seen[frame] if frame < last else unseen_HW).tolist()
            row["flow_backward_px"] = (flow.backward[frame - 1] if frame else empty_HW2).tolist()
            row["flow_backward_seen"] = (flow.backward_seen[frame - 1] if frame else unseen_HW).tolist()
        camera = truth.cameras[frame]
        for name in ("intrinsics", "world_to_camera_opencv", "matrix_world_blender"):
            row[name] = getattr(camera, name)
        row["objects"] = [_object(thing, frame) for thing in truth.objects]
        yield row


def _object(thing: Any, frame: int) -> dict[str, Any]:
    now = thing.frames[frame]
    flat = [value for line in now.object_to_world for value in line]
    named = {name: getattr(thing, name) for name in _OBJECT}
    boxes = {name: None if getattr(now, name) is None else list(getattr(now, name)) for name in ("box_visible", "box_full")}
    return {**named, "pixels": now.pixels, "visibility": now.visibility, **boxes, "object_to_world": flat}


HUGGINGFACE_TRUTH = Exporter(
    summary="Hugging Face tables of ground truth, a typed row per scene and frame, by split",
    entries=_entries,
    usage=lambda job: f'datasets.load_dataset("{job.options.root}")',
    several_splits=True,
    own_card=True,
    needs_truth=True,
)
