"""Building a dataset: which clips are yet to be rendered, rendering them, and writing what the dataset shows.

A clip is finished when its record is in the store; a build killed at any instant goes on from its records.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from generator.building.heartbeat import HeartbeatFolder, HeartbeatProgress, HeartbeatWriter
from generator.building.plan_check import concerns
from generator.building.scene_jobs import scene_jobs, spread
from generator.console.progress import Progress
from generator.errors import NoSpaceError
from generator.io.atomic import FULL
from generator.recipe.blend_file import take_in
from generator.recipe.estimate import bytes_of_truth
from generator.recipe.plan import ClipPlan, Plan
from generator.render.executable import VERSION
from generator.render.messages import WorkerSettings
from generator.render.pool import PoolOptions, RenderPool
from generator.store.objects import ClipRecord, Store
from generator.store.record_keys import clip_keys, donor_keys, recipe_truth
from generator.store.splits import SplitRatios
from generator.versions.commit import commit_build
from generator.versions.history.history import History
from generator.versions.history.locks import writing
from generator.versions.working.compare import FOLDERS, LABELS
from generator.versions.working.curation import shown_curation
from generator.versions.working.status import status
from generator.versions.working.working_folder import (
    INTERNAL,
    build_lock,
    check_target,
    create_or_resume,
    difference,
    finish,
    retarget,
    same_recipe,
    stored_plan,
)
from scenes.errors import InputError

SUPPORTED = {(3, 11): "5.0", (3, 13): "5.2"}  # Blender publishes one wheel per Python version

LOGS = "logs"

# What a clip takes on the disk, with room to spare: an H.264 pixel at CRF 12, PNG and half-float EXR pixels, and the rest.
VIDEO_BYTES_PER_PIXEL = 0.06
STILL_BYTES_PER_PIXEL = {"png": 1.5, "exr": 5.0}
BYTES_PER_CLIP = 16_384
BYTES_PER_DATASET = 2**20


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did: clips of the plan, rendered now, finished before, failed (message by clip id), and what it cost.

    `curation` says what it kept of a curated version, clips left out of the plan and edited captions; empty where nothing was.
    """

    path: Path
    clips: int
    rendered: int
    reused: int
    failed: dict[str, str]
    cpu_s: float
    wall_s: float
    version: str | None = None
    curation: str = ""

    @property
    def complete(self) -> bool:
        """Whether every clip is there; only then the dataset is finished."""
        return not self.failed


def build(
    plan: Plan,
    path: Path,
    *,
    workers: int,
    threads: int,
    progress: Progress,
    recycle_clips: int = 500,
    silence_s: float = 1800.0,
    message: str | None = None,
    recipe_folder: Path | None = None,
) -> BuildReport:
    """Render what a plan lacks in a folder, with `workers` processes of `threads` threads, and finish the dataset.

    A finished dataset is committed as a version, unless `message` is None. `recipe_folder` is where the recipe lies, and its
    [scene] file if it has one: the dataset keeps a copy. A folder whose last build was committed may get another recipe of the
    same name: clips that both imply are not rendered again. What a person removed from the version that the folder shows is not
    rendered, and captions that they edited stay. Clips that fail twice are in the report; then
    the dataset stays unfinished, and the same call tries them again. Raises InputError for a folder, a disk or a Blender that
    cannot be used, and for edits that are not committed, NoSpaceError when the disk fills up on the way.
    """
    if workers < 1 or threads < 1:
        raise InputError(f"{workers} workers of {threads} threads; give at least one of each")
    start_s = time.monotonic()
    blender = blender_version()
    whole = plan
    resumed = not replaces_committed(path, plan) and check_target(path, plan)
    plan = shown_curation(path).of(whole)
    if not resumed:
        _check_space(plan, plan.clips, path)
    options = PoolOptions(workers=workers, recycle_clips=recycle_clips, silence_s=silence_s)
    try:
        with build_lock(path), writing(path / INTERNAL):
            replaces = replaces_committed(path, whole)
            kept = shown_curation(path).within(whole)
            plan = kept.of(whole)
            if replaces:
                retarget(path, plan)
            take_in(plan.recipe, recipe_folder, path / INTERNAL)
            splits = None if message is None else History(path).split_ratios()
            report = _build(plan, path, blender, threads, options, progress, splits)
            if report.complete and message is not None:
                version = commit_build(History(path), plan, _records(plan, path, blender), message)
                report = replace(report, version=version.id)
    except OSError as error:
        if error.errno in FULL:
            raise NoSpaceError(
                f"{error.strerror} at {path}; free some space and run the same command again to go on"
            ) from error
        raise
    return replace(report, wall_s=time.monotonic() - start_s, curation=kept.words() if kept else "")


