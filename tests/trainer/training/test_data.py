"""A version as training data: what is opened is what was committed, and what cannot be trained on is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from dataset_support import ONE_AXIS, TWO_AXES, make_dataset
from diffusers import WanPipeline

from generator.errors import DamagedError
from generator.store.splits import SplitRatios
from generator.versions.reading.dataset import Dataset
from scenes.axes import AXES
from scenes.errors import InputError
from trainer.backbones.load import load_backbone
from trainer.data import check_sizes, open_data
from trainer.data.frames import FrameBatches
from trainer.data.records import unit_law


def test_records_are_the_labels(tints: Path) -> None:
    data, snapshot = open_data(tints, axes=["temperature"]), Dataset.open(tints)
    assert data.version_id == snapshot.version.id and data.notes == ()
    for records, split in ((data.train, "train"), (data.validation, "validation")):
        rows = snapshot.split(split).labels.to_pylist()
        assert [record.clip_id for record in records] == [row["clip_id"] for row in rows]
        for record, row in zip(records, rows, strict=True):
            assert record.controls == (row["temperature_control"],)
            assert record.shape == (row["frames"], row["height"], row["width"]) and record.caption == row["caption"]
            np.testing.assert_array_equal(data.frames(record), snapshot.frames(record.clip_id))
    assert {record.scene_id for record in data.train}.isdisjoint(record.scene_id for record in data.validation)


def test_the_unit_law_is_the_recipes(tints: Path) -> None:
    (axis,) = open_data(tints).axes
    assert (axis.name, axis.law.neutral) == ("temperature", 6000.0)
    labels = Dataset.open(tints).split("train").labels.to_pylist()
    for record, row in zip(open_data(tints).train, labels, strict=True):
        assert axis.control(row[AXES["temperature"].column]) == pytest.approx(record.controls[0], abs=1e-6)


def test_axes_come_in_the_order_asked_for_and_absent_ones_are_neutral(two_axes: Path) -> None:
    one, other = (open_data(two_axes, axes=axes) for axes in (["shutter", "temperature"], ["temperature", "shutter"]))
    assert [r.controls for r in one.train] == [r.controls[::-1] for r in other.train]
    assert [axis.name for axis in open_data(two_axes).axes] == ["shutter", "temperature"]
    for record in one.train:
        assert (record.controls[0] == 0.0) == record.clip_id.startswith("tabletop")
        assert record.controls[1] != 0.0
    assert [record.controls for record in open_data(two_axes, axes=()).train] == [()] * len(one.train)


def test_a_split_that_is_empty_is_said_not_replaced(tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", splits=SplitRatios(train=1.0, validation=0.0, test=0.0))
    data = open_data(tmp_path / "d")
    assert data.validation == () and len(data.train) == 24
    assert data.notes == ("none of the 12 scenes falls into the split 'validation'; nothing is held out",)


def test_an_axis_that_only_training_varies_is_said(two_axes: Path) -> None:
    validation = open_data(two_axes).validation
    assert validation and not any(record.controls[0] for record in validation)
    assert open_data(two_axes).notes == ("no clip of the split 'validation' varies shutter; its loss says nothing of shutter",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"axes": ["shutter"]}, "has no axis 'shutter'; it has temperature"),
        ({"axes": ["temprature"]}, r"has no axis 'temprature' \(did you mean 'temperature'\?\)"),
        ({"axes": ["temperature", "temperature"]}, "stands twice"),
        ({"ref": "v9"}, "no version 'v9'"),
        ({"train_split": "trian"}, r"no split 'trian' \(did you mean 'train'\?\)"),
        ({"train_split": "test", "validation_split": "test"}, "give two splits"),
    ],
)
def test_what_cannot_be_is_one_line(tints: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        open_data(tints, **options)
    assert "\n" not in str(caught.value)


def test_a_version_without_training_clips_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", splits=SplitRatios(train=0.0, validation=1.0, test=0.0))
    with pytest.raises(InputError, match="has no clip in the split 'train'"):
        open_data(tmp_path / "d")


def test_labels_that_break_the_unit_law_are_refused(tints: Path) -> None:
    snapshot = Dataset.open(tints)
    recipe = {**snapshot.version.recipes[0], "axes": {"temperature": {"neutral": 5000.0, "ratio": None}}}
    with pytest.raises(InputError, match="the version's unit law gives"):
        unit_law(snapshot.version.model_copy(update={"recipes": (recipe,)}), snapshot.labels, "temperature")
    both = snapshot.version.model_copy(update={"recipes": (snapshot.version.recipes[0], recipe)})
    with pytest.raises(InputError, match="different unit laws"):
        unit_law(both, snapshot.labels, "temperature")


def test_an_older_version_is_opened_by_its_ref(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "d", ONE_AXIS)
    second = make_dataset(tmp_path / "d", TWO_AXES)
    assert open_data(tmp_path / "d").version_id == second.id
    assert open_data(tmp_path / "d", first.short).version_id == open_data(tmp_path / "d", "latest~1").version_id == first.id


@pytest.fixture(scope="module")
def pipe(tiny_folder: Path) -> WanPipeline:
    """A tiny backbone."""
    return load_backbone(str(tiny_folder))


def test_sizes_are_checked_for_all_clips_by_name(tints: Path, pipe: WanPipeline) -> None:
    records = open_data(tints).train
    check_sizes(records, pipe)
    for change, words in (({"frames": 6}, "6 frames do not fit"), ({"height": 40}, "size 32x40 does not fit")):
        wrong = dataclasses.replace(records[-1], **change)
        with pytest.raises(InputError, match=f"clip {wrong.clip_id}: .*{words}"):
            check_sizes([*records[:-1], wrong], pipe)


def test_frames_that_are_not_the_labelled_ones_are_refused(tints: Path) -> None:
    data = open_data(tints)
    with pytest.raises(DamagedError, match="decodes to other frames"):
        data.frames(dataclasses.replace(data.train[0], frames_sha256="0" * 64))


def test_crops_are_pieces_of_their_clips(two_axes: Path) -> None:
    data = open_data(two_axes)
    batches = FrameBatches(data, data.train, batch_size=2, seed=1, lengths=(1, 5))
    lengths, clips = set(), {record.clip_id: data.frames(record) for record in data.train}
    for step in range(20):
        batch = batches.micro_batch(step, 0, 1)
        lengths.add(batch.tensors["frames"].shape[1])
        for clip_id, crop in zip(batch.clip_ids, batch.tensors["frames"].numpy(), strict=True):
            whole = clips[clip_id]
            assert any(np.array_equal(crop, whole[s : s + len(crop)]) for s in range(len(whole) - len(crop) + 1))
        again = FrameBatches(data, data.train, batch_size=2, seed=1, lengths=(1, 5), memory_bytes=0)
        assert again.micro_batch(step // 2, step % 2, 2).clip_ids == batch.clip_ids
    assert lengths == {1, 5}


def test_lengths_that_no_clip_reaches_are_refused(two_axes: Path) -> None:
    data = open_data(two_axes)
    with pytest.raises(InputError, match="leave no crop of a clip of 1 frames"):
        FrameBatches(data, data.train, batch_size=1, seed=0, lengths=(5,))
