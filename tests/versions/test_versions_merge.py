"""Merging datasets: the union of disjoint or equal clips, with both histories."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from versions_support import PLAN, built, changed, commit_clips, make_clips, origin, references, table, without

from generator.errors import DamagedError
from generator.store.splits import SplitRatios
from generator.versions.check import check
from generator.versions.commit import commit
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.history.refs import version_ids
from generator.versions.merge import merge
from generator.versions.reading.dataset import Dataset
from generator.versions.working.restore import restore
from generator.versions.working.status import status
from scenes.errors import InputError


def test_a_union_has_the_clips_plans_and_history_of_both(tmp_path: Path) -> None:
    one, clips, mine = built(tmp_path / "one", 9, lossless=True)
    two, others, _ = built(tmp_path / "two", 6, seed=1, lossless=True)
    plan = PLAN.replace('"samples":4', '"samples":8')
    theirs = commit(two, table(others), references(others), origin("their second", plan=plan))
    both = merge(one, two, message="both")
    assert both.parents == (mine.id, theirs.id) and both.summary.clips == 15
    assert both.plans == (*mine.plans, *theirs.plans) and len(both.recipes) == 2
    assert set(Dataset.open(one.path).clip_ids) == {*clips, *others}
    assert {version.message for version in one.ancestors(both.id)} == {"both", "first", "their second"}
    assert check(one).clean and check(two).clean and status(one).clean
    restore(one, "latest")
    assert status(one).clean and check(one).clean and len(list((one.path / "clips").glob("*.mp4"))) == 15
    assert not (one.root / "plan.json").exists()
    assert all(one.store.finished(record.key) for _, record in others.values())
    gc(one, grace_s=0)
    assert check(one).clean and merge(one, two) == one.version()
    restore(one, mine.id)
    assert status(one).clean and (one.root / "plan.json").is_file()


def test_equal_clips_are_there_once_whatever_the_probes_said(tmp_path: Path) -> None:
    one, clips, _ = built(tmp_path / "one", 9)
    two = History(tmp_path / "two")
    same = changed(make_clips(two.store, 12), list(clips)[1], aperture_measured=0.125)
    commit_clips(two, same)
    both = merge(one, two)
    assert both.summary.clips == 12
    assert Dataset.open(one.path)[list(clips)[1]]["aperture_measured"] == clips[list(clips)[1]][0]["aperture_measured"]


def test_clips_of_one_id_and_two_contents_are_refused_by_name(tmp_path: Path) -> None:
    one, clips, mine = built(tmp_path / "one", 9)
    two = History(tmp_path / "two")
    victim = list(clips)[5]
    commit_clips(two, changed(make_clips(two.store, 9), victim, caption="other", layer=1))
    before = set(one.store.objects())
    with pytest.raises(InputError, match=rf"{victim} in layer, caption"):
        merge(one, two)
    assert one.version() == mine and version_ids(one.root) == [mine.id] and set(one.store.objects()) == before


def test_other_splits_are_refused(tmp_path: Path) -> None:
    one, _, _ = built(tmp_path / "one", 3)
    two = History(tmp_path / "two")
    clips = make_clips(two.store, 3, seed=1)
    commit(
        two,
        table(clips),
        references(clips),
        dataclasses.replace(origin(), splits=SplitRatios(train=0.5, validation=0.5, test=0)),
    )
    with pytest.raises(InputError, match="split differently"):
        merge(one, two)


def test_a_damaged_dataset_is_not_merged(tmp_path: Path) -> None:
    one, _, mine = built(tmp_path / "one", 3)
    two, clips, _ = built(tmp_path / "two", 3, seed=1)
    path = two.store.path(next(iter(clips.values()))[1].sha256_bytes)
    path.chmod(0o644)
    path.write_bytes(b"x")
    with pytest.raises(DamagedError, match="does not match"):
        merge(one, two)
    assert one.version() == mine and check(one).clean


def test_merging_a_dataset_with_fewer_axes_keeps_its_nulls(tmp_path: Path) -> None:
    one, clips, _ = built(tmp_path / "one", 3)
    two = History(tmp_path / "two")
    more = make_clips(two.store, 3, seed=1)
    labels = table(more)
    kept = [name for name in labels.column_names if not name.startswith("aperture")]
    commit(two, labels.select(kept), references(more), origin())
    merge(one, two)
    row = Dataset.open(one.path)[next(iter(more))].labels
    assert row["aperture_f_number"] is None and len(Dataset.open(one.path)) == 6
    merge(two, one)
    assert Dataset.open(two.path)[next(iter(clips))].labels.keys() == row.keys()
    assert without(clips)
