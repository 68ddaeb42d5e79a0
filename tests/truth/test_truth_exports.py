"""Exports of ground truth, opened by the readers they are for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import imageio.v3 as iio
import numpy as np
import pytest
import webdataset

from generator import Dataset
from generator.export.base import ExportOptions
from generator.export.coco import run_lengths
from generator.export.run import export
from generator.export.source import DatasetSource, SnapshotSource
from generator.media.png16 import read_png16
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError


@pytest.fixture(scope="module")
def source(truth_dataset: Path) -> SnapshotSource:
    return SnapshotSource(Dataset.open(truth_dataset))


def scenes(truth_dataset: Path) -> dict[str, object]:
    """Return one clip of every scene."""
    return {clip["scene_id"]: clip for clip in Dataset.open(truth_dataset)}


def test_coco_opens_with_masks_boxes_and_tracks(source: SnapshotSource, truth_dataset: Path, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    export(source, "coco", tmp_path / "out")
    seen = 0
    for file in sorted((tmp_path / "out" / "annotations").glob("*.json")):
        opened = coco.COCO(str(file))
        for image in opened.imgs.values():
            clip = scenes(truth_dataset)[opened.dataset["videos"][image["video_id"] - 1]["name"]]
            ids_HW = clip.instances()[image["frame_index"]]  # type: ignore[attr-defined]
            picture = iio.imread(tmp_path / "out" / file.stem.removeprefix("instances_") / image["file_name"])
            assert (picture == clip.sharp()[image["frame_index"]]).all()  # type: ignore[attr-defined]
            of_track = {track["id"]: track["name"] for track in opened.dataset["tracks"]}
            found_HW = np.zeros_like(ids_HW)
            for note in opened.imgToAnns[image["id"]]:
                mask_HW = opened.annToMask(note).astype(bool)
                thing = next(one for one in clip.objects() if one.name == of_track[note["track_id"]])  # type: ignore[attr-defined]
                found_HW[mask_HW] = thing.id
                left, top, width, height = (int(part) for part in note["bbox"])
                assert mask_HW[top : top + height, left : left + width].sum() == mask_HW.sum() == note["area"]
                assert opened.cats[note["category_id"]]["name"] == thing.kind
            assert (found_HW == ids_HW).all()
            seen += 1
    assert seen == 2 * 5


def test_run_lengths_are_those_of_coco() -> None:
    assert run_lengths(np.array([[0, 1], [1, 1], [0, 0]], dtype=bool)) == [1, 1, 1, 2, 1]
    assert run_lengths(np.ones((2, 2), dtype=bool)) == [0, 4]
    assert run_lengths(np.zeros((2, 2), dtype=bool)) == [4]


def test_kitti_flow_decodes_by_its_own_formula(source: SnapshotSource, truth_dataset: Path, tmp_path: Path) -> None:
    export(source, "kitti-flow", tmp_path / "out", ExportOptions(split="all"))
    root = tmp_path / "out" / "training"
    lines = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 4
    for line in lines:
        clip, number = scenes(truth_dataset)[line["scene_id"]], line["number"]
        flow = clip.flow()  # type: ignore[attr-defined]
        for name, mask_THW in (("flow_occ", flow.forward_known), ("flow_noc", flow.forward_seen)):
            code_HW3 = read_png16((root / name / f"{number:06d}_10.png").read_bytes()).astype(float)
            mask_HW = mask_THW[line["frame"]]
            assert ((code_HW3[..., 2] > 0) == mask_HW).all()
            assert np.abs((code_HW3[..., :2] - 2**15) / 64 - flow.forward[line["frame"]])[mask_HW].max() == 0
        for step in (0, 1):
            picture = iio.imread(root / "image_2" / f"{number:06d}_1{step}.png")
            assert (picture == clip.sharp()[line["frame"] + step]).all()  # type: ignore[attr-defined]


def test_webdataset_has_shards_of_truth_beside_the_clips(source: SnapshotSource, truth_dataset: Path, tmp_path: Path) -> None:
    export(source, "webdataset", tmp_path / "out")
    found = {}
    for shard in sorted((tmp_path / "out").glob("*-truth/*.tar")):
        found |= {sample["__key__"]: sample for sample in webdataset.WebDataset(str(shard), shardshuffle=False)}
    assert set(found) == set(scenes(truth_dataset))
    for scene_id, clip in scenes(truth_dataset).items():
        reader = clip.truth  # type: ignore[attr-defined]
        assert all(found[scene_id][path.replace("/", ".")] == reader.file(path) for path in reader.paths)


def test_hugging_face_reads_typed_columns(source: SnapshotSource, truth_dataset: Path, tmp_path: Path) -> None:
    export(source, "huggingface-truth", tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = [row for part in loaded.values() for row in part.with_format("numpy")]
    features = next(iter(loaded.values())).features
    assert features["depth_m"] == datasets.Array2D(shape=(64, 64), dtype="float32")
    assert features["flow_forward_px"] == datasets.Array3D(shape=(64, 64, 2), dtype="float32")
    assert isinstance(features["image"], datasets.Image) and len(rows) == 2 * 5
    for row in rows:
        clip, frame = scenes(truth_dataset)[row["scene_id"]], int(row["frame"])
        assert np.array_equal(row["depth_m"], clip.depth()[frame])  # type: ignore[attr-defined]
        assert np.array_equal(row["instances"], clip.instances()[frame])  # type: ignore[attr-defined]
        if frame < 4:
            assert np.array_equal(row["flow_forward_px"], clip.flow().forward[frame])  # type: ignore[attr-defined]
        names = [thing["name"] for thing in row["objects"]]
        assert names == [thing.name for thing in clip.objects()]  # type: ignore[attr-defined]


def test_rerun_opens_what_is_recorded(source: SnapshotSource, truth_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    export(source, "rerun", tmp_path / "out", ExportOptions(split="all", limit=1))
    [recording] = (tmp_path / "out").glob("*/scene.rrd")
    words = [sys.executable, "-m", "rerun", "rrd"]
    assert subprocess.run([*words, "verify", str(recording)], capture_output=True).returncode == 0
    told = subprocess.run([*words, "print", str(recording)], capture_output=True, text=True).stdout
    paths = ("/world/camera/picture/depth", "/world/camera/picture/boxes", "/world/objects/001_", "/flow", "/clips/")
    for path in paths:
        assert path in told


@pytest.mark.parametrize("format", ["coco", "kitti-flow", "huggingface-truth"])
def test_a_dataset_without_truth_is_refused_in_a_line(format: str, demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"format '{format}' is made of ground truth, and .* has none; add \[truth\]"):
        export(DatasetSource(demo_dataset), format, tmp_path / "out")
    assert not (tmp_path / "out").exists()
