"""An export on the disk: the same bytes twice, finished after any kill, and never over anything else."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from squares import FORMATS, tree

from generator.errors import DamagedError, ExportError
from generator.export import DatasetSource, ExportOptions
from generator.export.files.marker import MARKER
from generator.export.run import export
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import InputError

FILES_ARE_FIXED = [name for name in FORMATS if name != "lance"]  # Lance draws file names at random
PROGRAM = Path(__file__).parent / "interrupted.py"


@pytest.mark.parametrize("name", FILES_ARE_FIXED)
def test_two_exports_have_the_same_bytes(source: DatasetSource, tmp_path: Path, name: str) -> None:
    export(source, name, tmp_path / "one")
    export(source, name, tmp_path / "two", ExportOptions(copy=True))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("name", FORMATS)
def test_exporting_again_changes_nothing(source: DatasetSource, tmp_path: Path, name: str) -> None:
    first = export(source, name, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = export(source, name, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    done = again.written
    assert (done.linked, done.copied, done.made) == (0, 0, 0) and done.facts == first.written.facts


@pytest.mark.parametrize("name", FORMATS)
def test_the_marker_lists_every_file_with_its_hash(source: DatasetSource, tmp_path: Path, name: str) -> None:
    import hashlib

    export(source, name, tmp_path)
    files = tree(tmp_path)
    marker = json.loads(files.pop(MARKER))
    assert marker["complete"] is True and marker["format"] == name
    facts = {path: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for path, data in files.items()}
    assert marker["files"] == facts


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_export_is_finished_by_the_same_command(dataset: WorkingFolder, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    name, out, whole = rng.choice(FILES_ARE_FIXED), tmp_path / "out", tmp_path / "whole"
    export(DatasetSource(dataset), name, whole)
    kills = 0
    for _ in range(2):
        fatal = str(rng.randrange(len(tree(whole))))
        command = [sys.executable, str(PROGRAM), str(dataset.path), name, str(out), fatal]
        died = subprocess.run(command, check=False, capture_output=True, text=True)
        assert died.returncode in (0, -signal.SIGKILL), died.stderr
        kills += died.returncode == -signal.SIGKILL
    assert kills >= 1
    assert all(path.read_bytes() == tree(whole)[path.relative_to(out).as_posix()] for path in _finished_files(out))
    export(DatasetSource(dataset), name, out)
    assert tree(out) == tree(whole)


def _finished_files(out: Path) -> list[Path]:
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else []
    return [path for path in files if path.name != MARKER and not path.name.startswith(".tmp-")]


def test_clips_are_hard_links_or_copies_as_asked(source: DatasetSource, tmp_path: Path) -> None:
    linked = export(source, "diffsynth", tmp_path / "linked")
    copied = export(source, "diffsynth", tmp_path / "copied", ExportOptions(copy=True))
    clips = source.labels["clip_id"].to_pylist()
    assert (linked.written.linked, linked.written.copied) == (len(clips), 0)
    assert (copied.written.linked, copied.written.copied) == (0, len(clips))
    for clip_id in clips:
        original = source.clip_path(clip_id)
        assert (tmp_path / "linked/clips" / original.name).samefile(original)
        assert not (tmp_path / "copied/clips" / original.name).samefile(original)


def test_where_links_are_impossible_clips_are_copied(
    source: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    report = export(source, "diffsynth", tmp_path)
    assert report.written.copied == report.clips and report.written.linked == 0


def test_a_full_disk_is_one_line_and_the_rest_is_done_later(
    source: DatasetSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = 0
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes == 9:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ExportError, match="No space left on device; what is exported stays"):
            export(source, "diffusion-pipe", tmp_path / "out")
    assert not json.loads((tmp_path / "out" / MARKER).read_text())["complete"]
    assert not list((tmp_path / "out").rglob(".tmp-*"))
    export(source, "diffusion-pipe", tmp_path / "out")
    export(source, "diffusion-pipe", tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def refused(words: str, source: Any, name: str, out: Path, options: ExportOptions | None = None) -> None:
    """Expect a refusal in one line, and nothing changed."""
    before = tree(out) if out.is_dir() else None
    with pytest.raises((InputError, DamagedError), match=words) as caught:
        export(source, name, out, options)
    assert "\n" not in str(caught.value)
    assert (tree(out) if out.is_dir() else None) == before


def test_a_folder_with_other_content_is_refused(source: DatasetSource, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused("is not empty .it has thesis.txt.", source, "videofolder", tmp_path)


def test_a_file_is_refused(source: DatasetSource, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    refused("is a file", source, "videofolder", tmp_path / "out")


@pytest.mark.parametrize("place", [".", "exports/a", "clips", ".stopdown"])
def test_the_dataset_itself_is_refused(source: DatasetSource, place: str) -> None:
    refused("inside the dataset", source, "diffsynth", source.path / place)


def test_a_link_into_the_dataset_is_refused(source: DatasetSource, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(source.path)
    refused("inside the dataset", source, "diffsynth", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("finetrainers", ExportOptions()),
        ("diffusion-pipe", ExportOptions(preset="stopdown")),
        ("diffusion-pipe", ExportOptions(limit=3)),
        ("diffusion-pipe", ExportOptions(root="/data")),
    ],
)
def test_another_export_is_refused(source: DatasetSource, tmp_path: Path, name: str, options: ExportOptions) -> None:
    export(source, "diffusion-pipe", tmp_path)
    refused("holds another export", source, name, tmp_path, options)


def test_another_licence_is_another_export(source: DatasetSource, dataset: WorkingFolder, tmp_path: Path) -> None:
    export(source, "videofolder", tmp_path)
    refused("its license is CC-BY-4.0, this one's is MIT", DatasetSource(dataset, "MIT"), "videofolder", tmp_path)


def test_an_edited_file_is_never_overwritten(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "ai-toolkit", tmp_path)
    caption = next((tmp_path / "9f").glob("*.txt"))
    caption.write_text("my own words")
    refused("was changed since it was exported", source, "ai-toolkit", tmp_path)


def test_a_flipped_bit_in_a_finished_shard_is_found(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "webdataset", tmp_path)
    shard = tmp_path / "train/train-000000.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    refused("was changed since it was exported", source, "webdataset", tmp_path)


def test_a_file_emptied_by_a_power_cut_is_written_again(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "webdataset", tmp_path / "out")
    export(source, "webdataset", tmp_path / "whole")
    for path in ("train/train-000000.tar", "provenance.json"):
        (tmp_path / "out" / path).write_bytes(b"")
    export(source, "webdataset", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_files_that_a_trainer_adds_do_not_stand_in_the_way(source: DatasetSource, tmp_path: Path) -> None:
    export(source, "diffusion-pipe", tmp_path)
    (tmp_path / "clips" / "cache").mkdir()
    (tmp_path / "clips" / "cache" / "latents").write_bytes(b"x")
    export(source, "diffusion-pipe", tmp_path)
    assert (tmp_path / "clips" / "cache" / "latents").read_bytes() == b"x"


def test_a_symbolic_link_in_place_of_a_file_is_refused(source: DatasetSource, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside.csv"
    export(source, "diffsynth", out)
    outside.write_text("mine")
    (out / "metadata.csv").unlink()
    (out / "metadata.csv").symlink_to(outside)
    refused("symbolic link", source, "diffsynth", out)
    assert outside.read_text() == "mine"


def test_a_second_export_at_the_same_time_is_refused(source: DatasetSource, tmp_path: Path) -> None:
    tmp_path.joinpath("out").mkdir()
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        refused("another export is writing", source, "diffsynth", tmp_path / "out")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\xff"])
def test_a_damaged_marker_is_refused(source: DatasetSource, tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_bytes(text.encode("latin-1"))
    refused("is damaged", source, "diffsynth", tmp_path)


@pytest.mark.parametrize("name", FILES_ARE_FIXED)
def test_a_flipped_bit_in_a_clip_is_found(dataset: WorkingFolder, tmp_path: Path, name: str) -> None:
    shutil.copytree(dataset.path, tmp_path / "copy")
    copy = DatasetSource(WorkingFolder.open(tmp_path / "copy"))
    victim = copy.clip_path(copy.labels["clip_id"][-1].as_py())
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.unlink()
    victim.write_bytes(data)
    with pytest.raises(DamagedError, match="does not match the sha256 of its label"):
        export(copy, name, tmp_path / "out")
    assert not json.loads((tmp_path / "out" / MARKER).read_text())["complete"]


def test_a_missing_clip_is_named(dataset: WorkingFolder, tmp_path: Path) -> None:
    shutil.copytree(dataset.path, tmp_path / "copy")
    copy = DatasetSource(WorkingFolder.open(tmp_path / "copy"))
    copy.clip_path(copy.labels["clip_id"][0].as_py()).unlink()
    with pytest.raises(DamagedError, match="is missing"):
        export(copy, "videofolder", tmp_path / "out")


@pytest.mark.parametrize("clip_id", ["../../etc/passwd", "/etc/passwd", "..", "a/b", "", "a\x00b", "-rf", "a\nb"])
def test_a_clip_id_that_is_a_path_is_refused(source: DatasetSource, tmp_path: Path, clip_id: str) -> None:
    class Hostile:
        path, license, origin, clip_path = source.path, source.license, source.origin, source.clip_path
        labels = source.labels.set_column(
            0, source.labels.schema.field(0), pa.array([clip_id, *source.labels["clip_id"].to_pylist()[1:]], pa.string())
        )

    for name in FORMATS:
        refused("no file name", Hostile(), name, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_clip_id_that_stands_twice_is_refused(source: DatasetSource, tmp_path: Path) -> None:
    class Twice:
        path, license, origin, clip_path = source.path, source.license, source.origin, source.clip_path
        labels = pa.concat_tables([source.labels, source.labels.slice(0, 1)])

    refused("twice", Twice(), "diffsynth", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("videofoldr", ExportOptions(), "no export format 'videofoldr' .did you mean 'videofolder'"),
        ("diffusion-pipe", ExportOptions(preset="less-is-mor"), "no preset 'less-is-mor' .did you mean 'less-is-more'"),
        ("diffsynth", ExportOptions(preset="flat"), "has no presets"),
        ("diffsynth", ExportOptions(split="train"), "has no splits"),
        ("diffsynth", ExportOptions(limit=0), "leaves nothing"),
        ("diffsynth", ExportOptions(root=""), "is not a path"),
        ("diffsynth", ExportOptions(root="a\nb"), "is not a path"),
    ],
)
def test_wrong_options_are_refused(
    source: DatasetSource, tmp_path: Path, name: str, options: ExportOptions, words: str
) -> None:
    refused(words, source, name, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_split_is_refused_with_the_closest(split_source: Any, tmp_path: Path) -> None:
    refused("no such split .did you mean 'train'.*splits: test, train, validation, or all", split_source, "diffsynth",
            tmp_path / "out", ExportOptions(split="trian"))  # fmt: skip


def test_a_format_of_one_set_takes_the_train_split_and_says_what_it_left(split_source: Any, tmp_path: Path) -> None:
    counts = {name: split_source.labels["split"].to_pylist().count(name) for name in ("train", "validation", "test")}
    plain = export(split_source, "diffsynth", tmp_path / "plain")
    assert plain.clips == counts["train"]
    assert plain.left_out == {"test": counts["test"], "validation": counts["validation"]}
    everything = export(split_source, "diffsynth", tmp_path / "all", ExportOptions(split="all"))
    assert everything.clips == sum(counts.values()) and everything.left_out == {}
    tests = export(split_source, "videofolder", tmp_path / "test", ExportOptions(split="test"))
    assert tests.clips == counts["test"] and sorted(path.name for path in (tmp_path / "test").iterdir() if path.is_dir()) == [
        "test"
    ]


def test_a_limit_takes_the_first_clips(source: DatasetSource, tmp_path: Path) -> None:
    report = export(source, "diffsynth", tmp_path, ExportOptions(limit=4))
    assert report.clips == 4
    names = {path.stem for path in (tmp_path / "clips").iterdir()}
    assert names == set(source.labels["clip_id"].to_pylist()[:4])
