"""File systems that lack locks, links or flushing; groups that share a dataset; folders that cannot be written to."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from many_commands import run_commands
from versions.versions_support import built

from generator.io.atomic import sweep_left_over, write_atomic
from generator.io.file_lock import exclusive_lock
from generator.io.scratch import scratch_folder
from scenes.errors import InputError

RECIPE = """
name = "one"
[video]
width = 64
height = 64
[render]
samples = 1
[verify.median_error]
temperature = 1000.0
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [1]
scenes_per_layer = 1
frames = [1]
"""

# Calls that a network file system refuses, below a folder: REFUSED names them.
REFUSING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))
static int refused(const char *call) { const char *all = getenv("REFUSED"); return all && strstr(all, call); }
static int below(const char *path) {
    char here[4096];
    const char *root = getenv("REFUSED_BELOW");
    if (path[0] != '/' && getcwd(here, sizeof here)) path = here;
    return root && strstr(path, root);
}
static int open_below(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return below(path);
}
static int fail(int reason) { errno = reason; return -1; }
int flock(int file, int how) {
    if (refused("flock") && open_below(file)) return fail(ENOLCK);
    return NEXT(int (*)(int, int), "flock")(file, how);
}
int fchmod(int file, mode_t mode) {
    if (refused("fchmod") && open_below(file)) return fail(EPERM);
    return NEXT(int (*)(int, mode_t), "fchmod")(file, mode);
}
int fsync(int file) {
    struct stat found;
    if (refused("fsync") && open_below(file) && !fstat(file, &found) && S_ISDIR(found.st_mode)) return fail(EINVAL);
    return NEXT(int (*)(int), "fsync")(file);
}
int link(const char *from, const char *to) {
    if (refused("link") && below(to)) return fail(EPERM);
    return NEXT(int (*)(const char *, const char *), "link")(from, to);
}
"""


