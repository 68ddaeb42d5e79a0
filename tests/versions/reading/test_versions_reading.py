"""Reading a version: snapshots, splits, the leak check, questions in SQL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from versions_support import built, commit_clips, make_clips, make_row, origin, references, sha, table, without

from generator.commands.query import fitting
from generator.errors import DamagedError
from generator.media.video import decode, encode, frames_digest
from generator.store.objects import ClipRecord, Store
from generator.store.splits import SplitRatios, frame_leaks, perceptual_hash, scene_leaks, split_of
from generator.versions.commit import commit
from generator.versions.history.history import History
from generator.versions.reading.dataset import Dataset
from generator.versions.reading.leaks import leaks
from generator.versions.reading.query import query
from scenes.errors import InputError


def scene_frames(seed: int, count: int = 5, side: int = 64) -> np.ndarray:
    """Return frames of a textured square that moves before a plain background."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, side, side, 3), rng.integers(60, 200, 3), np.uint8)
    square, top, left = rng.integers(0, 255, (6, 6, 3)).repeat(4, 0).repeat(4, 1), *rng.integers(2, side - 32, 2)
    for index in range(count):
        frames[index, top : top + 24, left + index : left + index + 24] = square
    return frames


def film(path: Path, scenes: int, *, copies: dict[int, int] | None = None) -> tuple[History, dict[str, bytes]]:
    """Return a committed dataset of real videos, two clips a scene; `copies` lets a scene show another's content."""
    store, clips, data = Store(path / ".stopdown"), {}, {}
    rng = np.random.default_rng(0)
    for number in range(scenes):
        for index in range(2):
            frames = scene_frames((copies or {}).get(number, number))
            bytes_ = encode(frames, 16, 12 + index, "ultrafast")
            clip_id = f"flyby-s0-n2-f5-{number:04d}-{index}"
            record = ClipRecord(
                key=sha(clip_id), sha256_bytes=store.put(bytes_), sha256_frames=frames_digest(decode(bytes_)),
                size_bytes=len(bytes_), blender="5.0.1", encoder="x", cpu_s=0.1,
            )  # fmt: skip
            store.put_record(record)
            clips[clip_id] = (make_row(clip_id, clip_id[:-2], number, record, rng), record)
            data[clip_id] = bytes_
    history = History(path)
    ratios = SplitRatios(train=0.5, validation=0.25, test=0.25)
    commit(history, table(clips), references(clips), origin().__class__(**{**origin().__dict__, "splits": ratios}))
    return history, data


def splits_by_clip(history: History) -> dict[str, str]:
    return {clip.clip_id: clip["split"] for clip in Dataset.open(history.path)}


