"""The work that is killed: every command that writes a dataset, over small ones with random bytes in the place of videos.

The trainer's are in `kill_cases_trainer.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from kills import Case
from squares import build as build_squares
from versions_support import PLAN, built, changed, commit_clips, make_clips, origin, references, table, without, write_folder

from generator.export import EXPORTS
from generator.remotes.base import RemoteOptions, open_remote
from generator.versions.check import check
from generator.versions.commit import commit, extend
from generator.versions.gc import gc
from generator.versions.history.history import History
from generator.versions.sync.pull import clone
from generator.versions.sync.push import push
from generator.versions.working.restore import restore
from generator.versions.working.status import status

BUILD_RECIPE = """
name = "killed"
seed = 3
[video]
width = 64
height = 64
keep_frames = ["png"]
[render]
samples = 4
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [2]
scenes_per_layer = 1
frames = [1]
"""
SAMPLED = ("videofolder", "webdataset", "lance", "diffusion-pipe")  # links, shards, a table, clips encoded again


def dataset(path: Path) -> Path:
    """Make a dataset of two versions that differ in every kind of file; the second is shown. Some clips have frames."""
    history, clips, _ = built(path / "ds", 5, lossless=True)
    ids = list(clips)
    later = changed(without({**clips, **make_clips(history.store, 2, seed=5)}, ids[0]), ids[2], caption="new words")
    plan = '{"clips":[],"recipe":{"name":"second","render":{"samples":8}}}'
    files = {"README.md": b"# 2\n", "card.json": b"{}"}
    commit(history, table(later), references(later), origin("second", files=files, plan=plan))
    restore(history, "latest")
    return path / "ds"


def curated(path: Path) -> None:
    """Edit a caption and delete a clip."""
    ds = dataset(path)
    captions = sorted((ds / "clips").glob("*.txt"))
    captions[0].write_text("my words\n")
    captions[1].with_suffix(".mp4").unlink()


def uncommitted(path: Path) -> None:
    """Make a finished folder without a version."""
    history = History(path / "ds")
    write_folder(path / "ds", make_clips(history.store, 4, lossless=True))


def littered(path: Path) -> None:
    """Leave objects, a version and temporaries that nothing names."""
    ds = dataset(path)
    history = History(ds)
    for number in range(4):
        history.store.put(f"garbage {number}".encode())
    make_clips(history.store, 2, seed=9)
    (ds / ".stopdown" / "objects" / ".tmp-left").write_bytes(b"half")
    (ds / "clips" / ".tmp-7-left").write_bytes(b"half")


def remote(path: Path) -> None:
    """Make a dataset with tags, and an empty folder for a remote."""
    (path / "remote").mkdir()
    history = History(dataset(path))
    history.tag("v1", "latest~1")
    history.tag("v2")


def behind(path: Path) -> None:
    """Make a dataset, and a clone that lacks its last two versions."""
    remote(path)
    history = History(path / "ds")
    push(history, open_remote(str(path / "remote"), RemoteOptions()))
    clone(open_remote(str(path / "remote"), RemoteOptions()), path / "clone")
    for seed in (21, 22):
        clips = make_clips(history.store, 2, seed=seed, lossless=True)
        extend(history, table(clips), references(clips), origin(f"more {seed}"))
    history.tag("v2", move=True, ref="latest")
    push(history, open_remote(str(path / "remote"), RemoteOptions()))


def ahead(path: Path) -> None:
    """Make a dataset with more versions than its remote."""
    remote(path)
    history = History(path / "ds")
    push(history, open_remote(str(path / "remote"), RemoteOptions()))
    clips = make_clips(history.store, 2, seed=21, lossless=True)
    extend(history, table(clips), references(clips), origin("more"))
    restore(history, "latest")
    history.tag("v2", move=True, ref="latest")


def littered_and_pushed(path: Path) -> None:
    """Leave what nothing names in a dataset that has a remote."""
    littered(path)
    (path / "remote").mkdir()
    push(History(path / "ds"), open_remote(str(path / "remote"), RemoteOptions()))


def two(path: Path) -> None:
    """Make two datasets to merge."""
    dataset(path)
    history, clips, _ = built(path / "other", 4, seed=1, lossless=True)
    plan = PLAN.replace('"samples":4', '"samples":16')
    commit_clips(history, clips, "same")
    commit(history, table(clips), references(clips), origin("other", plan=plan))


def tagged(path: Path) -> None:
    """Make a dataset with a tag."""
    History(dataset(path)).tag("named", "latest~1")


def squares(path: Path) -> None:
    """Make a dataset of real videos, as exports read it."""
    build_squares(path / "ds")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shown(folder: Path) -> dict[str, Any]:
    """Return what a person sees of a dataset: of the labels their rows, of the rest the bytes."""
    files = [file for file in folder.rglob("*") if file.is_file() and ".stopdown" not in file.parts]
    found: dict[str, Any] = {str(file.relative_to(folder)): digest(file) for file in files if ".tmp-" not in file.name}
    if (folder / "labels.parquet").is_file():
        found["labels.parquet"] = pq.read_table(folder / "labels.parquet").to_pylist()
    return found


def history_of(folder: Path, *, working: bool = True) -> dict[str, Any]:
    """Return all that a dataset holds, collected: versions, objects, files, what `verify --all` and `status` say."""
    history = History(folder)
    if working:
        found = {"shown": shown(folder), "clean": status(history, thorough=True).clean}
    else:
        found = {}
    found["damages"] = [damage for damage in check(history).damages if working or damage.kind != "working"]
    gc(history, grace_s=0)
    found["temporaries"] = [str(path.relative_to(folder)) for path in folder.rglob(".tmp-*")]
    found["log"] = [version.id for version in history.log()]
    found["tags"] = {name: tag.version for name, tag in history.refs.tags().items()}
    found["objects"] = list(history.store.objects())
    found["records"] = sorted(path.name for path in (history.root / "records").rglob("*.json"))
    plan = history.root / "plan.json"
    found["plan"] = digest(plan) if plan.is_file() else None
    return found


def outcome_of(*names: str, bare: bool = False) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {name: history_of(folder / name, working=not bare) for name in names}


def whole(*names: str) -> Callable[[Path], list[str]]:
    """Return a check that nothing committed is hurt: damages of anything but the working folder, and a `status` that fails."""

    def sound(folder: Path) -> list[str]:
        found = []
        for name in names:
            if not (folder / name / ".stopdown").is_dir():
                continue
            history = History(folder / name)
            begun = history.refs.head() is not None
            damages = check(history).damages if begun else ()
            found += [f"{name}: {damage.path} {damage.message}" for damage in damages if damage.kind not in ("working", "plan")]
            status(history)
        return found

    return sound


def exported(folder: Path) -> dict[str, Any]:
    """Return every file of an export; of a Lance table, whose files have random names, its rows."""
    found: dict[str, Any] = {}
    for file in sorted((folder / "out").rglob("*")):
        if file.is_file() and not any(part.endswith(".lance") for part in file.parts):
            found[file.relative_to(folder / "out").as_posix()] = digest(file) if file.name != ".stopdown-export.json" else None
    for lance_table in (folder / "out").rglob("*.lance"):
        import lance

        if lance_table.is_dir() and (lance_table / "data").is_dir():
            found[lance_table.name] = lance.dataset(str(lance_table)).to_table().to_pylist()
    found["source"] = shown(folder / "ds")
    return found


def commands() -> list[Case]:
    """Return the commands over versions."""
    ds = outcome_of("ds")
    return [
        Case(name="commit", prepare=curated, words=["commit", "{}/ds", "-m", "mine"], outcome=ds, sound=whole("ds")),
        Case(name="commit first", prepare=uncommitted, words=["commit", "{}/ds", "-m", "one"], outcome=ds, sound=whole("ds")),
        Case(name="restore", prepare=remote, words=["restore", "{}/ds", "v1"], outcome=ds, sound=whole("ds")),
        Case(
            name="restore --force",
            prepare=curated,
            words=["restore", "{}/ds", "latest~1", "--force"],
            outcome=ds,
            sound=whole("ds"),
        ),
        Case(name="gc", prepare=littered, words=["gc", "{}/ds", "--grace", "0"], outcome=ds, sound=whole("ds")),
        Case(
            name="push",
            prepare=remote,
            words=["push", "{}/ds", "{}/remote"],
            outcome=lambda folder: {**ds(folder), **outcome_of("remote", bare=True)(folder)},
            sound=whole("ds", "remote"),
        ),
        Case(
            name="pull",
            prepare=behind,
            words=["pull", "{}/clone", "{}/remote"],
            outcome=outcome_of("clone"),
            sound=whole("clone"),
        ),
        Case(
            name="clone",
            prepare=behind,
            words=["clone", "{}/remote", "{}/new"],
            outcome=outcome_of("new"),
            sound=whole("new"),
            refused="is a dataset already",
        ),
        Case(name="merge", prepare=two, words=["merge", "{}/ds", "{}/other"], outcome=ds, sound=whole("ds", "other")),
        Case(name="tag", prepare=tagged, words=["tag", "{}/ds", "new"], outcome=ds, sound=whole("ds")),
        Case(name="tag --force", prepare=tagged, words=["tag", "{}/ds", "named", "--force"], outcome=ds, sound=whole("ds")),
    ]


def stored() -> list[Case]:
    """Return the commands over remotes, with these in S3; gc never touches a bucket."""
    cases = {case.name: case for case in commands()}
    found = [replace(cases["push"], long_only=False), *(replace(cases[name], long_only=True) for name in ("pull", "clone"))]
    both = outcome_of("ds"), outcome_of("remote", bare=True)
    words = ["{}/ds", "{}/remote"]
    found += [
        Case(
            name="push more",
            prepare=ahead,
            words=["push", *words],
            outcome=lambda folder: {**both[0](folder), **both[1](folder)},
            sound=whole("ds", "remote"),
            long_only=True,
        ),
        Case(
            name="push large",
            prepare=remote,
            words=words,
            work="stored_work:push_in_parts",
            outcome=lambda folder: {**both[0](folder), **both[1](folder)},
            sound=whole("ds", "remote"),
            long_only=True,
        ),
        Case(
            name="gc after push",
            prepare=littered_and_pushed,
            words=["gc", "{}/ds", "--grace", "0"],
            outcome=lambda folder: {**both[0](folder), **both[1](folder)},
            sound=whole("ds", "remote"),
            long_only=True,
        ),
    ]
    return [
        replace(
            case,
            name=f"{case.name}, S3",
            words=[word.replace("{}/remote", "{s3}") for word in case.words],
            stored=True,
        )
        for case in found
    ]


def a_recipe(path: Path) -> None:
    """Write a recipe of two stills."""
    (path / "recipe.toml").write_text(BUILD_RECIPE)


def builds() -> list[Case]:
    """Return a build by a real Blender, which takes seconds a kill: `make test` has `test_kill.py` for it."""
    words = ["build", "{}/recipe.toml", "--out", "{}/ds", "--workers", "1"]
    return [Case(name="build", prepare=a_recipe, words=words, outcome=outcome_of("ds"), sound=whole("ds"), long_only=True)]


def exports() -> list[Case]:
    """Return an export of every format."""
    return [
        Case(
            name=f"export {format}",
            prepare=squares,
            words=["export", "{}/ds", format, "{}/out", *(["--copy"] if number % 2 else []), *pairs],
            outcome=exported,
            long_only=format not in SAMPLED,
        )
        for number, (format, exporter) in enumerate(EXPORTS.items())
        for pairs in [["--pairs", "still"] if exporter.takes_pairs else []]
        if not exporter.needs_truth
    ]
