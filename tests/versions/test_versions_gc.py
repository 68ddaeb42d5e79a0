"""Garbage collection keeps what anything reaches, and removes the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from versions_support import built, commit_clips, folder_bytes, make_clips, sha, without

from generator.errors import DamagedError
from generator.store.splits import SplitRatios
from generator.versions.check import check
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.history.locks import writing
from generator.versions.history.refs import version_ids
from generator.versions.manifest.leaves import store_rows
from generator.versions.manifest.rows import make_rows
from generator.versions.working.restore import restore
from generator.versions.working.working_folder import build_lock
from scenes.errors import InputError


def test_what_versions_and_records_reach_stays(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 9, lossless=True)
    commit_clips(history, without(clips, *list(clips)[:4]), "fewer")
    pending = make_clips(history.store, 5, seed=3)  # finished, not committed
    before = set(history.store.objects())
    garbage = [history.store.put(f"garbage {n}".encode()) for n in range(7)]
    (tmp_path / "clips" / ".tmp-1-x").write_bytes(b"half")
    (history.root / "objects" / "ab").mkdir(exist_ok=True)
    (history.root / "objects" / "ab" / ".tmp-x").write_bytes(b"half")
    assert gc(history, dry_run=True, grace_s=0).objects == 7 and set(garbage) <= set(history.store.objects())
    report = gc(history, grace_s=0)
    assert (report.objects, report.temporaries, report.records, report.versions) == (7, 2, 0, 0)
    assert set(history.store.objects()) == before and check(history).clean
    assert all(history.store.finished(record.key) for _, record in pending.values())
    assert gc(history, grace_s=0).objects == 0
    restore(history, "latest~1")


def test_a_file_that_lies_there_under_two_names_goes_with_both(tmp_path: Path) -> None:
    """A put or a view that is killed between link and unlink leaves them; removing one name must not make the other young."""
    history, _, _ = built(tmp_path, 3)
    before = folder_bytes(tmp_path)
    orphan = history.store.path(history.store.put(b"named by nothing"))
    (_, record), *_ = make_clips(history.store, 1, seed=3).values()
    assert record is not None
    os.link(orphan, orphan.with_name(".tmp-put"))
    os.link(orphan, tmp_path / "clips" / ".tmp-1-view")
    record_path = history.root / "records" / record.key[:2] / f"{record.key}.json"
    os.link(record_path, record_path.with_name(".tmp-record"))
    report = gc(history, grace_s=0, uncommitted=True)
    assert (report.temporaries, report.records, report.kept_young) == (3, 1, 0)
    assert not orphan.exists() and not record_path.exists() and not list(tmp_path.rglob(".tmp-*"))
    assert folder_bytes(tmp_path) == before and check(history).clean


def test_unfinished_commits_go_and_young_files_stay(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 9)
    # What a commit that was killed before it moved the head leaves: leaves, a root, a version's file.
    second = commit_clips(history, without(clips, next(iter(clips))), "killed")
    history.refs.swap_head(second.id, first.id)
    assert gc(history).versions == 0 and gc(history).kept_young == 1
    report = gc(history, grace_s=0)
    assert report.versions == 1 and report.objects == 2 and version_ids(history.root) == [first.id]
    assert check(history).clean


def test_uncommitted_clips_go_only_when_asked_and_never_from_under_labels(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 6)
    pending = make_clips(history.store, 5, seed=3)
    assert gc(history, grace_s=0).records == 0
    report = gc(history, grace_s=0, uncommitted=True)
    assert (report.records, report.objects) == (5, 5)
    assert all(history.store.record(record.key) is None for _, record in pending.values())
    other, fresh = History(tmp_path / "uncommitted"), {}
    fresh = make_clips(other.store, 6)
    from versions_support import write_folder

    write_folder(other.path, fresh)
    assert gc(other, grace_s=0, uncommitted=True).objects == 0
    assert all(other.store.finished(record.key) for _, record in fresh.values())
    assert all(history.store.finished(record.key) for _, record in clips.values())


def test_beside_a_build_or_a_writer_nothing_is_removed(tmp_path: Path) -> None:
    history, _, _ = built(tmp_path, 3)
    digest = history.store.put(b"about to be named")
    with build_lock(tmp_path), pytest.raises(InputError, match="another build"):
        gc(history, grace_s=0)
    with writing(history.root), pytest.raises(InputError, match="nothing was collected"):
        gc(history, grace_s=0, timeout_s=0.05)
    assert history.store.has(digest)


@pytest.mark.parametrize(
    ("victim", "damage"),
    [(victim, "changed") for victim in ("head", "tag", "version", "manifest", "leaf", "record")]
    + [(victim, "missing") for victim in ("head", "version", "manifest", "leaf")],  # a removed tag or record is no damage
)
def test_what_is_damaged_stops_it(tmp_path: Path, victim: str, damage: str) -> None:
    history, clips, first = built(tmp_path, 6)
    history.tag("v1")
    manifest = history.manifest(first)
    record = next(iter(clips.values()))[1]
    path = {
        "head": history.root / "head.json",
        "tag": history.root / "tags" / "v1.json",
        "version": history.version_path(first.id),
        "manifest": history.store.path(first.manifest),
        "leaf": history.store.path(manifest.leaves[0].digest),
        "record": history.root / "records" / record.key[:2] / f"{record.key}.json",
    }[victim]
    garbage = history.store.put(b"garbage")
    if damage == "missing":
        path.unlink()
        if victim == "head":
            history.untag("v1")
    else:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-9])
    before = set(history.store.objects())
    with pytest.raises(DamagedError):
        gc(history, grace_s=0)
    assert set(history.store.objects()) == before and history.store.has(garbage)


def test_an_orphaned_manifest_goes(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 6)
    from versions_support import references, table

    other = without(clips, next(iter(clips)))
    store_rows(history.store, make_rows(table(other), references(other), SplitRatios(train=0.5, validation=0.25, test=0.25)))
    assert gc(history, grace_s=0).objects == 1 and sha(b"x")


def test_versions_keep_their_clips_without_any_record(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 6, lossless=True)
    commit_clips(history, without(clips, *list(clips)[:4]), "fewer")
    for _, record in clips.values():
        history.store.forget(record.key)
    assert gc(history, grace_s=0, uncommitted=True).objects == 0
    assert {damage.kind for damage in check(history).damages} == {"record"}  # named as missing, and nothing else is
    restore(history, first.id)
    assert {damage.kind for damage in check(history).damages} == {"record"}
