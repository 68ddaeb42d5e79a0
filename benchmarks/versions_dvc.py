"""DVC beside Stopdown: the same clips committed, checked, compared and brought back, each by its own command line.

Both run as separate processes, start-up included, in folders of one disk. Stopdown's build puts clips into the store as they
are rendered, with a flush to the disk for each; DVC copies them at `dvc add`, without one. So two lines stand for a commit:
from bytes in memory to a version, and the command alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

STOPDOWN = (sys.executable, str(Path(__file__).resolve().parents[1] / "stopdown.py"))


@dataclass(frozen=True)
class Beside:
    """One comparison: wall seconds of both, or in words what each found."""

    what: str
    stopdown: float | str
    dvc: float | str

    @property
    def ratio(self) -> float | None:
        """How many times as long DVC takes."""
        both = isinstance(self.stopdown, float) and isinstance(self.dvc, float)
        return float(self.dvc) / float(self.stopdown) if both else None


def find_dvc(folder: Path) -> Path:
    """Return the DVC on the PATH, or install one into a virtual environment under `folder`."""
    found = shutil.which("dvc")
    if found is not None:
        return Path(found)
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([binaries / "python", "-m", "pip", "install", "--quiet", "dvc"], check=True)
    return binaries / "dvc"


def beside_lines(path: Path, dvc: Path, make: Callable[[Path], list[bytes]]) -> list[Beside]:
    """Run both on the same clips; `make` writes a Stopdown working folder and its store, and returns the clips' bytes."""
    ours, theirs = path / "stopdown", path / "dvc"
    start = time.perf_counter()
    clips = make(ours)
    stored_s = time.perf_counter() - start
    commit_s = _run(ours, (*STOPDOWN, "commit", ".", "-m", "first"))
    env = _repository(theirs, dvc)
    start = time.perf_counter()
    _write(theirs / "clips", clips)
    written_s = time.perf_counter() - start
    add_s = _run(theirs, (dvc, "add", "-q", "clips"), env) + _git_commit(theirs, "first", env)
    lines = [
        Beside(f"{len(clips)} clips in memory to a version", stored_s + commit_s, written_s + add_s),
        Beside("  of it, the command: commit; dvc add, git commit", commit_s, add_s),
        Beside("start-up alone: --help", _run(ours, (*STOPDOWN, "--help")), _run(theirs, (dvc, "--help"))),
        Beside("is all well: verify (every byte); dvc status (times and sizes)", _verify(ours), _status(theirs, dvc, env)),
        Beside("what differs in the folder: status; dvc data status", _ours_status(ours), _data_status(theirs, dvc, env)),
    ]
    for view in (theirs / "clips").glob("*.mp4"):
        os.utime(view)  # DVC reads a file's bytes only where its time or size is another
    rehashed_s = _status(theirs, dvc, env)
    lines.append(Beside("every byte: verify; dvc status with all files touched", _verify(ours), rehashed_s))
    for folder in (ours, theirs):
        for view in sorted((folder / "clips").glob("*.mp4")):
            view.unlink()
    back = (
        _run(ours, (*STOPDOWN, "restore", ".", "latest", "--force")),
        _run(theirs, (dvc, "checkout", "-q"), env),
    )
    for folder in (ours, theirs):
        assert [file.read_bytes() for file in sorted((folder / "clips").glob("*.mp4"))] == clips
    lines.append(Beside(f"{len(clips)} lost files back: restore; dvc checkout", *back))
    lines.append(Beside("one bit flipped in the store, times kept", *_flipped(ours, theirs, dvc, env)))
    return lines


def _flipped(ours: Path, theirs: Path, dvc: Path, environment: dict[str, str]) -> tuple[str, str]:
    clip = sorted((ours / "clips").glob("*.mp4"))[7].read_bytes()
    _flip(ours / ".stopdown" / "objects" / (sha := hashlib.sha256(clip).hexdigest())[:2] / sha)
    md5 = hashlib.md5(clip, usedforsecurity=False).hexdigest()
    _flip(theirs / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:])
    verify = subprocess.run([*STOPDOWN, "verify", ".", "latest"], cwd=ours, capture_output=True)
    status = subprocess.run([dvc, "status"], cwd=theirs, env=environment, capture_output=True, text=True)
    data = subprocess.run([dvc, "data", "status"], cwd=theirs, env=environment, capture_output=True, text=True)
    clean = status.returncode == 0 and "up to date" in status.stdout and "No changes" in data.stdout
    return "found" if verify.returncode == 1 else "not found", "not found" if clean else "found"


def _flip(path: Path) -> None:
    times = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))
    path.chmod(times.st_mode & 0o777)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _repository(path: Path, dvc: Path) -> dict[str, str]:
    path.mkdir(parents=True)
    who = {"GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@b", "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@b"}
    environment = {**os.environ, **who, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(path.parent / "dvc-site")}
    _run(path, ("git", "init", "-q"))
    _run(path, (dvc, "init", "-q"), environment)
    _git_commit(path, "empty", environment)
    return environment


def _write(folder: Path, clips: Sequence[bytes]) -> None:
    folder.mkdir()
    for number, data in enumerate(clips):
        (folder / f"{number:06d}.mp4").write_bytes(data)


def _git_commit(path: Path, message: str, environment: dict[str, str]) -> float:
    return _run(path, ("git", "add", "-A"), environment) + _run(path, ("git", "commit", "-qm", message), environment)


def _verify(path: Path) -> float:
    return _run(path, (*STOPDOWN, "verify", ".", "latest"))


def _ours_status(path: Path) -> float:
    return _run(path, (*STOPDOWN, "status", "."))


def _status(path: Path, dvc: Path, environment: dict[str, str]) -> float:
    return _run(path, (dvc, "status", "-q"), environment)


def _data_status(path: Path, dvc: Path, environment: dict[str, str]) -> float:
    return _run(path, (dvc, "data", "status"), environment)


def _run(path: Path, words: Sequence[str | Path], environment: dict[str, str] | None = None) -> float:
    start = time.perf_counter()
    done = subprocess.run(words, cwd=path, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
        )
    return time.perf_counter() - start
