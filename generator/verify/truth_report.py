"""The part of `verify` that proves ground truth: every file's hash, then every measure of every scene against its bar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from generator.errors import DamagedError
from generator.store.objects import ClipRecord
from generator.truth.read_truth import TruthReader
from generator.truth.truth_names import FOLDER, truth_files
from generator.verify.findings import Problem, TruthCheck
from generator.verify.truth_measures import MEASURES, TruthAtHand
from generator.versions.working.working_folder import WorkingFolder
from scenes.errors import StopdownError


def verify_truth(dataset: WorkingFolder, records: Mapping[str, ClipRecord]) -> tuple[tuple[TruthCheck, ...], list[Problem]]:
    """Return the worst of every measure over all scenes, and what is wrong; `records` are by clip id."""
    problems: list[Problem] = []
    worst: dict[str, tuple[float, str]] = {}
    counts: dict[str, int] = {}
    for scene in dataset.plan.scenes:
        owners = [records[clip_id] for clip_id in scene.clip_ids if clip_id in records]
        if not owners:
            continue
        files = truth_files(owners[0].frames.items())
        damaged = list(_file_problems(dataset, scene.scene_id, files))
        if any(truth_files(other.frames.items()) != files for other in owners[1:]):
            damaged.append(_problem(scene.scene_id, "clips of the scene have different truth; build it again"))
        problems += damaged
        if damaged:
            continue
        try:
            reader = TruthReader(files, dataset.store.read, f"scene {scene.scene_id}")
            truth = TruthAtHand(reader, scene.spec, flat=dataset.plan.recipe.render.fidelity == "flat")
            for name, (measure, unit, bar, words) in MEASURES.items():
                value = measure(truth)
                if value is None:
                    continue
                counts[name] = counts.get(name, 0) + 1
                if name not in worst or value > worst[name][0]:
                    worst[name] = value, scene.scene_id
                if not value <= bar:
                    problems.append(_problem(scene.scene_id, f"truth: {words} to {value:.3g} {unit}, the bar is {bar:g}"))
        except StopdownError as error:
            problems.append(_problem(scene.scene_id, f"truth cannot be read: {error}"))
    checks = tuple(
        TruthCheck(name=name, unit=unit, worst=worst[name][0], bar=bar, scene_id=worst[name][1], scenes=counts[name])
        for name, (_, unit, bar, _) in MEASURES.items()
        if name in worst
    )
    return checks, problems


def _file_problems(dataset: WorkingFolder, scene_id: str, files: Mapping[str, str]) -> Iterator[Problem]:
    folder = dataset.path / FOLDER / scene_id
    if not files:
        yield _problem(scene_id, "the recipe asks for truth, the store has none of this scene; build it again")
    for path, digest in files.items():
        view = folder / path
        try:
            dataset.store.verified(digest)
        except DamagedError as error:
            yield _problem(scene_id, f"truth/{path}: {error}")
            continue
        if not view.is_file():
            yield _problem(scene_id, f"{FOLDER}/{scene_id}/{path} is missing")
        elif not view.samefile(dataset.store.path(digest)) and hashlib.sha256(view.read_bytes()).hexdigest() != digest:
            yield _problem(scene_id, f"{FOLDER}/{scene_id}/{path} does not match its sha256; is it of another version?")
    for view in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if view.is_file() and str(view.relative_to(folder)) not in files:
            yield _problem(scene_id, f"{FOLDER}/{scene_id}/{view.relative_to(folder)} belongs to no truth of this version")


def _problem(scene_id: str, message: str) -> Problem:
    return Problem(kind="truth", where=scene_id, message=message)
