"""Pairs of a blurred clip and its scene's sharp one: only where blur is all that differs, with the frames that truth has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from generator import Dataset
from generator.export.base import ExportOptions
from generator.export.run import export
from generator.export.source import SnapshotSource
from generator.media.video import decode
from generator.pairs.dataset_pairs import DatasetPairs
from generator.pairs.pair_files import check_formats, read_pair_files
from scenes.axes import AXES


def test_a_sharp_clip_is_paired_with_the_clips_that_the_optics_blur(truth_dataset: Path) -> None:
    """The other scene varies the temperature, whose cast no sharp clip undoes."""
    dataset = Dataset.open(truth_dataset)
    blurred = [clip.clip_id for clip in dataset if clip[AXES["shutter"].column] is not None]
    sharp, deblur = DatasetPairs(dataset, "sharp"), DatasetPairs(dataset, "deblur")
    assert [pair.target.clip_id for pair in sharp.pairs] == blurred == [pair.condition.clip_id for pair in deblur.pairs]
    assert 0 < len(blurred) < len(dataset)
    for position, clip_id in enumerate(blurred):
        pair, condition_THW3, target_THW3 = sharp[position]
        assert pair.control_change == {} and pair.distance == {}
        assert np.array_equal(condition_THW3, dataset[clip_id].sharp())
        assert np.array_equal(target_THW3, dataset[clip_id].frames())
        _, wrong_way_THW3, back_THW3 = deblur[position]
        assert np.array_equal(wrong_way_THW3, target_THW3) and np.array_equal(back_THW3, condition_THW3)
    longest = max(blurred, key=lambda clip_id: dataset[clip_id][AXES["shutter"].column])
    least = min(blurred, key=lambda clip_id: dataset[clip_id][AXES["shutter"].column])
    apart = {one: np.abs(dataset[one].frames().astype(int) - dataset[one].sharp()).mean() for one in (least, longest)}
    assert apart[longest] > apart[least]  # the longer exposure is further from the instant


@pytest.mark.parametrize("kind", ["sharp", "deblur"])
def test_an_export_has_the_sharp_clip_once_per_scene(truth_dataset: Path, tmp_path: Path, kind: str) -> None:
    source, out = SnapshotSource(Dataset.open(truth_dataset)), tmp_path / "out"
    export(source, "pairs", out, ExportOptions(pairs=kind))
    assert export(source, "pairs", out, ExportOptions(pairs=kind)).written.made == 0
    (video,) = (out / "sharp").glob("*.mp4")
    dataset = Dataset.open(truth_dataset)
    lines = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    key, other = ("control_path", "video_path") if kind == "sharp" else ("video_path", "control_path")
    assert [line[key] for line in lines] == [f"sharp/{video.name}"] * len(lines)
    assert not any("control_change" in name for line in lines for name in line)
    clip = dataset[Path(lines[0][other]).stem]
    assert np.abs(decode(video).astype(int) - clip.sharp()).mean() < 3  # the same pictures through the encoder
    read = read_pair_files(out / "pairs.csv")
    check_formats(read)
    assert len(read) == len(lines)
