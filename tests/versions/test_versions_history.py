"""Commits, the log, REFs and tags."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from versions_support import built, changed, commit_clips, make_clips, origin, references, table, without

from generator.errors import ConflictError, DamagedError
from generator.store.splits import SplitRatios
from generator.versions.commit import commit, extend
from generator.versions.history.history import History
from generator.versions.history.refs import version_ids
from generator.versions.history.version import Software, read_version
from generator.versions.reading.diff import diff
from scenes.errors import InputError


def test_a_version_says_what_it_holds_and_where_it_comes_from(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 12)
    second = commit_clips(history, without(clips, next(iter(clips))), "one less")
    assert second.parents == (first.id,) and first.parents == ()
    assert second.summary.clips == 11 and second.summary.scenes == 4
    assert sum(second.summary.splits.values()) == 11
    assert second.summary.axes["shutter"].clips + second.summary.axes["aperture"].clips == 11
    assert second.recipes == ({"name": "synthetic", "render": {"samples": 4}},)
    assert second.software.blender == ("5.0.1",) and "cores" in second.machine
    assert [version.message for version in history.log()] == ["one less", "first"]
    assert read_version(history.version_path(second.id).read_bytes(), second.id) == second


def test_nothing_new_makes_no_version(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path)
    assert commit_clips(history, clips, "again") == first
    assert version_ids(history.root) == [first.id]


def test_the_content_id_knows_no_time_machine_message_or_parent(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path / "a")
    other = History(tmp_path / "b")
    same = make_clips(other.store, 12)
    commit_clips(other, without(same, next(iter(same))), "an earlier one")
    elsewhen = dataclasses.replace(origin("other words"), time=datetime(2001, 2, 3, tzinfo=UTC))
    later = commit(other, table(same), references(same), elsewhen)
    assert later.content == first.content and later.id != first.id and later.parents
    assert later.time == "2001-02-03T00:00:00+00:00"
    newer = dataclasses.replace(origin(), software=Software(stopdown="0.2.0", python="3.11.0"))
    assert commit(other, table(same), references(same), newer).content != first.content
    split = dataclasses.replace(origin(), splits=SplitRatios(train=0.5, validation=0.5, test=0.0))
    assert commit(history, table(clips), references(clips), split).content != first.content


def test_extending_equals_committing_the_whole(tmp_path: Path) -> None:
    history, other = History(tmp_path / "a"), History(tmp_path / "b")
    clips, more = make_clips(history.store, 9), make_clips(history.store, 6, seed=1)
    make_clips(other.store, 9), make_clips(other.store, 6, seed=1)
    gone = next(iter(clips))
    commit_clips(history, clips)
    step = extend(history, table(more), references(more), origin("more"), removed=[gone, "no-such-clip"])
    whole = commit_clips(other, without({**clips, **more}, gone))
    assert step.content == whole.content and step.manifest == whole.manifest and step.summary == whole.summary
    assert extend(history, table(more), references(more), origin("again")) == step


def test_a_removed_clip_stays_removed_when_its_pending_record_is_replayed(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 9)
    gone = list(clips)[4]
    record = clips[gone][1]
    history.store.forget(record.key)
    second = commit_clips(history, without(clips, gone), "removed")
    history.store.put_record(record)  # a killed writer's record arrives after the removal
    more = make_clips(history.store, 3, seed=9)
    third = extend(history, table(more), references(more), origin("more"))
    assert gone in _ids(history, first.id)
    assert gone not in _ids(history, second.id) and gone not in _ids(history, third.id)
    assert third.summary.clips == 8 + 3 and history.store.finished(record.key) == record


def _ids(history: History, ref: str) -> set[str]:
    from generator.versions.manifest.leaves import read_rows

    return set(read_rows(history.store, history.manifest(history.version(ref)), ("clip_id",))["clip_id"].to_pylist())


def test_a_clip_without_its_object_is_not_committed(tmp_path: Path) -> None:
    history = History(tmp_path)
    clips = make_clips(history.store, 4)
    victim = list(clips)[2]
    history.store.path(clips[victim][1].sha256_bytes).unlink()
    with pytest.raises(DamagedError, match=victim):
        commit_clips(history, clips)
    assert history.refs.head() is None and version_ids(history.root) == []


def test_refs_name_versions(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path)
    second = commit_clips(history, without(clips, next(iter(clips))), "second")
    third = commit_clips(history, changed(clips, next(iter(clips)), caption="new"), "third")
    history.tag("v1", "latest~2")
    for ref, version in {
        "latest": third,
        "latest~0": third,
        "latest~1": second,
        "latest~": second,
        "latest~2": first,
        "v1": first,
        second.id: second,
        second.id[:10]: second,
        f"{third.id[:12]}~2": first,
    }.items():
        assert history.version(ref) == version, ref
    assert [version.id for version in history.log("v1")] == [first.id]


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("latset", "did you mean 'latest'"),
        ("v-final", "did you mean 'v-finals'"),
        ("latest~9", "goes 9 versions back, but 'latest' has only 0 before it"),
        ("abc", "four or more characters"),
        ("", "no REF"),
        ("../../etc/passwd", "no version"),
        ("latest~x", "no version"),
        ("0" * 64, "no version"),
        ("ＬＡＴＥＳＴ", "no version"),
        ("a b", "no version"),
    ],
)
def test_refs_that_name_nothing_say_so(tmp_path: Path, ref: str, words: str) -> None:
    history, *_ = built(tmp_path, 3)
    history.tag("v-finals")
    with pytest.raises(InputError, match=words):
        history.version(ref)


def test_a_short_prefix_of_two_versions_shows_both(tmp_path: Path) -> None:
    history, clips, _ = built(tmp_path, 2)
    by_prefix: dict[str, list[str]] = {}
    number = 0
    while not (twins := next((ids for ids in by_prefix.values() if len(ids) > 1), None)):
        files = {"README.md": bytes([number % 2])}
        version = commit(history, table(clips), references(clips), origin(f"m{number}", files=files))
        by_prefix.setdefault(version.id[:1], []).append(version.id)
        number += 1
    # Four hexadecimal digits collide too rarely to wait for: a copy of a version's file under a near name will do.
    near = twins[0][:8] + twins[1][8:]
    history.version_path(near).write_bytes(b"")
    with pytest.raises(InputError, match=r"is short for 2 versions .*give more characters"):
        history.version(twins[0][:6])
    assert history.version(twins[0][:40]).id == twins[0]


def test_tags_are_set_moved_and_removed(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path)
    second = commit_clips(history, without(clips, next(iter(clips))), "second")
    assert history.tag("v1", first.id) == first and history.tag("v1", first.id) == first
    with pytest.raises(InputError, match=r"names version .* already"):
        history.tag("v1", "latest")
    history.tag("v1", "latest", move=True)
    assert history.version("v1") == second and history.refs.tag_names() == ["v1"]
    history.untag("v1")
    with pytest.raises(InputError, match="no tag 'v1'"):
        history.untag("v1")
    assert history.refs.tags() == {}


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "a/b", "é", "-x", ".x", "latest", "head", "dead", "0123abcd", "x" * 65, "a\n", "x~1"]
)
def test_names_that_cannot_be_tags_are_refused(tmp_path: Path, name: str) -> None:
    history, *_ = built(tmp_path, 2)
    with pytest.raises(InputError, match="cannot name a tag"):
        history.tag(name)
    assert not (history.root / "tags").exists()


def test_a_reference_that_moved_is_not_swapped(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path)
    second = commit_clips(history, without(clips, next(iter(clips))), "second")
    with pytest.raises(ConflictError, match="is at"):
        history.refs.swap_head(first.id, first.id)
    with pytest.raises(ConflictError, match="is gone"):
        history.refs.swap_tag("v1", first.id, second.id)
    assert history.refs.head() == second.id


def test_a_newer_version_asks_for_a_newer_stopdown(tmp_path: Path) -> None:
    import hashlib

    history, _, first = built(tmp_path, 2)
    data = json.dumps({**first.model_dump(mode="json"), "format": 2}).encode()
    version_id = hashlib.sha256(data).hexdigest()
    history.version_path(version_id).write_bytes(data)
    with pytest.raises(InputError, match="upgrade Stopdown"):
        history.version(version_id)


@pytest.mark.parametrize("message", ["", "  \n", "x" * 10_001, "a\0b"])
def test_a_version_needs_a_message(tmp_path: Path, message: str) -> None:
    history = History(tmp_path)
    clips = make_clips(history.store, 2)
    with pytest.raises(InputError, match="message"):
        commit_clips(history, clips, message)


def test_a_folder_that_is_no_dataset_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"is not a Stopdown dataset|does not exist"):
            History.open(folder)
    (tmp_path / "real").mkdir()
    (tmp_path / ".stopdown").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="is not a Stopdown dataset"):
        History.open(tmp_path)


def test_a_dataset_without_versions_has_an_empty_log(tmp_path: Path) -> None:
    history = History(tmp_path)
    make_clips(history.store, 1)
    assert list(history.log()) == []
    with pytest.raises(InputError, match="has no version yet"):
        history.version()


def test_diff_names_every_field(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 12)
    ids = list(clips)
    more = make_clips(history.store, 2, seed=4)
    edited = changed(changed(without({**clips, **more}, ids[0]), ids[1], caption="new", layer=7), ids[2], aperture_error=None)
    plan = '{"clips":[],"recipe":{"name":"synthetic","render":{"samples":8}}}'
    second = commit(history, table(edited), references(edited), origin("second", plan=plan))
    found = diff(history, first.id, "latest")
    assert found.added == tuple(sorted(more)) and found.removed == (ids[0],) and found.after == second
    changes = {(clip.clip_id, field.field): (field.before, field.after) for clip in found.changed for field in clip.fields}
    expected = {(ids[1], "caption"): (clips[ids[1]][0]["caption"], "new"), (ids[1], "layer"): (clips[ids[1]][0]["layer"], 7)}
    if clips[ids[2]][0]["aperture_error"] is not None:
        expected[ids[2], "aperture_error"] = (clips[ids[2]][0]["aperture_error"], None)
    assert changes == expected and not any(clip.picture for clip in found.changed)
    assert [(c.field, c.before, c.after) for c in found.recipe] == [("render.samples", 4, 8)]
    assert diff(history, "latest", "latest").empty


def test_lineage_of_an_older_version_that_was_committed_again(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path)
    second = commit_clips(history, without(clips, next(iter(clips))), "second")
    third = commit(history, table(clips), references(clips), dataclasses.replace(origin("back"), base=first.id))
    assert third.parents == (second.id, first.id) and third.content == first.content
    assert {version.id for version in history.ancestors(third.id)} == {first.id, second.id, third.id}


def test_the_head_never_names_a_version_that_is_not_written(tmp_path: Path) -> None:
    history = History(tmp_path)
    clips = make_clips(history.store, 2)
    (history.root / "versions").write_bytes(b"a file in the folder's place")
    with pytest.raises(OSError, match="versions"):
        commit_clips(history, clips)
    assert history.refs.head() is None
    (history.root / "versions").unlink()
    assert commit_clips(history, clips) == history.version()


def test_at_the_same_stated_time_the_same_clips_make_the_same_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (_, _, one), (_, _, other) = built(tmp_path / "one"), built(tmp_path / "other")
    assert one.id == other.id and one.time == "2023-11-14T22:13:20+00:00"
    for wrong in ("yesterday", "1e9", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
            built(tmp_path / f"wrong-{wrong[:3]}")