def test_a_snapshot_gives_labels_and_frames(tmp_path: Path) -> None:
    _, data = film(tmp_path, 8)
    snapshot = Dataset.open(tmp_path, "latest")
    assert len(snapshot) == 16 == snapshot.labels.num_rows and snapshot.clip_ids == tuple(sorted(data))
    for clip in snapshot:
        frames_THW3 = clip.frames()
        assert frames_THW3.dtype == np.uint8 and frames_THW3.shape == (5, 64, 64, 3)
        assert frames_digest(frames_THW3) == clip["sha256_frames"] and clip.data() == data[clip.clip_id]
        assert clip.path.read_bytes() == data[clip.clip_id] and clip.labels["frames"] == clip["frames"] == 5
    assert snapshot[-1].clip_id == max(data) and snapshot[2:5].clip_ids == tuple(sorted(data))[2:5]
    assert max(data) in snapshot and "no" not in snapshot
    np.testing.assert_array_equal(snapshot.frames(max(data)), snapshot[max(data)].frames())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_torch_loader_takes_a_snapshot_and_its_samples(tmp_path: Path, workers: int) -> None:
    from torch.utils.data import DataLoader

    film(tmp_path, 2)
    snapshot = Dataset.open(tmp_path)
    context = "spawn" if workers else None
    given = snapshot if workers else snapshot.samples()
    batches = list(DataLoader(given, batch_size=3, num_workers=workers, multiprocessing_context=context))
    assert [clip_id for batch in batches for clip_id in batch["clip_id"]] == list(snapshot.clip_ids)
    for position, clip in enumerate(snapshot):
        batch = batches[position // 3]
        assert np.array_equal(batch["video"][position % 3].numpy(), clip.frames())
        assert batch["caption"][position % 3] == clip["caption"]


def test_subsets_of_a_snapshot_load_shuffled_and_a_clip_alone_stays_a_clip(tmp_path: Path) -> None:
    import torch
    from torch.utils.data import DataLoader, random_split

    film(tmp_path, 2)
    snapshot = Dataset.open(tmp_path)
    halves = random_split(snapshot, [0.5, 0.5], generator=torch.Generator().manual_seed(0))
    batches = [batch for half in halves for batch in DataLoader(half, batch_size=2, shuffle=True)]
    assert sorted(clip_id for batch in batches for clip_id in batch["clip_id"]) == list(snapshot.clip_ids)
    for batch in batches:
        assert batch["video"].dtype == torch.uint8 and batch["video"].shape == (2, 5, 64, 64, 3)
        assert torch.equal(batch["video"][0], torch.from_numpy(snapshot.frames(batch["clip_id"][0])))
    alone = list(DataLoader(snapshot, batch_size=None))
    assert [clip.clip_id for clip in alone] == list(snapshot.clip_ids)
    with pytest.raises(IndexError):
        snapshot.__getitems__([0, len(snapshot)])


def test_samples_and_clips_say_what_they_are(tmp_path: Path) -> None:
    film(tmp_path, 2)
    snapshot = Dataset.open(tmp_path)
    clip = snapshot[0]
    assert clip.clip_id in repr(clip) and repr(clip["caption"]) in repr(clip)
    assert "4 clips" in repr(snapshot.samples()) and snapshot.version.short in repr(snapshot)
    assert snapshot.samples("caption", "frames")[0].keys() == {"caption", "frames", "video"}
    with pytest.raises(IndexError):
        snapshot.samples()[len(snapshot)]
    with pytest.raises(InputError, match=r"no label 'captoin'.*did you mean 'caption'"):
        snapshot.samples("captoin")
    with pytest.raises(InputError, match="'lossless' is empty or nested"):
        snapshot.samples("lossless")


def test_a_table_shows_the_columns_that_the_question_names() -> None:
    names = ["clip_id", "family", "layer", "caption", "temperature_k"]
    rows = [["tabletop-s3-n3-f5-0000-1", "tabletop", "3", "A view of a cone " * 4, "4321.12"]]
    shown = [names[place] for place in fitting(names, rows, "temperature_k < 5000", 80)]
    assert shown == ["clip_id", "temperature_k", "family", "layer"]
    assert [names[place] for place in fitting(names, rows, "caption LIKE '%cone%'", 40)] == ["clip_id", "caption"]
    assert fitting(names, [], "layer = 1", 80)[:2] == [0, 2]


def test_a_seeded_order_is_a_permutation_that_seed_and_epoch_decide(tmp_path: Path) -> None:
    film(tmp_path, 8)
    snapshot = Dataset.open(tmp_path)
    orders = {
        (seed, epoch): [clip.clip_id for clip in snapshot.shuffled(seed, epoch=epoch)] for seed in (0, 1) for epoch in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    assert all(sorted(order) == list(snapshot.clip_ids) for order in orders.values())
    assert orders[0, 0] == [clip.clip_id for clip in Dataset.open(tmp_path).shuffled(0)]


def test_splits_partition_the_scenes_and_growth_moves_none(tmp_path: Path) -> None:
    film(tmp_path, 24)
    snapshot = Dataset.open(tmp_path)
    parts = {name: snapshot.split(name) for name in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(snapshot) and all(len(part) for part in parts.values())
    scenes = [set(part.labels["scene_id"].to_pylist()) for part in parts.values()]
    assert sum(map(len, scenes)) == len(set.union(*scenes)) == 24
    assert parts["train"][0].frames().shape == (5, 64, 64, 3)
    with pytest.raises(InputError, match="no split 'trian'"):
        snapshot.split("trian")
    history, clips, _ = built(tmp_path / "growing", 30)
    before = splits_by_clip(history)
    commit_clips(history, {**without(clips, next(iter(clips))), **make_clips(history.store, 30, seed=2)}, "grown")
    after = splits_by_clip(history)
    assert all(after[clip_id] == split for clip_id, split in before.items() if clip_id in after)


@pytest.mark.parametrize("ratios", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
def test_shares_are_those_asked_for(ratios: tuple[float, float, float]) -> None:
    splits = SplitRatios(train=ratios[0], validation=ratios[1], test=ratios[2])
    drawn = [split_of(f"scene-{number}", splits) for number in range(20_000)]
    for name, share in zip(("train", "validation", "test"), ratios, strict=True):
        assert abs(drawn.count(name) / 20_000 - share) < 4 * np.sqrt(share * (1 - share) / 20_000) + 1e-12


@pytest.mark.parametrize("ratios", [(0.5, 0.1, 0.1), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_shares_that_are_none_are_refused(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        SplitRatios(train=ratios[0], validation=ratios[1], test=ratios[2])


def test_the_leak_check_passes_other_scenes_and_finds_a_copy(tmp_path: Path) -> None:
    film(tmp_path / "clean", 24)
    snapshot = Dataset.open(tmp_path / "clean")
    assert leaks(snapshot) == []
    by_split = {row["split"]: int(row["scene_id"][-4:]) for row in snapshot.labels.to_pylist()}
    film(tmp_path / "leaky", 24, copies={by_split["test"]: by_split["train"]})
    found = leaks(Dataset.open(tmp_path / "leaky"))
    assert {frozenset(leak.splits) for leak in found} == {frozenset({"train", "test"})} and len(found) == 4
    assert {int(clip[-6:-2]) for leak in found for clip in leak.clip_ids} == {by_split["test"], by_split["train"]}
    assert leaks(Dataset.open(tmp_path / "leaky"), frames=False) == []


def test_a_scene_in_two_splits_is_found() -> None:
    clips = [{"clip_id": f"c{n}", "scene_id": f"s{n // 2}", "split": "test" if n == 3 else "train"} for n in range(6)]
    assert [leak.clip_ids for leak in scene_leaks(clips)] == [("c2", "c3")]


@pytest.mark.parametrize("crf", [0, 12, 30])
def test_a_recompressed_frame_is_near_and_other_scenes_are_not(crf: int) -> None:
    pictures = {f"c{seed}": scene_frames(seed)[0] for seed in range(40)}
    pictures["copy"] = decode(encode(scene_frames(7), 16, crf, "ultrafast"))[0]
    clips = [{"clip_id": name, "scene_id": name, "split": "test" if name == "copy" else "train"} for name in pictures]
    assert [leak.clip_ids for leak in frame_leaks(clips, pictures.__getitem__)] == [("c7", "copy")]
    assert perceptual_hash(pictures["c1"])[0].shape == (512,)


def test_bytes_that_are_not_as_committed_are_not_given_out(tmp_path: Path) -> None:
    film(tmp_path, 2)
    clip = Dataset.open(tmp_path)[0]
    data = bytearray(clip.path.read_bytes())
    data[len(data) // 2] ^= 1
    clip.path.chmod(0o644)
    clip.path.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match="does not match"):
        clip.frames()


@pytest.mark.parametrize(("index", "words"), [("flyby-s0-n3-f5-0000-9", "did you mean"), ("x", "no clip 'x'")])
def test_a_clip_that_is_not_there_is_said(tmp_path: Path, index: str, words: str) -> None:
    built(tmp_path, 3)
    with pytest.raises(InputError, match=words):
        Dataset.open(tmp_path)[index]
    with pytest.raises(IndexError):
        Dataset.open(tmp_path)[3]
    with pytest.raises(InputError, match="did you mean 'caption'"):
        Dataset.open(tmp_path)[0]["captoin"]


def test_questions_are_answered(tmp_path: Path) -> None:
    built(tmp_path, 30)
    labels = Dataset.open(tmp_path).labels
    rows = labels.to_pylist()
    expected = {
        row["clip_id"]
        for row in rows
        if row["shutter_exposure_s"] is not None and row["shutter_exposure_s"] < 0.02 and row["layer"] == 3
    }
    assert expected
    condition = "shutter_exposure_s < 0.02 AND layer = 3"
    assert set(query(labels, condition)["clip_id"].to_pylist()) == expected
    assert set(Dataset.open(tmp_path).where(condition).clip_ids) == expected
    assert query(labels, "SELECT count(*) AS n FROM clips;")["n"].to_pylist() == [30]
    assert query(labels, "index = 1").num_rows == 10 and query(labels, "lossless['x'] IS NULL").num_rows == 30
    assert query(labels, "caption LIKE '%über%' -- a remark").num_rows == 30
    assert query(labels, "index = 1", time_limit_s=float("inf")).num_rows == 10
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    with pytest.raises(InputError, match=r"not answered within 0\.2 s"):
        query(labels, endless, time_limit_s=0.2)
    for never in (0.0, float("nan")):
        with pytest.raises(InputError, match="give more than 0"):
            query(labels, "layer = 9", time_limit_s=never)


@pytest.mark.parametrize(
    "question",
    [
        "", "   ;", "nope = 1", "layer = ", "layer = 9; DROP TABLE clips", "layer = 9); SELECT 1; --",
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM '/etc/passwd'", "SELECT * FROM read_csv('/etc/passwd')",
        "WITH x AS (SELECT 1) DELETE FROM clips", "SELECT 1; SELECT 2", "clip_id IN (SELECT content FROM read_text('/x'))",
    ],
)  # fmt: skip
def test_questions_reach_nothing_but_the_table(tmp_path: Path, question: str) -> None:
    built(tmp_path, 3)
    with pytest.raises(InputError, match=r"question|cannot be answered"):
        query(Dataset.open(tmp_path).labels, question)


@pytest.mark.parametrize(
    "question", ["COPY clips TO 'x.csv'", "ATTACH 'x.db'", "INSTALL httpfs", "SET threads = 4", "PRAGMA version"]
)
def test_other_statements_are_no_questions(tmp_path: Path, question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        query(Dataset.open(tmp_path).labels, question)
    assert not list(tmp_path.glob("x.*"))
