"""The manifest: its shape is a function of the rows, edits equal rebuilds, and what is not as written is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from versions_support import SOFTWARE, make_clips, references, schema, sha, table

from generator.errors import DamagedError
from generator.store.objects import Store
from generator.store.splits import SplitRatios
from generator.versions.history.version import content_id
from generator.versions.manifest.leaves import (
    _leaf_bytes,
    differing,
    edit,
    find_row,
    read_leaf,
    read_rows,
    store_rows,
)
from generator.versions.manifest.rows import content_digest, make_rows, normalised
from generator.versions.manifest.summary import summarise, total
from generator.versions.manifest.tree import cuts_after, read_manifest, write_manifest
from scenes.errors import InputError


def many_rows(count: int, *, seed: int = 0, step: int = 1) -> pa.Table:
    """Return rows of synthetic clips whose objects are in no store."""
    rng = np.random.default_rng(seed)
    ids = [f"flyby-s0-n3-f5-{number * step // 3:06d}-{number * step % 3}" for number in range(count)]
    controls = rng.uniform(-1, 1, count)
    labels = pa.table(
        {
            "clip_id": ids,
            "scene_id": [clip_id.rpartition("-")[0] for clip_id in ids],
            "caption": [f"caption {number}" for number in range(count)],
            "sha256_bytes": [sha(f"b{clip_id}") for clip_id in ids],
            "sha256_frames": [sha(f"f{clip_id}") for clip_id in ids],
            "size_bytes": pa.array(rng.integers(1, 1000, count), pa.int64()),
            "shutter_control": controls,
            "shutter_exposure_s": 5.0**controls / 80,
        }
    )
    from generator.versions.manifest.rows import RecordReference

    return make_rows(labels, {clip_id: RecordReference(key=sha(clip_id), lossless={}) for clip_id in ids}, SplitRatios())


@pytest.fixture(scope="module")
def large() -> pa.Table:
    return many_rows(9000)


def test_leaves_are_cut_by_ids_alone_and_hold_about_a_thousand_rows(tmp_path: Path, large: pa.Table) -> None:
    manifest = store_rows(Store(tmp_path), large)
    assert manifest.rows == 9000 and 3 <= len(manifest.leaves) <= 20
    assert all(cuts_after(leaf.last) for leaf in manifest.leaves[:-1])
    assert read_rows(Store(tmp_path), manifest).equals(large)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_an_edit_makes_the_manifest_that_a_rebuild_makes(
    tmp_path_factory: pytest.TempPathFactory, large: pa.Table, data: st.DataObject
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    start = np.sort(rng.choice(large.num_rows, data.draw(st.integers(1, large.num_rows)), replace=False))
    put = np.sort(rng.choice(large.num_rows, data.draw(st.integers(0, 400)), replace=False))
    gone = rng.choice(large.num_rows, data.draw(st.integers(0, 400)), replace=False)
    cut_ids = [i for i in range(large.num_rows) if cuts_after(large["clip_id"][i].as_py())] if data.draw(st.booleans()) else []
    gone_ids = [large["clip_id"][int(i)].as_py() for i in {*gone, *cut_ids} - {*put}]  # a boundary's removal joins leaves
    manifest = edit(store, store_rows(store, large.take(start)), large.take(put), gone_ids)
    kept = sorted(({*start.tolist()} - {*gone.tolist(), *cut_ids}) | {*put.tolist()})
    expected = store_rows(store, large.take(pa.array(kept, pa.int64())))
    assert [leaf.digest for leaf in manifest.leaves] == [leaf.digest for leaf in expected.leaves]
    assert manifest.leaves == expected.leaves and manifest.same(expected)


def test_an_edit_writes_only_the_leaves_it_touches(tmp_path: Path, large: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, large)
    before = set(store.objects())
    later = edit(store, manifest, None, [large["clip_id"][4000].as_py()])
    assert len(set(store.objects()) - before) == 1
    mine, theirs = differing(manifest, later)
    assert len(mine) == 1 and len(theirs) == 1


def test_order_of_rows_and_columns_changes_no_content(tmp_path: Path, large: pa.Table) -> None:
    shuffled = large.take(np.random.default_rng(0).permutation(large.num_rows)).select(large.column_names[::-1])
    assert (
        store_rows(Store(tmp_path), large).leaves[0].content
        == store_rows(Store(tmp_path), normalised(shuffled)).leaves[0].content
    )


def test_readings_are_no_content_and_labels_are(tmp_path: Path) -> None:
    clips = make_clips(Store(tmp_path), 9)
    rows = make_rows(table(clips), references(clips), SplitRatios())
    same, other = rows, rows
    for name in ("shutter_measured", "aperture_error"):
        same = same.set_column(rows.column_names.index(name), name, pa.array([0.5] * 9))
    index = rows.column_names.index("shutter_exposure_s")
    other = other.set_column(index, "shutter_exposure_s", pa.array([0.5] * 9))
    assert content_digest(same) == content_digest(rows) != content_digest(other)


@given(column=st.sampled_from(["caption", "layer", "shutter_control", "sha256_bytes", "split"]), row=st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_any_changed_label_changes_the_content(tmp_path_factory: pytest.TempPathFactory, column: str, row: int) -> None:
    clips = make_clips(Store(tmp_path_factory.mktemp("store")), 9)
    rows = make_rows(table(clips), references(clips), SplitRatios())
    values = rows[column].to_pylist()
    old = values[row]
    values[row] = 0.125 if column == "shutter_control" else 4 if column == "layer" else f"{old}x"
    kind = rows.schema.field(column).type
    assert content_digest(rows.set_column(rows.column_names.index(column), column, pa.array(values, kind))) != content_digest(
        rows
    )


def test_what_lies_under_nulls_changes_no_byte(tmp_path: Path) -> None:
    clips = make_clips(Store(tmp_path), 9)
    clean = table(clips)
    values = np.arange(9.0)
    mask = np.array(clean["shutter_exposure_s"].is_null())
    kept = np.where(mask, values, np.array(clean["shutter_exposure_s"].fill_null(0.0)))
    validity = pa.py_buffer(np.packbits(~mask, bitorder="little"))
    garbage = pa.Array.from_buffers(pa.float64(), 9, [validity, pa.py_buffer(kept)])
    dirty = clean.set_column(clean.column_names.index("shutter_exposure_s"), clean.schema.field("shutter_exposure_s"), garbage)
    one, other = (make_rows(labels, references(clips), SplitRatios()) for labels in (clean, dirty))
    assert one.equals(other) and _leaf_bytes(one) == _leaf_bytes(other)


def test_a_content_id_is_pinned(tmp_path: Path) -> None:
    """The same rows, plans and software give this id on every machine and with every version of Arrow."""
    manifest = store_rows(
        Store(tmp_path),
        many_rows(3000)
        .drop_columns(["size_bytes", "shutter_control", "shutter_exposure_s"])
        .append_column("size_bytes", pa.array(range(3000), pa.int64())),
    )
    assert content_id(manifest, ["p"], SOFTWARE, SplitRatios()) == PINNED


PINNED = "8c748173e97beca190ed00479cdf7f725170ff0402bf4e684947a201fe22733e"


def test_summaries_add_up(large: pa.Table) -> None:
    parts = [large.slice(start, 100) for start in range(0, 9000, 100)]
    assert total(map(summarise, parts)) == summarise(large)
    assert summarise(large).scenes == len(set(large["scene_id"].to_pylist()))


def test_one_row_is_found_in_one_leaf(tmp_path: Path, large: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, large)
    for position in (0, 4321, 8999):
        row = find_row(store, manifest, large["clip_id"][position].as_py())
        assert row is not None and row["caption"] == large["caption"][position].as_py()
    for absent in ("", "aaa", "flyby-s0-n3-f5-000700-5", "zzz"):
        assert find_row(store, manifest, absent) is None


@pytest.mark.parametrize(
    "bad", ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "a\\..\\b/", "", "a\nb", "-rf", "\x00", "a" * 300, "é"]
)
def test_ids_that_are_no_file_names_are_refused(tmp_path: Path, bad: str) -> None:
    store = Store(tmp_path)
    clips = make_clips(store, 3)
    row, record = clips.popitem()[1]
    clips[bad] = ({**row, "clip_id": bad}, record)
    with pytest.raises(InputError, match="is not a clip id"):
        make_rows(table(clips), references(clips), SplitRatios())


@pytest.mark.parametrize("bad", ["../../../etc/cron.d/x", "/etc/passwd", "a/../../b", ".."])
@pytest.mark.parametrize("where", ["clip_id", "lossless"])
def test_a_manifest_from_elsewhere_with_paths_is_refused(tmp_path: Path, bad: str, where: str) -> None:
    store = Store(tmp_path)
    clips = make_clips(store, 1)
    rows = make_rows(table(clips), references(clips), SplitRatios())
    value = pa.array([bad]) if where == "clip_id" else pa.array([[(bad, sha("x"))]], rows.schema.field("lossless").type)
    manifest = store_rows(store, rows.set_column(rows.column_names.index(where), where, value))
    with pytest.raises(DamagedError, match="is not a"):
        read_rows(store, manifest)


def test_a_leaf_in_anothers_place_is_refused(tmp_path: Path, large: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, large)
    swapped = manifest.leaves[0].model_copy(update={"digest": manifest.leaves[1].digest})
    with pytest.raises(DamagedError, match="holds other rows"):
        read_leaf(store, swapped, manifest.schema)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"format": 1}', b'{"format":1,"schema":"!","leaves":[]}', b"\x80\x04pickle"]
)
def test_what_is_no_manifest_is_said(tmp_path: Path, data: bytes) -> None:
    store = Store(tmp_path)
    with pytest.raises(DamagedError, match="no manifest"):
        read_manifest(store, store.put(data))


def test_a_newer_manifest_asks_for_a_newer_stopdown(tmp_path: Path, large: pa.Table) -> None:
    store = Store(tmp_path)
    tree = json.loads(store.read(write_manifest(store, store_rows(store, large.slice(0, 10)))))
    with pytest.raises(InputError, match="upgrade Stopdown"):
        read_manifest(store, store.put(json.dumps({**tree, "format": 3}).encode()))


def test_a_manifest_survives_its_file(tmp_path: Path, large: pa.Table) -> None:
    store = Store(tmp_path)
    manifest = store_rows(store, large)
    again = read_manifest(store, write_manifest(store, manifest))
    assert again.same(manifest) and again.leaves == manifest.leaves


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["caption"]), "no column 'caption'"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), "stands twice"),
        (lambda t: t.append_column("x", pa.array([[1]] * len(t))), "a label is text"),
        (lambda t: t.set_column(0, "clip_id", pa.array([None] * len(t), pa.string())), "nothing in the store is known"),
        (
            lambda t: t.set_column(t.column_names.index("sha256_frames"), "sha256_frames", pa.array(["x"] * len(t))),
            "not a sha256",
        ),
        (
            lambda t: t.set_column(t.column_names.index("caption"), "caption", pa.array([None] * len(t), pa.string())),
            "empty value",
        ),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path: Path, change: object, words: str) -> None:
    clips = make_clips(Store(tmp_path), 4)
    with pytest.raises(InputError, match=words):
        make_rows(change(table(clips)), references(clips), SplitRatios())  # type: ignore[operator]


def test_schema_of_the_support_module_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    clips = make_clips(store, 5, lossless=True)
    manifest = store_rows(store, make_rows(table(clips), references(clips), SplitRatios()))
    rows = read_rows(store, read_manifest(store, write_manifest(store, manifest)))
    assert rows.schema.metadata == schema().metadata
    assert rows.schema.field("shutter_exposure_s").metadata == schema().field("shutter_exposure_s").metadata
    assert dict(rows["lossless"][0].as_py()) == references(clips)[rows["clip_id"][0].as_py()].lossless
