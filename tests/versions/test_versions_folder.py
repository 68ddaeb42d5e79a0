"""The working folder: status, restore, and committing what was changed by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from versions_support import (
    built,
    changed,
    commit_clips,
    folder_bytes,
    make_clips,
    origin,
    references,
    table,
    without,
    write_folder,
)

from generator.errors import DamagedError
from generator.store.labels import labels_file
from generator.versions.check import check
from generator.versions.commit import commit
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.working.compare import Working
from generator.versions.working.restore import restore
from generator.versions.working.status import record_shown, status
from generator.versions.working.working_folder import build_lock
from scenes.errors import InputError


def two_versions(path: Path) -> tuple[History, dict[str, bytes], dict[str, bytes]]:
    """Return a dataset of two versions, the second shown, and the files of both; they differ in every kind of file."""
    history, clips, _ = built(path, 9, lossless=True)
    first = folder_bytes(path)
    ids = list(clips)
    later = changed(without({**clips, **make_clips(history.store, 4, seed=5)}, ids[0]), ids[3], caption="new words")
    plan = '{"clips":[],"recipe":{"name":"second","render":{"samples":8}}}'
    commit(
        history, table(later), references(later), origin("second", files={"README.md": b"# 2\n", "card.json": b"{}"}, plan=plan)
    )
    restore(history, "latest")
    return history, first, folder_bytes(path)


def test_a_finished_build_is_clean_and_a_restore_goes_there_and_back(tmp_path: Path) -> None:
    history, first, second = two_versions(tmp_path)
    assert status(history).clean and first.keys() != second.keys()
    for ref, expected in (("latest~1", first), ("latest", second), ("latest~1", first)):
        restore(history, ref)
        now = folder_bytes(tmp_path)
        assert {name: data for name, data in now.items() if name != "labels.parquet"} == {
            name: data for name, data in expected.items() if name != "labels.parquet"
        }
        assert pq.read_table(tmp_path / "labels.parquet").equals(
            Dataset.open(tmp_path, ref).labels.drop_columns(["key", "lossless", "split"])
        )
        assert status(history).clean and status(history, thorough=True).clean and check(history).clean
    assert not (tmp_path / "card.json").exists()


def test_a_restore_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    history, _, _ = two_versions(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if ".stopdown" not in path.parts and path.is_file()}
    report = restore(history, "latest")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if ".stopdown" not in path.parts and path.is_file()}
    assert (report.written, report.removed) == (0, 0) and after == before


def _edit(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)


def _edited_labels(path: Path) -> None:
    labels = pq.read_table(path / "labels.parquet")
    _edit(path / "labels.parquet", labels_file(labels.slice(1)))


CHANGES = {
    "a clip": (lambda path: _edit(sorted((path / "clips").glob("*.mp4"))[0], b"other"), "does not match its sha256"),
    "a caption": (lambda path: _edit(sorted((path / "clips").glob("*.txt"))[0], b"mine\n"), "holds another caption"),
    "a frame": (lambda path: _edit(sorted((path / "frames").rglob("*.png"))[0], b"other"), "does not match its sha256"),
    "a new clip": (lambda path: _edit(path / "clips" / "mine.mp4", b"mine"), "belongs to no clip"),
    "a new frame": (lambda path: _edit(path / "frames" / "mine" / "0000.png", b"mine"), "belongs to no clip"),
    "labels": (_edited_labels, "has 11 rows, the version has 12"),
    "damaged labels": (lambda path: _edit(path / "labels.parquet", b"PAR1"), "cannot be read"),
    "the card": (lambda path: _edit(path / "README.md", b"mine"), "does not match its sha256"),
    "the plan": (lambda path: _edit(path / ".stopdown" / "plan.json", b'{"recipe":{}}'), "is the plan of a build"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_uncommitted_work_is_not_lost_unless_forced(tmp_path: Path, name: str) -> None:
    history, _, second = two_versions(tmp_path)
    change, words = CHANGES[name]
    change(tmp_path)
    before = folder_bytes(tmp_path)
    assert not status(history).clean
    with pytest.raises(InputError, match=words):
        restore(history, "latest~1")
    assert folder_bytes(tmp_path) == before
    report = restore(history, "latest", force=True)
    assert len(report.lost) == 1 and status(history).clean and status(history, thorough=True).clean
    now = folder_bytes(tmp_path)
    assert now.keys() == second.keys() and all(now[name] == second[name] for name in second if name != "labels.parquet")


def test_deleted_files_come_back_without_force(tmp_path: Path) -> None:
    history, _, second = two_versions(tmp_path)
    for path in [*(tmp_path / "clips").glob("*.mp4"), *(tmp_path / "frames").rglob("*.png"), tmp_path / "labels.parquet"]:
        path.unlink()
    assert all(difference.kind == "missing" for difference in status(history).differences)
    restore(history, "latest")
    assert folder_bytes(tmp_path).keys() == second.keys() and status(history).clean


def test_files_that_are_not_of_the_dataset_stay(tmp_path: Path) -> None:
    history, _, _ = two_versions(tmp_path)
    (tmp_path / "my notes.txt").write_text("mine")
    (tmp_path / "gallery.html").write_text("mine")
    restore(history, "latest~1")
    assert (tmp_path / "my notes.txt").read_text() == (tmp_path / "gallery.html").read_text() == "mine"


@pytest.mark.parametrize("number", range(0, 20, 3))
def test_a_restore_that_stopped_halfway_is_finished_by_the_next(tmp_path: Path, number: int) -> None:
    history, first, _ = two_versions(tmp_path)
    target = history.version("latest~1")
    # What a kill leaves: the note, and some files of each version.
    Working(history).remember(history.version("latest").id, restoring=target.id, labels=Working(history).state()[2])
    for name, data in list(first.items())[:number]:
        _edit(tmp_path / name, data)
    (tmp_path / "clips" / ".tmp-99-half").write_bytes(b"ha")
    state = status(history)
    assert state.restoring == target.id and not state.clean
    with pytest.raises(InputError, match="cut off"):
        commit_folder(history, "too early")
    restore(history, "latest~1")
    now = folder_bytes(tmp_path)
    assert status(history).clean and {**now, "labels.parquet": b"", "clips/.tmp-99-half": b""} == {
        **first,
        "labels.parquet": b"",
        "clips/.tmp-99-half": b"",
    }


def test_a_commit_killed_before_its_note_leaves_a_clean_folder(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 6)
    later = without(clips, next(iter(clips)))
    gone = next(iter(clips))
    for suffix in (".mp4", ".txt"):
        (tmp_path / "clips" / f"{gone}{suffix}").unlink()
    write_folder(tmp_path, later)
    second = commit_clips(history, later, "second")  # and no `record_shown`
    state = status(history)
    assert state.clean and state.version == second
    restore(history, "latest~1")
    assert status(history).clean


def test_a_restore_waits_for_no_build(tmp_path: Path) -> None:
    history, _, _ = two_versions(tmp_path)
    with build_lock(tmp_path), pytest.raises(InputError, match="another build is writing"):
        restore(history, "latest~1")


def test_a_missing_object_stops_a_restore_before_it_changes_anything(tmp_path: Path) -> None:
    history, _, second = two_versions(tmp_path)
    only = next(
        row for row in Dataset.open(tmp_path, "latest~1").labels.to_pylist() if f"clips/{row['clip_id']}.mp4" not in second
    )
    history.store.path(only["sha256_bytes"]).unlink()
    with pytest.raises(DamagedError, match="is missing"):
        restore(history, "latest~1")
    assert folder_bytes(tmp_path) == second


@pytest.mark.parametrize("folder", ["clips", "frames"])
def test_a_linked_folder_is_not_written_through(tmp_path: Path, folder: str) -> None:
    history, _, _ = two_versions(tmp_path / "ds")
    (tmp_path / "ds" / folder).rename(tmp_path / "elsewhere")
    (tmp_path / "ds" / folder).symlink_to(tmp_path / "elsewhere")
    before = folder_bytes(tmp_path / "elsewhere")
    for action in (lambda: restore(history, "latest~1", force=True), lambda: commit_folder(history, "x")):
        with pytest.raises(InputError, match="is a symbolic link"):
            action()
    assert folder_bytes(tmp_path / "elsewhere") == before


def test_a_view_that_is_a_link_is_replaced_only_with_force(tmp_path: Path) -> None:
    history, _, _ = two_versions(tmp_path)
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"mine")
    view = sorted((tmp_path / "clips").glob("*.mp4"))[-1]
    view.unlink()
    view.symlink_to(outside)
    with pytest.raises(InputError, match="is no regular file"):
        restore(history, "latest~1")
    restore(history, "latest", force=True)
    assert outside.read_bytes() == b"mine" and not view.is_symlink() and status(history).clean


def test_the_index_saves_hashing_and_is_not_needed(tmp_path: Path) -> None:
    history, _, _ = two_versions(tmp_path)
    index = history.root / "index.json"
    for file in (tmp_path / "README.md", *(tmp_path / "clips").iterdir()):
        os.utime(file, (1, 1))  # a file hashed within a clock tick of its writing is not remembered
    assert status(history).clean and index.is_file()
    for damage in (b"", b"{}", b"x"):
        index.write_bytes(damage)
        assert status(history).clean


def test_a_file_of_the_same_size_and_time_is_found_by_its_inode_or_hash(tmp_path: Path) -> None:
    history, _, _ = two_versions(tmp_path)
    view = sorted((tmp_path / "clips").glob("*.txt"))[0]
    assert status(history).clean
    old, data = view.stat(), view.read_bytes()
    other = view.with_name("x")
    other.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(view)
    assert [difference.path for difference in status(history).differences] == [f"clips/{view.name}"]


def test_edits_by_hand_become_a_version(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 9, lossless=True)
    ids = list(clips)
    (tmp_path / "clips" / f"{ids[0]}.mp4").unlink()
    _edit(tmp_path / "clips" / f"{ids[1]}.txt", "a word of mine, ü\n".encode())
    version = commit_folder(history, "by hand")
    snapshot = Dataset.open(tmp_path)
    assert version.parents == (first.id,) and version.plans == first.plans
    assert version.software == first.software
    assert ids[0] not in snapshot and len(snapshot) == 8 and snapshot[ids[1]]["caption"] == "a word of mine, ü"
    assert status(history).clean and check(history).clean
    assert not (tmp_path / "frames" / ids[0]).exists() or not list((tmp_path / "frames" / ids[0]).iterdir())
    assert pq.read_table(tmp_path / "labels.parquet").num_rows == 8
    assert commit_folder(history, "again") == version
    restore(history, first.id)
    assert status(history).clean and len(list((tmp_path / "clips").glob("*.mp4"))) == 9


def test_edited_labels_become_a_version(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 9)
    labels = pq.read_table(tmp_path / "labels.parquet")
    captions = ["all the same"] * 9
    index = labels.column_names.index("caption")
    _edit(tmp_path / "labels.parquet", labels_file(labels.set_column(index, labels.schema.field("caption"), [captions])))
    commit_folder(history, "captions")
    assert (tmp_path / "clips" / f"{next(iter(clips))}.txt").read_text() == "all the same\n"
    assert status(history).clean


def test_the_first_commit_of_a_folder_takes_its_records(tmp_path: Path) -> None:
    history = History(tmp_path)
    clips = make_clips(history.store, 6, lossless=True)
    write_folder(tmp_path, clips)
    version = commit_folder(history, "first")
    assert version.software.blender == ("5.0.1",) and version.summary.clips == 6 and status(history).clean
    other, _, same = built(tmp_path / "other", 6, lossless=True)
    assert version.manifest == same.manifest and other.version() == same


REFUSED = {
    "a changed video": (lambda path, ids: _edit(path / "clips" / f"{ids[0]}.mp4", b"x"), "changed by hand"),
    "a video without a row": (lambda path, ids: _edit(path / "clips" / "mine.mp4", b"x"), "has no row"),
    "a linked video": (
        lambda path, ids: (
            (path / "clips" / f"{ids[0]}.mp4").unlink(),
            (path / "clips" / f"{ids[0]}.mp4").symlink_to("/dev/null"),
        ),
        "symbolic link",
    ),
    "no labels": (lambda path, ids: (path / "labels.parquet").unlink(), "is missing"),
    "damaged labels": (lambda path, ids: _edit(path / "labels.parquet", b"PAR1"), "cannot be read"),
    "a caption that is no text": (lambda path, ids: _edit(path / "clips" / f"{ids[0]}.txt", b"\xff\xfe"), "not UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_committed_is_refused(tmp_path: Path, name: str) -> None:
    history, clips, first = built(tmp_path, 4)
    change, words = REFUSED[name]
    change(tmp_path, list(clips))  # type: ignore[operator]
    with pytest.raises(InputError, match=words):
        commit_folder(history, "x")
    assert history.version() == first


def test_marking_a_folder_that_shows_something_else_says_no(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 4)
    assert not record_shown(history, commit_clips(history, without(clips, next(iter(clips))), "second"))


def test_the_note_of_a_commit_that_was_killed_is_made_up_for(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 6, lossless=True)
    note = (tmp_path / ".stopdown" / "working.json").read_bytes()
    edited, removed = list(clips)[:2]
    (tmp_path / "clips" / f"{edited}.txt").write_text("my words\n")
    (tmp_path / "clips" / f"{removed}.mp4").unlink()
    version = commit_folder(history, "curated")
    (tmp_path / ".stopdown" / "working.json").write_bytes(note)  # as a kill before the last write leaves it
    assert check(history).clean
    assert status(history).clean and status(history).version == version
    assert Working(history).state()[0] == version.id  # and it is noted now
    assert commit_folder(history, "again") == version


def test_after_a_killed_commit_only_later_edits_differ(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 6)
    edited, later = list(clips)[:2]
    (tmp_path / "clips" / f"{edited}.txt").write_text("my words\n")
    version = commit_folder(history, "curated")
    labels = Working(history).state()[2]
    assert labels is not None
    Working(history).remember(first.id, labels="0" * 64)
    Working(history).announce(version.id, labels=labels)  # a kill after the head was moved, before the note was settled
    (tmp_path / "clips" / f"{later}.txt").write_text("more words\n")
    assert [difference.path for difference in status(history).differences] == [f"clips/{later}.txt"]
    assert commit_folder(history, "more").parents == (version.id,)
    Working(history).announce("f" * 64, labels=labels)  # a kill before the head was moved
    assert status(history).clean
