"""Branches: a manifest of many leaves lists them in branches; all that reads, sends, keeps and verifies them knows of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_versions_manifest import many_rows
from versions_support import SOFTWARE, Clips, built, commit_clips, folder_bytes, without

from generator.errors import DamagedError
from generator.io.checksummed_json import canonical
from generator.remotes.folder import FolderRemote
from generator.store.objects import Store
from generator.store.splits import SplitRatios
from generator.versions.check import check
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.history.transfer import import_versions
from generator.versions.history.version import Version, content_id
from generator.versions.manifest import tree as manifest_tree
from generator.versions.manifest.leaves import differing, edit, find_row, read_rows, store_rows
from generator.versions.manifest.tree import Manifest, leaves_of, read_manifest, write_manifest
from generator.versions.reading.diff import diff
from generator.versions.sync.pull import clone, pull
from generator.versions.sync.push import push
from generator.versions.sync.repair import repair_all
from generator.versions.working.restore import restore

PINNED = "da402695ba796bd385630eb133dd78dbb9030fc22f7bf0413d561d8f4b7a0971"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of four rows and branches of four leaves, in the mean."""
    monkeypatch.setattr(manifest_tree, "_CUT_MASK", 0x3)
    monkeypatch.setattr(manifest_tree, "_BRANCH_MASK", 0xF)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return many_rows(600)