@pytest.fixture(scope="session")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that refuses calls when it is preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux, whose loader takes LD_PRELOAD")
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "refusing.c").write_text(REFUSING)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "refusing.so", "refusing.c", "-ldl"], cwd=folder, check=True)
    return folder / "refusing.so"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user of the machine may enter and write to; pytest's own are for one."""
    with tempfile.TemporaryDirectory(prefix="stopdown-shared-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o777)
        yield Path(name)


def as_user(uid: int, *, group: int = 61000, umask: str = "0002") -> list[str]:
    """Return the words that run a program as another user, who may read this Python wherever it lies."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to be other users")
    people = ["--reuid", str(uid), "--regid", str(group), "--clear-groups"]
    sees = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    return ["setpriv", *people, *sees, "sh", "-c", f'umask {umask}; exec "$@"', "sh"]


@pytest.mark.timeout(900)
def test_every_command_works_without_links_fchmod_and_flushing_of_folders(refusing: Path, tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(RECIPE)
    (tmp_path / "pushed").mkdir()
    commands = ["build one.toml --out ds --workers 1", "tag ds first", "restore ds latest", "clone ds cloned", "push ds pushed"]
    commands += ["pull cloned ds", "gc ds", "export ds diffsynth exported", "verify ds --all", "verify pushed --all"]
    cases = [{"args": words.split(), "cwd": str(tmp_path)} for words in commands]
    env = {"LD_PRELOAD": str(refusing), "REFUSED": "fchmod fsync link", "REFUSED_BELOW": str(tmp_path)}
    for command, answer in zip(commands, run_commands(cases, env=env), strict=True):
        assert answer.code == 0, f"{command}: {answer}"
    linked = sorted(view.name for view in (tmp_path / "ds" / "clips").iterdir() if view.stat().st_nlink > 1)
    assert not linked


def test_without_locks_readers_read_and_writers_say_so_in_one_line(refusing: Path, tmp_path: Path) -> None:
    history, _, _ = built(tmp_path / "ds")
    (tmp_path / "pushed").mkdir()
    (tmp_path / "one.toml").write_text(RECIPE)
    reading = ["log ds", "show ds", "status ds", "diff ds latest latest", "verify ds --all"]
    writing = ["tag ds first", "restore ds latest", "clone ds cloned", "push ds pushed", "gc ds", "build one.toml --out new"]
    cases = [{"args": words.split(), "cwd": str(tmp_path)} for words in reading + writing]
    env = {"LD_PRELOAD": str(refusing), "REFUSED": "flock", "REFUSED_BELOW": str(tmp_path)}
    answers = dict(zip(reading + writing, run_commands(cases, env=env), strict=True))
    for command in reading:
        assert answers[command].code == 0, answers[command]
    for command in writing:
        assert answers[command].code == 2 and answers[command].is_one_line, answers[command]
        assert "no file locks" in answers[command].err
    assert history.refs.tag("first") is None


@pytest.mark.timeout(900)
def test_a_group_shares_a_dataset(open_folder: Path) -> None:
    """One builds, the other goes on with the build, edits, commits, collects and exports; both can read all of it."""
    os.chown(open_folder, -1, 61000)
    open_folder.chmod(0o2777)
    (open_folder / "one.toml").write_text(RECIPE)
    (open_folder / "two.toml").write_text(f"seed = 3\n{RECIPE}")
    home = {"HOME": str(open_folder), "MPLCONFIGDIR": str(open_folder / "mpl"), "TMPDIR": str(open_folder)}
    first = ["build one.toml --out ds --workers 1", "build one.toml --out shards --shard 1/2", "tag ds first"]
    second = ["status ds", "build two.toml --out ds --workers 1", "build one.toml --out shards --shard 2/2"]
    second += ["build one.toml --out shards --finish --shards 2", "gc ds", "restore ds first", "export ds diffsynth exported"]
    for uid, commands in (
        (61001, first),
        (61002, second),
        (61001, ["status ds", "restore ds latest", "gc ds", "verify ds --all"]),
    ):
        cases = [{"args": words.split(), "cwd": str(open_folder)} for words in commands]
        for command, answer in zip(commands, run_commands(cases, before=as_user(uid), env=home), strict=True):
            assert answer.code == 0, f"{uid} {command}: {answer}"
    for path in (open_folder / "ds").rglob("*"):
        mode = path.stat().st_mode
        assert mode & stat.S_IRGRP and path.stat().st_gid == 61000, path
        assert path.is_file() or mode & stat.S_IWGRP, path


@pytest.mark.timeout(900)
def test_a_dataset_that_cannot_be_written_to_is_read(open_folder: Path, copied_dataset: Path) -> None:
    shutil.copytree(copied_dataset, open_folder / "ds")
    assert [a.code for a in run_commands([{"args": ["commit", "ds", "-m", "one"], "cwd": str(open_folder)}])] == [0]
    for path in (open_folder / "ds").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (open_folder / "ds").chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in (open_folder / "ds").rglob("*")}
    reading = ["status ds", "log ds", "verify ds --workers 1", "verify ds --json --workers 1", "clone ds cloned"]
    reading += ["export ds diffsynth exported", "gc ds"]  # there is nothing to remove
    writing = ["gallery ds", "tag ds a", "restore ds latest"]
    cases = [{"args": [*words.split()], "cwd": str(open_folder)} for words in reading + writing]
    home = {"HOME": str(open_folder), "MPLCONFIGDIR": str(open_folder / "mpl"), "TMPDIR": str(open_folder)}
    answers = dict(zip(reading + writing, run_commands(cases, before=as_user(61003), env=home), strict=True))
    for command in reading:
        assert answers[command].code == 0, f"{command}: {answers[command]}"
    assert "verified" in answers["verify ds --workers 1"].out and "no plot" in answers["verify ds --workers 1"].err
    assert not answers["verify ds --json --workers 1"].err
    for command in writing:
        assert answers[command].code in (1, 2) and answers[command].is_one_line, f"{command}: {answers[command]}"
    assert before == {path: path.stat().st_mtime_ns for path in (open_folder / "ds").rglob("*")}


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "file", b"x")
        write_atomic(tmp_path / "object", b"x", mode=0o444)
        with exclusive_lock(tmp_path / "lock", "busy"), scratch_folder(tmp_path / "made") as scratch:
            scratch.rename(tmp_path / "made")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"file": 0o666 & ~mask, "object": 0o444 & ~mask, "lock": 0o666 & ~mask, "made": 0o777 & ~mask}


def test_scratch_of_the_dead_is_swept_and_that_of_the_living_stays(tmp_path: Path) -> None:
    dead = tmp_path / ".adapter-0123abcd"
    others = [tmp_path / ".adapter-notes", tmp_path / ".adapter-2-0123abcd"]
    for folder in (dead, *others):
        folder.mkdir()
        (folder / "file").write_text("x")
    with scratch_folder(tmp_path / "adapter") as living, scratch_folder(tmp_path / "adapter") as second:
        assert living.is_dir() and second.is_dir() and not dead.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folder.name for folder in others)


def test_a_lock_that_is_held_is_refused(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "lock", "busy"),
        pytest.raises(InputError, match="busy"),
        exclusive_lock(tmp_path / "lock", "busy"),
    ):
        pass


def test_what_a_killed_write_left_goes_at_the_next_one_and_what_is_being_written_stays(tmp_path: Path) -> None:
    target, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    waits = (
        "import os, sys; from pathlib import Path; from generator.io import atomic\n"
        "atomic.os.fsync = lambda file: (print('half', flush=True), sys.stdin.read(), os._exit(9))\n"
        "atomic.write_atomic(Path(sys.argv[1]), b'half')\n"
    )

    def begun(path: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", waits, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"half\n"
        return process

    for path in (target, other):
        with begun(path) as killed:
            killed.kill()
    with begun(target) as living:
        assert len(list(tmp_path.iterdir())) == 2  # the second writer of the target took the place of the first one's
        write_atomic(target, b"whole")  # while another writes the same
        assert target.read_bytes() == b"whole" and len(list(tmp_path.glob(".tmp-*"))) == 2
        sweep_left_over(tmp_path)
        [held] = tmp_path.glob(".tmp-*")
        assert held.read_bytes() == b"half"
        living.kill()
    write_atomic(target, b"again", mode=0o444)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
