"""Every damaged byte is found, and what it hits is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from versions_support import built, changed, commit_clips, make_clips, without

from generator.versions.check import check
from generator.versions.history.history import History
from generator.versions.working.restore import restore
from generator.versions.working.status import status

FLIPS = 200


def dataset(path: Path) -> History:
    """Return a dataset with every kind of file: three versions, tags, lossless frames, an index, pending records."""
    history, clips, _ = built(path, 9, lossless=True)
    commit_clips(history, without(clips, next(iter(clips))), "second")
    commit_clips(history, changed(clips, next(iter(clips)), caption="other"), "third")
    history.tag("v1", "latest~1")
    history.tag("v2")
    restore(history, "latest")
    make_clips(history.store, 2, seed=8)
    os.utime(path / "README.md", (1, 1))
    assert status(history).clean and (history.root / "index.json").is_file() and check(history).clean
    return history


def files(history: History, *, records: bool) -> list[Path]:
    """Return every file of a dataset that has bytes; records only where the store seals them."""
    found = sorted(path for path in history.path.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in found if records or path.parent.parent.name != "records"]


def records_are_checksummed(history: History) -> bool:
    return b'"check"' in next((history.root / "records").rglob("*.json")).read_bytes()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    history = dataset(tmp_path)
    rng = np.random.default_rng(0)
    candidates = files(history, records=records_are_checksummed(history))
    seen = set()
    for number in range(FLIPS):
        # Every file once, then files drawn by chance.
        path = candidates[number] if number < len(candidates) else candidates[rng.integers(len(candidates))]
        data = path.read_bytes()
        position = int(rng.integers(8 * len(data)))
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        mode = path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(bytes(flipped))
        report = check(history)
        path.write_bytes(data)
        path.chmod(mode)
        relative = str(path.relative_to(tmp_path))
        assert not report.clean, f"bit {position} of {relative} was flipped and not found"
        inode = path.stat().st_ino
        blamed = [tmp_path / damage.path for damage in report.damages]
        assert any(other.exists() and other.stat().st_ino == inode for other in blamed), (relative, report.damages)
        seen.add(path.relative_to(tmp_path).parts[:2])
    assert check(history).clean and len(seen) > 5


PROVEN = ("objects/*/*", "versions/*", "head.json")
# Without one of these a dataset is whole: a tag is removed so; a note, a cache, a plan or a record is made anew.
SPARE = ("tags/*", "working.json", "index.json", "plan.json", "records/*/*")


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [(pattern, damage) for pattern in PROVEN + SPARE for damage in ("truncated", "emptied", "stripped")]
    + [(pattern, "deleted") for pattern in PROVEN],
)
def test_truncated_deleted_and_unreadable_files_are_found(tmp_path: Path, pattern: str, damage: str) -> None:
    history = dataset(tmp_path)
    for path in sorted(history.root.glob(pattern))[:4]:
        data, mode = path.read_bytes(), path.stat().st_mode
        path.chmod(0o644)
        if damage == "deleted":
            path.unlink()
        elif damage == "stripped":
            path.chmod(0)
        else:
            path.write_bytes(b"" if damage == "emptied" else data[: len(data) // 2])
        relative = str(path.relative_to(tmp_path))
        assert relative in {found.path for found in check(history).damages}, relative
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(mode)


@pytest.mark.parametrize("pattern", ["clips/*.mp4", "clips/*.txt", "frames/*/*", "labels.parquet", "README.md"])
@pytest.mark.parametrize("damage", ["truncated", "deleted", "stripped"])
def test_damage_of_the_working_folder_is_found(tmp_path: Path, pattern: str, damage: str) -> None:
    history = dataset(tmp_path)
    path = sorted(tmp_path.glob(pattern))[0]
    data = path.read_bytes()
    path.unlink()
    if damage != "deleted":
        path.write_bytes(data[:-1] if damage == "truncated" else data)
    if damage == "stripped":
        path.chmod(0)
    found = [entry for entry in check(history).damages if entry.path == str(path.relative_to(tmp_path))]
    assert len(found) == 1 and found[0].kind == "working" and found[0].versions == (history.version().id,)
    assert found[0].clips == ((path.stem if path.parent.name == "clips" else path.parent.name,) if "/" in pattern else ())


def _swap(one: Path, other: Path) -> None:
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


def test_swapped_files_are_found(tmp_path: Path) -> None:
    history = dataset(tmp_path)
    first, second = [path for path in sorted((history.root / "objects").glob("*/*")) if path.stat().st_nlink > 1][:2]
    for one, other in ((first, second), (history.root / "tags" / "v1.json", history.root / "tags" / "v2.json")):
        _swap(one, other)
        found = {entry.path: entry for entry in check(history).damages}
        assert {str(one.relative_to(tmp_path)), str(other.relative_to(tmp_path))} <= found.keys()
        assert "swapped" in found[str(one.relative_to(tmp_path))].message
        _swap(one, other)
    assert check(history).clean


def test_damage_names_the_clips_and_versions_it_hits(tmp_path: Path) -> None:
    history, clips, first = built(tmp_path, 6)
    gone = next(iter(clips))
    second = commit_clips(history, without(clips, gone), "second")
    path = history.store.path(clips[gone][1].sha256_bytes)
    path.chmod(0o644)
    path.write_bytes(b"x")
    found = next(entry for entry in check(history).damages if entry.kind == "object")
    assert found.clips == (gone,) and found.versions == (first.id,)
    assert check(history, ["latest"]).clean and not check(history, ["latest~1"]).clean
    assert check(history, ["latest"]).versions == 1 and second.id


def test_strangers_and_links_in_the_store_are_found(tmp_path: Path) -> None:
    history = dataset(tmp_path)
    (history.root / "objects" / "aa").mkdir(exist_ok=True)
    strangers = [history.root / "objects" / "aa" / "x", history.root / "versions" / "x.json", history.root / "tags" / "x"]
    for stranger in strangers:
        stranger.symlink_to("/etc/passwd")
    found = {entry.path for entry in check(history).damages if entry.kind == "stranger"}
    assert found == {str(stranger.relative_to(tmp_path)) for stranger in strangers}


def test_a_malicious_pickle_in_every_place_is_never_run(tmp_path: Path) -> None:
    history = dataset(tmp_path)
    trap = tmp_path / "ran"
    evil = b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    for path in files(history, records=True):
        data, mode = path.read_bytes(), path.stat().st_mode
        path.chmod(0o644)
        path.write_bytes(evil)
        assert not check(history).clean
        path.write_bytes(data)
        path.chmod(mode)
    assert not trap.exists()
