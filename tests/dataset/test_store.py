"""The store: content-addressed, put-if-absent, never half-written."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import DamagedError
from generator.store.objects import ClipRecord, Store

KEY = hashlib.sha256(b"key").hexdigest()


def record(store: Store, key: str = KEY, data: bytes = b"clip") -> ClipRecord:
    return ClipRecord(
        key=key,
        sha256_bytes=store.put(data),
        sha256_frames="0" * 64,
        size_bytes=len(data),
        blender="5.0.1",
        encoder="x",
        cpu_s=1.0,
    )


def test_an_object_is_its_hash_and_read_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(b"pixels")
    assert digest == hashlib.sha256(b"pixels").hexdigest()
    assert store.read(digest) == b"pixels"
    assert stat.S_IMODE(store.path(digest).stat().st_mode) == 0o444


def test_putting_twice_writes_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(b"pixels")
    before = store.path(digest).stat()
    assert store.put(b"pixels") == digest
    assert store.path(digest).stat().st_ino == before.st_ino


def test_many_writers_of_one_object_leave_one_whole_object_and_no_temporaries(tmp_path: Path) -> None:
    store, data = Store(tmp_path), os.urandom(1 << 20)
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: store.put(data), range(32)))
    assert len(digests) == 1 and store.read(digests.pop()) == data
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp-")] == []


def test_the_first_record_of_a_key_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = record(store, data=b"first")
    store.put_record(first)
    store.put_record(record(store, data=b"second"))
    assert store.record(KEY) == first


def test_a_clip_is_finished_only_with_all_its_objects(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.finished(KEY) is None
    store.put_record(record(store))
    assert store.finished(KEY) is not None
    store.path(hashlib.sha256(b"clip").hexdigest()).unlink()
    assert store.finished(KEY) is None


@pytest.mark.parametrize("damage", [b"", b"{", b'{"key": "no"}', b"\xff"])
def test_a_damaged_record_is_said(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    store.put_record(record(store))
    path = next((tmp_path / "records").rglob("*.json"))
    path.chmod(0o644)
    path.write_bytes(damage)
    with pytest.raises(DamagedError, match="damaged"):
        store.record(KEY)


def test_a_record_under_another_key_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_record(record(store))
    other = hashlib.sha256(b"other").hexdigest()
    path = next((tmp_path / "records").rglob("*.json"))
    target = tmp_path / "records" / other[:2] / f"{other}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    with pytest.raises(DamagedError, match="another clip"):
        store.record(other)


@given(position=st.integers(0, 8 * 4 - 1))
def test_every_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, position: int) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    digest = store.put(b"clip")
    data = bytearray(b"clip")
    data[position // 8] ^= 1 << position % 8
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(bytes(data))
    with pytest.raises(DamagedError, match="does not match"):
        store.read(digest)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "abc", "/" * 64, "G" * 64, "0" * 63 + "\n"])
def test_what_is_no_hash_names_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DamagedError):
        Store(tmp_path).path(name)


def test_a_view_is_a_hard_link_and_replaces_what_was_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digest, view = store.put(b"clip"), tmp_path / "clips" / "a.mp4"
    view.parent.mkdir()
    view.write_bytes(b"stale")
    store.link(digest, view)
    store.link(digest, view)
    assert view.read_bytes() == b"clip"
    assert view.stat().st_ino == store.path(digest).stat().st_ino
    assert list(view.parent.iterdir()) == [view]
