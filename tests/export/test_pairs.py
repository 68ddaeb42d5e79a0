"""Pairs: derived from any labels by their law, exported with frames that are the clips', and read from other people's files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from squares import build, tree

from generator.export import DatasetSource, ExportOptions
from generator.export.run import export
from generator.media.video import decode, encode
from generator.pairs.dataset_pairs import PAIR_KINDS, DatasetPairs, pairs_of
from generator.pairs.pair_files import check_formats, read_pair_files
from generator.store.splits import SplitRatios
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from scenes.axes import AXES
from scenes.errors import InputError

LAW = AXES["shutter"].default_law
OF_TRUTH = ("sharp", "deblur")  # their tests are those of ground truth


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "ds"
    build(path, "pyramid.0.anchor=true", "captions.two_parts=true")
    commit_folder(History(path), "anchors", splits=SplitRatios(train=1.0, validation=0.0, test=0.0))
    return path


def labels_of(scenes: list[list[float]], frames: int = 5) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {
            "clip_id": f"s{number}-{index}",
            "scene_id": f"s{number}",
            "frames": frames,
            "caption": f"scene {number}",
            "shutter_control": control,
            AXES["shutter"].column: LAW.value(control),
        }
        for number, controls in enumerate(scenes)
        for index, control in enumerate(controls)
    ]
    return pa.Table.from_pylist(rows)


controls = st.sampled_from([-0.9, -0.3, 0.0, 0.4, 1.0])
controls_of_scenes = st.lists(st.lists(controls, min_size=1, max_size=5, unique=True), min_size=1)


@given(controls_of_scenes)
def test_pairs_stay_in_their_scene_and_say_by_how_much_the_control_differs(scenes: list[list[float]]) -> None:
    labels = labels_of(scenes)
    control = dict(zip(labels["clip_id"].to_pylist(), labels["shutter_control"].to_pylist(), strict=True))
    expected = {
        "any": sum(len(one) * (len(one) - 1) for one in scenes),
        "neutral": sum(len(one) - 1 for one in scenes if 0.0 in one),
        "still": len(labels),
        "keyframes": len(labels),
    }
    for kind, count in expected.items():
        if not count:
            with pytest.raises(InputError, match=f"no pairs of kind '{kind}'"):
                pairs_of(labels, kind)
            continue
        pairs = pairs_of(labels, kind)
        assert len(pairs) == count
        for pair in pairs:
            condition, target = pair.condition.clip_id, pair.target.clip_id
            assert {condition.split("-")[0], target.split("-")[0]} == {pair.scene_id}
            assert pair.control_change["shutter"] == pytest.approx(control[target] - control[condition])
            stops = (control[target] - control[condition]) * np.log2(LAW.ratio)
            assert pair.distance["shutter"] == pytest.approx(stops, abs=1e-9)
            assert kind != "neutral" or control[condition] == 0.0


def test_the_frames_of_a_pair_are_those_of_its_clips(anchored: Path) -> None:
    dataset = Dataset.open(anchored)
    pair, given, wanted = DatasetPairs(dataset, "neutral")[0]
    assert dataset[pair.condition.clip_id]["shutter_control"] == 0.0
    assert np.array_equal(given, dataset.frames(pair.condition.clip_id))
    assert np.array_equal(wanted, dataset.frames(pair.target.clip_id))
    pair, given, wanted = DatasetPairs(dataset, "keyframes")[1]
    assert np.array_equal(given, wanted[[0, -1]])
    assert DatasetPairs(dataset, "still")[0][1].shape[0] == 1


@pytest.mark.parametrize("kind", [kind for kind in PAIR_KINDS if kind not in OF_TRUTH])
def test_an_export_of_pairs_is_read_back_as_the_same_pairs(anchored: Path, tmp_path: Path, kind: str) -> None:
    source = DatasetSource(build(tmp_path / "ds", "pyramid.0.anchor=true"))
    export(source, "pairs", tmp_path / "out", ExportOptions(pairs=kind))
    before = tree(tmp_path / "out")
    assert export(source, "pairs", tmp_path / "out", ExportOptions(pairs=kind)).written.made == 0
    assert tree(tmp_path / "out") == before
    pairs = pairs_of(source.labels, kind)
    lines = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert [Path(line["video_path"]).stem for line in lines] == [pair.target.clip_id for pair in pairs]
    with (tmp_path / "out" / "pairs.csv").open() as file:
        assert [row["caption"] for row in csv.DictReader(file)] == [pair.caption for pair in pairs]
    line = lines[-1]
    video = decode(tmp_path / "out" / line["video_path"])
    if kind == "keyframes":
        stills = [iio.imread(tmp_path / "out" / line[f"control_path_{index}"]) for index in (0, 1)]
        assert np.array_equal(np.stack(stills), video[[0, -1]])
        return
    for table in ("pairs.jsonl", "pairs.csv", "in_context.csv"):
        read = read_pair_files(tmp_path / "out" / table)
        assert [one.caption for one in read] == [one.caption for one in pairs]
        condition, target = read[-1].frames()
        assert target.shape == video.shape and np.abs(target.astype(int) - video).mean() < 3
        assert len(condition) == (1 if kind == "still" else len(video))


@pytest.mark.parametrize("kind", OF_TRUTH)
def test_pairs_with_a_sharp_clip_are_refused_where_there_is_no_truth(anchored: Path, tmp_path: Path, kind: str) -> None:
    source = DatasetSource(build(tmp_path / "ds"))
    with pytest.raises(InputError, match=r"has no ground truth; add \[truth\]"):
        export(source, "pairs", tmp_path / "out", ExportOptions(pairs=kind))
    assert not list(tmp_path.glob("out/**/*.mp4"))
    with pytest.raises(InputError, match=r"has no ground truth; add \[truth\]"):
        DatasetPairs(Dataset.open(anchored), kind)[0]


def test_a_caption_that_a_person_edits_has_no_parts_any_more(tmp_path: Path) -> None:
    build(tmp_path, "captions.two_parts=true")
    history = History(tmp_path)
    commit_folder(history, "as drawn")
    first, *_ = sorted((tmp_path / "clips").glob("*.txt"))
    first.write_text("Something else.\n")
    commit_folder(history, "edited")
    labels = {row["clip_id"]: row for row in Dataset.open(tmp_path).labels.to_pylist()}
    edited = labels.pop(first.stem)
    assert (edited["caption"], edited["caption_content"], edited["caption_motion"]) == ("Something else.", None, None)
    assert all(row["caption"] == f"{row['caption_content']} {row['caption_motion']}" for row in labels.values())


def a_video(path: Path, frames: int = 5, fps: int = 16) -> None:
    rng = np.random.default_rng(frames)
    path.write_bytes(encode(rng.integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8), fps, 20, "ultrafast"))


def test_two_folders_are_paired_by_name(tmp_path: Path) -> None:
    for folder in ("clips", "given"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        a_video(tmp_path / "clips" / f"{name}.mp4")
        (tmp_path / "clips" / f"{name}.txt").write_text(f"clip {name}\n")
    a_video(tmp_path / "given" / "a.mp4")
    iio.imwrite(tmp_path / "given" / "b.png", np.zeros((32, 32, 3), np.uint8))
    pairs = read_pair_files(tmp_path / "clips", tmp_path / "given")
    assert [(pair.target.stem, pair.condition.name, pair.caption) for pair in pairs] == [
        ("a", "a.mp4", "clip a"),
        ("b", "b.png", "clip b"),
    ]
    assert [given.frames for given, _ in check_formats(pairs)] == [5, 1]
    (tmp_path / "given" / "c.png").touch()
    with pytest.raises(InputError, match="the condition of no clip"):
        read_pair_files(tmp_path / "clips", tmp_path / "given")
    (tmp_path / "given" / "c.png").unlink()
    (tmp_path / "given" / "b.png").unlink()
    with pytest.raises(InputError, match="no file named b"):
        read_pair_files(tmp_path / "clips", tmp_path / "given")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"video_path": "v.mp4", "caption": "x"}', "no text for 'control_path'"),
        ("a.jsonl", '{"video_path": "v.mp4", "control_path": "gone.mp4", "caption": "x"}', "line 1: .*gone.mp4 does not exist"),
        ("a.jsonl", "\n[1]", "line 2 is no object"),
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", "", "holds no pair"),
        ("a.jsonl", '{"video_path": "v.mp4", "control_path": "v.txt", "caption": "x"}', "no known kind"),
        ("a.csv", "video,caption\nv.mp4,x\n", "columns video,caption; they must be"),
        ("a.csv", "video,reference_video,caption\nv.mp4,v.mp4,\n", "no text for 'caption'"),
        ("a.csv", "video,reference_video,caption\nv.mp4\n", "no text for 'reference_video'"),
        ("a.toml", "", "no pairs in a known form"),
    ],
)
def test_a_table_that_lacks_something_is_refused_by_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    a_video(tmp_path / "v.mp4")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_pair_files(tmp_path / name)


def test_conditions_of_another_length_or_rate_and_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    a_video(tmp_path / "v.mp4")
    a_video(tmp_path / "long.mp4", frames=9)
    a_video(tmp_path / "fast.mp4", fps=24)
    (tmp_path / "junk.mp4").write_bytes(b"junk")
    for condition, words in (
        ("long", "long.mp4 has 9 frames, v.mp4 has 5"),
        ("fast", "fast.mp4 has 24 frames per second"),
        ("junk", "junk.mp4 is no readable video"),
    ):
        line = {"video_path": "v.mp4", "control_path": f"{condition}.mp4", "caption": "x"}
        (tmp_path / "a.jsonl").write_text(json.dumps(line))
        with pytest.raises(InputError, match=words):
            check_formats(read_pair_files(tmp_path / "a.jsonl"))
