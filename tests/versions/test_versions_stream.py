"""A commit whose rows come in pieces, and files in the place of bytes: the version is the one of the whole table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_versions_manifest import many_rows
from versions_support import PLAN, Clips, built, changed, folder_bytes, make_clips, origin, references, sha, table

from generator.errors import DamagedError
from generator.remotes.folder import FolderRemote
from generator.store.labels import LabelRows, labels_file, write_labels
from generator.store.objects import Store
from generator.store.stored_plans import PlanFile, plan_recipe
from generator.versions import commit as commits
from generator.versions.commit import commit
from generator.versions.history.history import History
from generator.versions.manifest import tree as manifest_tree
from generator.versions.manifest.leaves import store_rows, store_tables
from generator.versions.manifest.tree import write_manifest
from generator.versions.sync import push as remote_push
from generator.versions.sync.pull import clone
from generator.versions.sync.push import push
from generator.versions.working.status import record_shown, status
from scenes.errors import InputError

TIME = "1700000000"


def sliced(rows: pa.Table, cuts: list[int]) -> list[pa.Table]:
    """Return rows in tables that end at the cuts."""
    ends = [*sorted(cuts), rows.num_rows]
    return [rows.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def in_pieces(rows: pa.Table, step: int) -> LabelRows:
    def tables() -> Iterator[pa.Table]:
        return (rows.slice(start, step) for start in range(0, rows.num_rows, step))

    return LabelRows(schema=rows.schema, rows=rows.num_rows, tables=tables)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return many_rows(600)


@given(cuts=st.lists(st.integers(0, 600), max_size=30), masks=st.sampled_from([(0x3, 0xF), (0x3FF, 0xFFFF), (0x1F, 0x1FF)]))
@settings(max_examples=20, deadline=None)
def test_rows_in_pieces_make_the_manifest_of_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory, rows: pa.Table, cuts: list[int], masks: tuple[int, int]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_tree, "_CUT_MASK", masks[0])
        patch.setattr(manifest_tree, "_BRANCH_MASK", masks[1])
        expected, made = store_rows(store, rows), store_tables(store, rows.schema, sliced(rows, cuts))
        assert made.parts == expected.parts and write_manifest(store, made) == write_manifest(store, expected)


@given(cuts=st.lists(st.integers(0, 600), max_size=30), group=st.sampled_from([7, 100, 600, 16_384]))
@settings(max_examples=40, deadline=None)
def test_labels_in_pieces_make_the_file_of_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory, rows: pa.Table, cuts: list[int], group: int
) -> None:
    labels = rows.drop_columns(["lossless"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("generator.store.labels._GROUP_ROWS", group)
        stored = write_labels(tmp_path_factory.mktemp("labels") / "x", labels.schema, sliced(labels, cuts))
        assert stored.file.read_bytes() == labels_file(labels) and stored.rows == 600
    assert pa.concat_tables(stored.tables()).equals(labels)


def test_a_commit_in_pieces_and_of_files_is_the_commit_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", TIME)
    monkeypatch.setattr(manifest_tree, "_CUT_MASK", 0x3)
    monkeypatch.setattr(manifest_tree, "_BRANCH_MASK", 0xF)
    (tmp_path / "plan").write_text(PLAN)
    (tmp_path / "README.md").write_bytes(b"# synthetic\n")
    plan = PlanFile(path=tmp_path / "plan", digest=sha(PLAN), recipe=plan_recipe(PLAN))
    ids = set()
    for step in (1, 7, 60):
        history = History(tmp_path / f"{step}")
        clips = make_clips(history.store, 60, lossless=True)
        largest = noted(monkeypatch)
        files = replace(origin(), plans=(plan,), files={"README.md": tmp_path / "README.md"})
        version = commit(history, in_pieces(table(clips), step), references(clips), files)
        assert max(largest) <= step and sum(largest) == 60
        ids |= {version.id, commit(History(tmp_path / f"{step}"), table(clips), references(clips), origin()).id}
        assert history.store.read(version.plans[0]) == PLAN.encode()
    assert len(ids) == 1


def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many rows a commit takes at a time."""
    sizes: list[int] = []
    make = commits.make_rows

    def make_rows(labels: pa.Table, *rest: Any) -> pa.Table:
        sizes.append(labels.num_rows)
        return make(labels, *rest)

    monkeypatch.setattr(commits, "make_rows", make_rows)
    return sizes


