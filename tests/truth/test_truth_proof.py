"""Truth agrees with itself and with the spec, and each way in which it can be wrong is found by a measure of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator import Dataset
from generator.truth.pass_files import depth_bytes, flow_bytes, instances_bytes, normals_bytes, read_flow
from generator.truth.read_truth import TruthReader
from generator.truth.scene_file import SceneTruth
from generator.truth.truth_names import truth_files
from generator.verify.truth_measures import MEASURES, TruthAtHand
from generator.verify.verify_dataset import verify
from generator.versions.working.working_folder import WorkingFolder


def test_the_truth_of_every_scene_is_proven(truth_dataset: Path) -> None:
    report = verify(WorkingFolder.open(truth_dataset), workers=1)
    assert report.truth is not None and {check.name: check.scenes for check in report.truth} == dict.fromkeys(MEASURES, 2)
    assert all(check.worst <= check.bar for check in report.truth), report.truth
    assert not report.problems


def test_arrays_are_as_documented(truth_dataset: Path) -> None:
    clip = next(clip for clip in Dataset.open(truth_dataset) if clip["family"] == "tabletop")
    depth_THW, ids_THW, normals_THW3 = clip.depth(), clip.instances(), clip.normals()
    assert (depth_THW.shape, depth_THW.dtype, ids_THW.dtype) == ((5, 64, 64), np.float32, np.uint16)
    assert (np.isinf(depth_THW) == (ids_THW == 0)).all() and set(np.unique(ids_THW)) <= set(range(len(clip.objects()) + 1))
    shown = ids_THW > 0
    lengths = np.linalg.norm(normals_THW3, axis=-1)
    assert np.abs(lengths[shown] - 1).max() < 2e-3 and not lengths[~shown].any()
    away_THW3 = clip.normals("camera")
    centers_HW3 = np.stack([*np.mgrid[0.5:64, 0.5:64][::-1], np.ones((64, 64))], axis=-1)
    rays_HW3 = centers_HW3 @ np.linalg.inv(np.array(clip.cameras()[0].intrinsics)).T
    assert ((away_THW3 * rays_HW3).sum(axis=-1)[shown] < 0.05).all()  # what is seen faces the camera, which looks along +Z
    assert (clip.depth("distance")[shown] >= depth_THW[shown] * (1 - 1e-3)).all()
    flow = clip.flow()
    assert flow.forward.shape == flow.backward.shape == (4, 64, 64, 2) and flow.forward_seen.dtype == bool
    assert (flow.forward_known | ~flow.forward_seen).all()
    assert clip.sharp().shape == (5, 64, 64, 3)


Bytes = dict[str, bytes]


def scene_of(dataset: Path, family: str) -> tuple[Bytes, Any]:
    snapshot = Dataset.open(dataset)
    clip = next(clip for clip in snapshot if clip["family"] == family)
    files = {path: snapshot.history.store.read(digest) for path, digest in truth_files(clip["lossless"]).items()}
    return files, WorkingFolder.open(dataset).plan.scene_by_id[clip["scene_id"]].spec


def measured(files: Bytes, spec: Any) -> set[str]:
    """Return the measures that do not meet their bars."""
    truth = TruthAtHand(TruthReader({path: path for path in files}, files.__getitem__, "here"), spec, flat=True)
    found = {name: measure(truth) for name, (measure, *_) in MEASURES.items()}
    return {name for name, value in found.items() if value is None or not value <= MEASURES[name][2]}


def mirrored_flow(files: Bytes) -> Bytes:
    changed = {}
    for path in files:
        if path.startswith("flow_forward"):
            flow_HW2, state_HW = read_flow(files[path])
            changed[path] = flow_bytes(-flow_HW2, state_HW)
    return changed


def swapped_ids(files: Bytes) -> Bytes:
    from generator.truth.pass_files import read_instances

    pairs = {path: read_instances(data) for path, data in files.items() if path.startswith("instances")}
    top = max(int(ids_HW.max()) for ids_HW in pairs.values())
    return {
        path: instances_bytes(np.where(ids_HW > 0, top + 1 - ids_HW, 0).astype(np.uint16)) for path, ids_HW in pairs.items()
    }


def farther(files: Bytes) -> Bytes:
    from generator.truth.pass_files import read_depth

    return {path: depth_bytes(read_depth(data) * 1.003) for path, data in files.items() if path.startswith("depth")}


def turned_normals(files: Bytes) -> Bytes:
    from generator.truth.pass_files import read_normals

    found = {path: read_normals(data) for path, data in files.items() if path.startswith("normals")}
    return {path: normals_bytes(normals_HW3[..., ::-1]) for path, normals_HW3 in found.items()}


def in_scene(change: Callable[[Any], None]) -> Callable[[Bytes], Bytes]:
    import json

    def changed(files: Bytes) -> Bytes:
        tree = json.loads(files["scene.json"])
        change(tree)
        return {"scene.json": SceneTruth.model_validate_json(json.dumps(tree)).data()}

    return changed


def wider_boxes(tree: Any) -> None:
    for thing in tree["objects"]:
        for frame in thing["frames"]:
            if frame["box_full"]:
                frame["box_full"][2] += 1.5


def late_cameras(tree: Any) -> None:
    for camera in tree["cameras"]:
        camera["world_to_camera_opencv"][0][3] += 0.01


@pytest.mark.parametrize(
    ("family", "spoil", "found"),
    [
        ("flyby", mirrored_flow, {"photometric", "round trip"}),
        ("tabletop", swapped_ids, {"ids", "color", "boxes"}),
        ("tabletop", farther, {"depth"}),
        ("tabletop", turned_normals, {"color"}),
        ("tabletop", in_scene(wider_boxes), {"boxes"}),
        ("flyby", in_scene(late_cameras), {"centers"}),
    ],
)
def test_each_falsehood_is_found(truth_dataset: Path, family: str, spoil: Callable[[Bytes], Bytes], found: set[str]) -> None:
    files, spec = scene_of(truth_dataset, family)
    assert measured(files, spec) == set()
    assert found <= measured({**files, **spoil(files)}, spec)
