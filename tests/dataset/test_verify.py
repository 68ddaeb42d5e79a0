"""Verify: a sound dataset passes, and every kind of damage is found and named. Real renders, real probes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from generator.errors import DamagedError
from generator.verify.findings import VerifyReport
from generator.verify.table import failures, print_report
from generator.verify.verify_dataset import verify
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError


@pytest.fixture(scope="module")
def report(demo_dataset: WorkingFolder) -> VerifyReport:
    return verify(demo_dataset, workers=2)


def test_sound_dataset_passes(demo_dataset: WorkingFolder, report: VerifyReport) -> None:
    assert report.problems == ()
    assert report.passed, failures(report)
    assert report.exit_code == 0
    assert [(entry.clip_id, entry.axis) for entry in report.measurements] == [
        (clip.clip_id, axis) for clip in demo_dataset.plan.clips for axis in clip.axes
    ]
    assert report.size_bytes == sum(path.stat().st_size for path in (demo_dataset.path / "clips").glob("*.mp4"))


def test_statistics_are_those_of_the_label_table(demo_dataset: WorkingFolder, report: VerifyReport) -> None:
    rows = demo_dataset.labels.to_pylist()
    for axis in report.axes:
        judged = [abs(row[f"{axis.axis}_error"]) for row in rows if row[f"{axis.axis}_judged"]]
        assert axis.judged == len(judged) > 0
        assert axis.clips == sum(row[f"{axis.axis}_control"] is not None for row in rows)
        assert axis.judged + axis.too_small + axis.unreadable == axis.clips
        assert axis.median_error == pytest.approx(float(np.median(judged)), abs=1e-6)
        assert axis.worst_error == pytest.approx(max(judged), abs=1e-6)


def test_number_of_workers_changes_nothing(demo_dataset: WorkingFolder, report: VerifyReport) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(demo_dataset, lambda done, of: seen.append((done, of)), workers=1) == report
    assert seen == [(done, report.clips) for done in range(1, report.clips + 1)]


def test_no_workers_is_refused(demo_dataset: WorkingFolder) -> None:
    with pytest.raises(InputError, match="0 workers"):
        verify(demo_dataset, workers=0)


# --- damage: what is done, and (kind, clip) of the problems that must be found, exactly -----------------------------------

Damage = Callable[[WorkingFolder], set[tuple[str, str]]]


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    writable(path).write_bytes(bytes(data))


def clip_at(dataset: WorkingFolder, number: int) -> str:
    return dataset.plan.clips[number].clip_id


def object_of(dataset: WorkingFolder, clip_id: str) -> Path:
    rows = {row["clip_id"]: row for row in dataset.labels.to_pylist()}
    return dataset.store.path(rows[clip_id]["sha256_bytes"])


def edit(dataset: WorkingFolder, clip_id: str, column: str, value: object) -> None:
    table = dataset.labels
    rows = table.to_pylist()
    next(row for row in rows if row["clip_id"] == clip_id)[column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), dataset.path / "labels.parquet")


def flip_in_object(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 0)
    flip_bit(object_of(dataset, clip))  # the view is a hard link to it, so both are damaged
    return {("bytes", clip)}


def flip_in_object_only(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 1)
    data = dataset.clip_path(clip).read_bytes()
    dataset.clip_path(clip).unlink()
    dataset.clip_path(clip).write_bytes(data)
    flip_bit(object_of(dataset, clip))
    return {("object", clip)}


def flip_in_view_only(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 2)
    data = dataset.clip_path(clip).read_bytes()
    dataset.clip_path(clip).unlink()
    dataset.clip_path(clip).write_bytes(data)
    flip_bit(dataset.clip_path(clip))
    return {("bytes", clip)}


def truncate(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 3)
    path = writable(dataset.clip_path(clip))
    path.write_bytes(path.read_bytes()[:-100])
    return {("bytes", clip)}


def empty(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 4)
    writable(dataset.clip_path(clip)).write_bytes(b"")
    return {("bytes", clip)}


def delete_view(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 5)
    dataset.clip_path(clip).unlink()
    return {("missing", clip)}


def delete_object(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 6)
    object_of(dataset, clip).unlink()
    return {("object", clip)}


def swap_clips(dataset: WorkingFolder) -> set[tuple[str, str]]:
    one, other = clip_at(dataset, 0), clip_at(dataset, 2)
    aside = dataset.path / "aside"
    dataset.clip_path(one).rename(aside)
    dataset.clip_path(other).rename(dataset.clip_path(one))
    aside.rename(dataset.clip_path(other))
    return {("swapped", one), ("swapped", other)}


def swap_captions(dataset: WorkingFolder) -> set[tuple[str, str]]:
    one, other = dataset.plan.clips[0], next(c for c in dataset.plan.clips if c.caption != dataset.plan.clips[0].caption)
    paths = [dataset.clip_path(clip.clip_id).with_suffix(".txt") for clip in (one, other)]
    texts = [path.read_bytes() for path in paths]
    for path, text in zip(paths, reversed(texts), strict=True):
        path.write_bytes(text)
    return {("caption", one.clip_id), ("caption", other.clip_id)}


def delete_caption(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 1)
    dataset.clip_path(clip).with_suffix(".txt").unlink()
    return {("caption", clip)}


def edit_value(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 0)
    edit(dataset, clip, "shutter_exposure_s", dataset.plan.clips[0].values["shutter"] * 1.001)
    return {("label", clip)}


def edit_control(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 0)
    edit(dataset, clip, "shutter_control", 1.01)
    return {("label", clip)}


def erase_value(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 0)
    edit(dataset, clip, "shutter_exposure_s", None)
    return {("label", clip)}


def label_uncontrolled_axis(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 0)
    edit(dataset, clip, "temperature_k", 6500.0)
    return {("label", clip)}


def edit_caption_label(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 7)
    edit(dataset, clip, "caption", "a very blurred thing")
    return {("caption", clip)}


def edit_seed(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 7)
    edit(dataset, clip, "seed", 6)
    return {("label", clip)}


def edit_reading(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = dataset.plan.clips[-1]
    edit(dataset, clip.clip_id, f"{clip.axes[0]}_error", 0.0)
    return {("reading", clip.clip_id)}


def edit_frames_hash(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 3)
    edit(dataset, clip, "sha256_frames", "0" * 64)
    return {("frames", clip)}


def garble_bytes_hash(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 3)
    edit(dataset, clip, "sha256_bytes", "not a hash")
    return {("label", clip)}


def edit_size(dataset: WorkingFolder) -> set[tuple[str, str]]:
    clip = clip_at(dataset, 3)
    edit(dataset, clip, "size_bytes", 1)
    return {("label", clip)}


def drop_row(dataset: WorkingFolder) -> set[tuple[str, str]]:
    pq.write_table(dataset.labels.slice(1), dataset.path / "labels.parquet")
    return {("count", dataset.labels["clip_id"][0].as_py())}


def double_row(dataset: WorkingFolder) -> set[tuple[str, str]]:
    pq.write_table(pa.concat_tables([dataset.labels, dataset.labels.slice(2, 1)]), dataset.path / "labels.parquet")
    return {("count", dataset.labels["clip_id"][2].as_py())}


def rename_row(dataset: WorkingFolder) -> set[tuple[str, str]]:
    edit(dataset, clip_at(dataset, 2), "clip_id", "stranger-0")
    return {("count", clip_at(dataset, 2)), ("count", "stranger-0")}


def add_file(dataset: WorkingFolder) -> set[tuple[str, str]]:
    (dataset.path / "clips" / "stranger.mp4").write_bytes(b"?")
    return {("count", "stranger.mp4")}


def damage_record(dataset: WorkingFolder) -> set[tuple[str, str]]:
    path = sorted((dataset.store.root / "records").glob("??/*.json"))[0]
    writable(path).write_bytes(b"{")
    return {("record", path.stem)}


DAMAGE: Sequence[Damage] = (
    flip_in_object, flip_in_object_only, flip_in_view_only, truncate, empty, delete_view, delete_object, swap_clips,
    swap_captions, delete_caption, edit_value, edit_control, erase_value, label_uncontrolled_axis, edit_caption_label,
    edit_seed, edit_reading, edit_frames_hash, garble_bytes_hash, edit_size, drop_row, double_row, rename_row, add_file,
    damage_record,
)  # fmt: skip


def test_undamaged_copy_passes(copied_dataset: Path) -> None:
    assert verify(WorkingFolder.open(copied_dataset), workers=1).passed


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_found_and_named(copied_dataset: Path, damage: Damage) -> None:
    expected = damage(WorkingFolder.open(copied_dataset))
    found = verify(WorkingFolder.open(copied_dataset), workers=1)
    assert {(problem.kind, problem.where) for problem in found.problems} == expected
    assert not found.passed
    assert found.exit_code == 1
    console = Console(width=160, file=io.StringIO())
    print_report(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not verified" in text
    assert all(where in text for _, where in expected)


def test_swapped_clips_name_each_other(copied_dataset: Path) -> None:
    (_, one), (_, other) = sorted(swap_clips(WorkingFolder.open(copied_dataset)))
    messages = {problem.where: problem.message for problem in verify(WorkingFolder.open(copied_dataset), workers=1).problems}
    assert other in messages[one]
    assert one in messages[other]


def test_truncation_says_both_sizes(copied_dataset: Path) -> None:
    dataset = WorkingFolder.open(copied_dataset)
    truncate(dataset)
    size = dataset.clip_path(clip_at(dataset, 3)).stat().st_size
    (problem,) = verify(WorkingFolder.open(copied_dataset), workers=1).problems
    assert f"{size} bytes" in problem.message
    assert str(size + 100) in problem.message


def test_wrong_schema_is_one_line(copied_dataset: Path) -> None:
    dataset = WorkingFolder.open(copied_dataset)
    pq.write_table(dataset.labels.drop_columns(["shutter_control"]), copied_dataset / "labels.parquet")
    with pytest.raises(DamagedError, match="column shutter_control is missing"):
        verify(WorkingFolder.open(copied_dataset), workers=1)