def replaces_committed(path: Path, plan: Plan) -> bool:
    """Return whether a folder shows a committed version of another recipe of the same name, with nothing uncommitted in it.

    Raises InputError where something is uncommitted; of a version of the same recipe, where labels or captions were edited.
    """
    earlier = stored_plan(path)
    if earlier is None or (earlier.digest != plan.digest and earlier.name != plan.name):
        return False
    history = History(path)
    if history.refs.head() is None:
        return False
    if earlier.digest == plan.digest:
        _refuse_edits(history)
        return False
    if same_recipe(earlier.recipe, plan.recipe):
        raise InputError(
            f"{path} is this recipe's dataset with other scenes ({difference(earlier.recipe, plan.recipe)}); "
            "build into another folder"
        )
    state = status(history)
    if not state.clean:
        changed = state.differences[0].path if state.differences else "an interrupted build or restore"
        raise InputError(
            f"{path} has what no version holds ({changed}); commit it or `stopdown restore` a version before another recipe "
            f"({difference(earlier.recipe, plan.recipe)}) is built there"
        )
    return True


def _refuse_edits(history: History) -> None:
    """Raise InputError where a finished folder holds words that a person wrote and a build would write over."""
    state = status(history)
    edited = [found.path for found in state.differences if found.kind == "changed" and found.path.endswith((LABELS, ".txt"))]
    if edited and not state.other_plan and state.restoring is None and (history.path / LABELS).is_file():
        more = f" and {len(edited) - 1} more" if len(edited) > 1 else ""
        raise InputError(
            f"{history.path} has edits that no version holds ({edited[0]}{more}); "
            "keep them with `stopdown commit`, or drop them with `stopdown restore --force`"
        )


def blender_version() -> str:
    """Return the version of the Blender that renders, without loading it; raises InputError where there is none that fits.

    It is the program that the environment names (`generator.render.executable`) or else the installed bpy.
    """
    try:
        installed = os.environ.get(VERSION) or (importlib.metadata.version("bpy") if importlib.util.find_spec("bpy") else None)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    return fitting_blender((sys.version_info.major, sys.version_info.minor), installed)


def fitting_blender(python: tuple[int, int], installed: str | None) -> str:
    """Return the installed version of bpy (None: not installed) if Stopdown renders with it; raises InputError."""
    series = SUPPORTED.get(python)
    if series is None:
        allowed = " and ".join(f"{major}.{minor} (bpy {bpy})" for (major, minor), bpy in SUPPORTED.items())
        raise InputError(
            f"there is no Blender for Python {python[0]}.{python[1]}; rendering works on Python {allowed}: "
            'make an environment with one of them and run `pip install "stopdown[render]"` there'
        )
    if installed is None:
        raise InputError('Blender (the bpy package) is not installed; run `pip install "stopdown[render]"`')
    if not installed.startswith(f"{series}."):
        raise InputError(
            f"bpy {installed} is installed; on Python {python[0]}.{python[1]} Stopdown renders with bpy {series}.x: "
            'run `pip install --upgrade "stopdown[render]"`'
        )
    return installed