@pytest.mark.parametrize("order", [[0, 1, 3, 2], [0, 1, 1, 2]])
def test_rows_that_come_out_of_order_are_refused(tmp_path: Path, order: list[int]) -> None:
    history = History(tmp_path)
    clips = make_clips(history.store, 4)
    with pytest.raises(InputError, match="stands twice or out of order"):
        commit(history, in_pieces(table(clips).take(order), 1), references(clips), origin())
    assert history.refs.head() is None


def test_a_file_is_stored_as_its_bytes_are(tmp_path: Path) -> None:
    store, data = Store(tmp_path / "store"), os.urandom(3 * 2**20)
    (tmp_path / "file").write_bytes(data)
    digest = store.put_file(tmp_path / "file")
    assert digest == sha(data) == store.put(data) == store.put_file(tmp_path / "file")
    assert store.verified(digest).read_bytes() == data and store.path(digest).stat().st_mode & 0o777 == 0o444
    assert list(store.objects()) == [digest] and not list(tmp_path.rglob(".tmp-*"))
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(data[:-1])
    with pytest.raises(DamagedError, match="does not match"):
        store.verified(digest)
    with pytest.raises(DamagedError, match="missing"):
        store.verified("0" * 64)


def test_what_is_large_is_sent_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_push, "_LARGE_BYTES", 100)  # clips have 300 bytes, frames 40
    history, _, _ = built(tmp_path / "ds", 12, lossless=True)
    (tmp_path / "remote").mkdir()
    remote = FolderRemote(tmp_path / "remote")
    report = push(history, remote)
    sizes = {path.name: path.stat().st_size for path in (history.root / "objects").glob("??/*")}
    assert report.objects == len(sizes) and report.size_bytes == sum(sizes.values())
    clone(remote, tmp_path / "clone")
    assert folder_bytes(tmp_path / "clone") == folder_bytes(tmp_path / "ds")
    digest = next(name for name, size in sizes.items() if size == 300)
    history.store.path(digest).chmod(0o644)
    history.store.path(digest).write_bytes(b"x" * 300)
    (tmp_path / "other").mkdir()
    with pytest.raises(DamagedError, match="does not match"):
        push(history, FolderRemote(tmp_path / "other"))


def test_names_are_asked_for_a_few_ahead() -> None:
    asked = 0

    def names() -> Iterator[str]:
        nonlocal asked
        for number in range(1000):
            asked += 1
            yield str(number)

    with remote_push.ThreadPoolExecutor(2) as pool:
        for number, size in enumerate(remote_push.flowing(pool, int, names())):
            assert size == number and asked <= number + remote_push._AHEAD + 1


CHANGES = {
    "nothing": lambda path, clip: None,
    "a video is gone": lambda path, clip: (path / "clips" / f"{clip}.mp4").unlink(),
    "a caption": lambda path, clip: (path / "clips" / f"{clip}.txt").write_text("another"),
    "a stranger": lambda path, clip: (path / "clips" / "stranger.mp4").write_bytes(b"x"),
    "the card": lambda path, clip: (path / "README.md").write_text("another"),
    "no labels": lambda path, clip: (path / "labels.parquet").unlink(),
    "a frame": lambda path, clip: (path / "frames" / clip / "0000.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_is_marked_as_its_version_only_where_nothing_differs(tmp_path: Path, change: str) -> None:
    history, clips, version = built(tmp_path, 12, lossless=True)
    CHANGES[change](tmp_path, next(iter(clips)))
    assert record_shown(history, version) == status(history, thorough=True).clean == (change == "nothing")


def test_labels_of_another_order_or_writer_are_the_versions_labels(tmp_path: Path) -> None:
    history, clips, version = built(tmp_path, 12)
    shuffled: Clips = dict(reversed(clips.items()))
    (tmp_path / "labels.parquet").write_bytes(labels_file(table(shuffled)))
    assert record_shown(history, version)
    relabelled = changed(clips, next(iter(clips)), layer=99)
    (tmp_path / "labels.parquet").write_bytes(labels_file(table(relabelled)))
    assert not record_shown(history, version)
