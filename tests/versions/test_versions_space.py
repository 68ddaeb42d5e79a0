"""A disk that is full at every write in turn: a clear error, and no broken version."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from versions_support import Clips, changed, commit_clips, make_clips, write_folder

from generator.errors import DiskError
from generator.versions.check import check
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.history.refs import version_ids
from generator.versions.working.restore import restore
from generator.versions.working.status import record_shown, status

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of one megabyte, or skip where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a child just killed may hold it a little longer


def fill(disk: Path, pages: int) -> None:
    """Fill the disk but for some pages."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        while True:
            try:
                if not file.write(bytes(PAGE)):
                    break
            except OSError:
                break
    size = (disk / "ballast").stat().st_size
    with (disk / "ballast").open("rb+") as file:
        file.truncate(max(0, size // PAGE - pages) * PAGE)


def every_space(disk: Path, action: Callable[[], object], after: Callable[[bool], None]) -> int:
    """Run an action with 0, 1, 2 … free pages until it works; return how often it failed."""
    for pages in range(100):
        fill(disk, pages)
        try:
            action()
        except DiskError as error:
            assert "no space left" in str(error)
            (disk / "ballast").unlink()
            after(False)
            continue
        (disk / "ballast").unlink()
        after(True)
        return pages
    raise AssertionError("it never worked")


def dataset(path: Path) -> tuple[History, Clips]:
    history = History(path)
    clips = make_clips(history.store, 5)
    write_folder(path, clips)
    assert record_shown(history, commit_clips(history, clips, "first"))
    return history, clips


def test_a_commit_on_a_full_disk(disk: Path) -> None:
    history, clips = dataset(disk / "ds")
    first = history.version()
    later = changed(clips, next(iter(clips)), caption="words")

    def after(done: bool) -> None:
        assert check(history).clean and (history.version() != first) is done
        assert status(history).version == first and status(history).clean

    assert every_space(disk, lambda: commit_clips(history, later, "second"), after) >= 3
    gc(history, grace_s=0)
    assert len(version_ids(history.root)) == 2 and not list(history.path.rglob(".tmp-*"))


def test_a_restore_on_a_full_disk(disk: Path) -> None:
    history, clips = dataset(disk / "ds")
    later = {clip_id: clip for n in range(5) for clip_id, clip in changed(clips, list(clips)[n], caption=f"w{n}").items()}
    for clip_id in list(later):
        later = changed(later, clip_id, caption="the same words")
    commit_clips(history, later, "second")

    def after(done: bool) -> None:
        damages = [damage for damage in check(history).damages if damage.kind != "working"]
        assert damages == [] and status(history).clean is (done or status(history).restoring is None)

    assert every_space(disk, lambda: restore(history, "latest"), after) >= 3
    assert check(history).clean and status(history).clean
    assert all(path.read_text() == "the same words\n" for path in (history.path / "clips").glob("*.txt"))


def test_a_tag_on_a_full_disk(disk: Path) -> None:
    history, _ = dataset(disk / "ds")

    def after(done: bool) -> None:
        assert check(history).clean and (history.refs.tag_names() == ["v1"]) is done

    assert every_space(disk, lambda: history.tag("v1"), after) >= 1


def test_collecting_works_on_a_full_disk(disk: Path) -> None:
    history, _ = dataset(disk / "ds")
    garbage = [history.store.put(bytes([n]) * 1000) for n in range(20)]
    fill(disk, 0)
    assert gc(history, grace_s=0).objects == len(garbage)
    (disk / "ballast").unlink()
    assert check(history).clean