def _build(
    plan: Plan,
    path: Path,
    blender: str,
    threads: int,
    options: PoolOptions,
    progress: Progress,
    splits: SplitRatios | None,
) -> BuildReport:
    sweep_temporaries(path)
    store = create_or_resume(path, plan)
    keys = clip_keys(plan, blender)
    records = {clip_id: record for clip_id, key in keys.items() if (record := store.finished(key)) is not None}
    pending = [clip for clip in plan.clips if clip.clip_id not in records]
    reused = len(records)
    failed: dict[str, str] = {}
    cpu_s = 0.0
    if pending:
        _check_space(plan, pending, path)
        settings = WorkerSettings(
            store=store.root, render=plan.recipe.render, video=plan.recipe.video, threads=threads, blender=blender
        )
        failed, cpu_s = _render(plan, pending, keys, settings, options, progress)
        rendered = {clip.clip_id for clip in pending} - failed.keys()
        records |= {clip_id: _record(store, keys[clip_id]) for clip_id in rendered}
    if not failed:
        finish(path, plan, records, splits=splits)
    return BuildReport(
        path=path,
        clips=len(plan.clips),
        rendered=len(records) - reused,
        reused=reused,
        failed={clip.clip_id: failed[clip.clip_id] for clip in plan.clips if clip.clip_id in failed},
        cpu_s=cpu_s,
        wall_s=0.0,
    )


def _render(
    plan: Plan,
    pending: Sequence[ClipPlan],
    keys: dict[str, str],
    settings: WorkerSettings,
    options: PoolOptions,
    progress: Progress,
) -> tuple[dict[str, str], float]:
    """Render clips; return the messages of those that failed, and the CPU seconds of the others."""
    history = History(settings.store.parent)
    head = history.refs.head()
    others = () if head is None else tuple(recipe_truth(recipe) for recipe in history.load(head).recipes)
    donors = donor_keys(plan, settings.blender, others)
    jobs = spread(scene_jobs(plan, pending, keys, settings.blender, donors), options.workers)
    options = replace(options, workers=min(options.workers, len(jobs)))
    seconds: list[float] = []

    def on_done(clip_id: str, cpu_s: float) -> None:
        seconds.append(cpu_s)
        writer.done(clip_id, cpu_s)

    with HeartbeatWriter(
        HeartbeatFolder(settings.store), "build", "build", slots=options.workers, blender=settings.blender
    ) as writer:
        progress = HeartbeatProgress(progress, writer)
        progress.start(len(plan.clips), len(plan.clips) - len(pending))
        try:
            for words in concerns(plan):
                progress.note(words)
            with RenderPool(settings, options, settings.store / LOGS, progress) as pool:
                failed = pool.run(jobs, on_done)
        finally:
            progress.close()
    return failed, sum(seconds)


def _records(plan: Plan, path: Path, blender: str) -> dict[str, ClipRecord]:
    store = Store(path / INTERNAL)
    return {clip_id: _record(store, key) for clip_id, key in clip_keys(plan, blender).items()}


def _record(store: Store, key: str) -> ClipRecord:
    record = store.finished(key)
    assert record is not None, f"the render process reported clip {key} done, but its record is not in the store"
    return record


def sweep_temporaries(path: Path) -> None:
    """Remove temporary files and logs that a killed build left in a dataset; call it only while holding the build lock."""
    places = (path.glob(".tmp-*"), *((path / name).rglob(".tmp-*") for name in FOLDERS))
    for leftover in chain.from_iterable(places):
        leftover.unlink(missing_ok=True)
    Store(path / INTERNAL).sweep_temporaries()
    shutil.rmtree(path / INTERNAL / LOGS, ignore_errors=True)


def _check_space(plan: Plan, clips: Sequence[ClipPlan], path: Path) -> None:
    """Raise InputError where the disk has no room for clips and the ground truth of their scenes."""
    video = plan.recipe.video
    per_pixel = VIDEO_BYTES_PER_PIXEL + sum(STILL_BYTES_PER_PIXEL[kind] for kind in video.keep_frames)
    frames = sum(clip.frames for clip in clips)
    scenes = {clip.scene_id: clip.frames for clip in clips}
    truth = 2 * sum(bytes_of_truth(plan.recipe, length) for length in scenes.values())  # twice: textures compress worst
    needed = int(frames * video.width * video.height * per_pixel + truth) + BYTES_PER_CLIP * len(clips) + BYTES_PER_DATASET
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"no space for {len(clips)} clips at {path}: about {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free; "
            "free some space or choose another disk"
        )