class Counted(Store):
    """A store that notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.seen: list[str] = []

    def read(self, digest: str) -> bytes:
        self.seen.append(digest)
        return super().read(digest)


def ids(rows: pa.Table) -> list[str]:
    return [str(clip_id) for clip_id in rows["clip_id"].to_pylist()]


def dataset(path: Path) -> tuple[History, Clips, Version]:
    history, clips, first = built(path, 60, lossless=True)
    assert len(history.manifest(first).branches) > 2
    return history, clips, first


def test_branches_are_cut_by_ids_alone_and_hold_the_leaves_in_order(tmp_path: Path, rows: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, rows)
    assert 15 <= len(manifest.branches) == len(manifest.parts) <= 80 and manifest.rows == 600
    assert all(manifest_tree.parts_after(branch) for branch in manifest.branches[:-1])
    assert [leaf for branch in manifest.branches for leaf in leaves_of(store, branch)] == list(manifest.leaves)
    assert read_rows(store, manifest).equals(rows)
    again = read_manifest(store, write_manifest(store, manifest))
    assert again.same(manifest) and again.leaves == manifest.leaves and again.summary == manifest.summary


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_an_edit_makes_the_branches_that_a_rebuild_makes(
    tmp_path_factory: pytest.TempPathFactory, rows: pa.Table, data: st.DataObject
) -> None:
    store, count = Store(tmp_path_factory.mktemp("store")), rows.num_rows
    chosen = st.sets(st.integers(0, count - 1), max_size=40)
    span = st.tuples(st.integers(0, count), st.integers(0, count)).map(lambda ends: set(range(min(ends), max(ends))))
    start, put, gone = (data.draw(chosen | span) for _ in range(3))
    if data.draw(st.booleans()):  # the ends of branches go: what follows joins
        gone |= {number for number, clip_id in enumerate(ids(rows)) if manifest_tree._hash(clip_id) & 0xF == 0}
    gone -= put
    before = store_rows(store, rows.take(pa.array(sorted(start), pa.int64())))
    new = rows.take(pa.array(sorted(put), pa.int64())) if put else None
    edited = edit(store, before, new, [ids(rows)[number] for number in gone])
    expected = store_rows(store, rows.take(pa.array(sorted((start - gone) | put), pa.int64())))
    assert edited.parts == expected.parts and edited.same(expected) and edited.leaves == expected.leaves
    assert write_manifest(store, edited) == write_manifest(store, expected)


def test_an_edit_reads_and_writes_one_leaf_and_its_branch(tmp_path: Path, rows: pa.Table) -> None:
    store = Counted(tmp_path)
    manifest = store_rows(store, rows)
    before = set(store.objects())
    victim = next(clip_id for clip_id in ids(rows)[300:] if manifest_tree._hash(clip_id) & 0x3)
    later = edit(store, manifest, None, [victim])
    assert len(set(store.objects()) - before) == len(store.seen) == 2
    store.seen.clear()
    one, other = differing(manifest, later)
    assert len(one) == len(other) == 1 and len(store.seen) == 2
    store.seen.clear()
    assert find_row(store, later, ids(rows)[-1]) is not None and len(store.seen) == 2


def test_every_row_is_found_and_no_other(tmp_path: Path, rows: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, rows)
    for position in range(0, 600, 37):
        row = find_row(store, manifest, ids(rows)[position])
        assert row is not None and row["caption"] == rows["caption"][position].as_py()
    assert not any(find_row(store, manifest, absent) for absent in ("", "aaa", "flyby-s0-n3-f5-000070-5", "zzz"))


def test_the_content_id_of_branches_is_pinned(tmp_path: Path) -> None:
    manifest = store_rows(
        Store(tmp_path),
        many_rows(300)
        .drop_columns(["size_bytes", "shutter_control", "shutter_exposure_s"])
        .append_column("size_bytes", pa.array(range(300), pa.int64())),
    )
    assert manifest.branches and content_id(manifest, ["p"], SOFTWARE, SplitRatios()) == PINNED


def test_a_root_of_leaves_that_could_have_branches_is_read_and_gets_them_when_edited(tmp_path: Path, rows: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, rows)
    old = read_manifest(store, write_manifest(store, Manifest(manifest.schema, manifest.leaves, store)))
    assert not old.branches and old.leaves == manifest.leaves
    victim = ids(rows)[100]
    assert edit(store, old, None, [victim]).same(edit(store, manifest, None, [victim]))


def test_collecting_keeps_branches(tmp_path: Path) -> None:
    history, clips, _ = dataset(tmp_path)
    commit_clips(history, without(clips, *list(clips)[:4]), "fewer")
    assert gc(history, grace_s=0).objects == 0 and check(history).clean
    restore(history, "latest~1")
    assert check(history).clean and len(diff(history, "latest~1", "latest").removed) == 4


def test_a_copy_has_every_branch(tmp_path: Path) -> None:
    history, clips, first = dataset(tmp_path / "ds")
    (tmp_path / "remote").mkdir()
    remote = FolderRemote(tmp_path / "remote")
    push(history, remote)
    clone(remote, tmp_path / "copy")
    copy = History(tmp_path / "copy")
    assert check(copy).clean and folder_bytes(copy.path) == folder_bytes(history.path)
    commit_clips(history, without(clips, *list(clips)[10:13]), "fewer")
    report = push(history, remote)
    assert 0 < report.objects < 20  # what both versions have is not sent again
    pull(copy, remote)
    assert check(copy).clean and copy.refs.head() == history.refs.head() != first.id
    other = History(tmp_path / "other")
    import_versions(history, other, str(history.refs.head()))
    other.refs.swap_head(None, str(history.refs.head()))
    assert not check(other, ["latest", "latest~1"]).damages


@pytest.mark.parametrize("damage", ["missing", "flipped", "swapped"])
def test_a_damaged_branch_is_found_stops_collecting_and_is_repaired(tmp_path: Path, damage: str) -> None:
    history, _, first = dataset(tmp_path / "ds")
    (tmp_path / "remote").mkdir()
    remote = FolderRemote(tmp_path / "remote")
    push(history, remote)
    one, two = (history.store.path(branch.digest) for branch in history.manifest(first).branches[:2])
    data = one.read_bytes()
    one.unlink()
    if damage != "missing":
        one.write_bytes(two.read_bytes() if damage == "swapped" else bytes([data[0] ^ 1]) + data[1:])
    before = set(history.store.objects())
    assert any(str(one.relative_to(history.path)) == found.path for found in check(history).damages)
    with pytest.raises(DamagedError):
        gc(history, grace_s=0)
    assert set(history.store.objects()) == before
    _, report = repair_all(history, remote)
    assert report.clean and one.read_bytes() == data


def test_a_branch_in_anothers_place_or_none_is_refused(tmp_path: Path, rows: pa.Table) -> None:
    store = Store(tmp_path)
    one, two = store_rows(store, rows).branches[:2]
    with pytest.raises(DamagedError, match="other leaves than its root says"):
        leaves_of(store, one.model_copy(update={"digest": two.digest}))
    leaves = json.loads(store.read(one.digest))["leaves"]
    for bad in (b"", b"[]", canonical({}), canonical({"leaves": [{}]}), canonical({"leaves": 3})):
        with pytest.raises(DamagedError, match="is no branch"):
            leaves_of(store, one.model_copy(update={"digest": store.put(bad)}))
    for bad in (canonical({"leaves": []}), canonical({"leaves": leaves[::-1] + leaves}), canonical({"leaves": leaves * 2})):
        with pytest.raises(DamagedError, match="other leaves"):
            leaves_of(store, one.model_copy(update={"digest": store.put(bad)}))
