"""The record beside every video: what made it, and whether a video that is there is the one asked for.

NAME.mp4, NAME.json. The record is written first: a video without its record is a stranger's and is never replaced unasked,
a record without its video is one that was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from generator.io.atomic import write_atomic
from generator.io.checksummed_json import canonical, checksummed_text, parse_checksummed_text, sha256
from generator.media.video import encode, encoder_version
from scenes.arrays import Bytes
from scenes.errors import InputError
from trainer.adapters.card import installed_versions
from trainer.adapters.saved import SavedAdapter
from trainer.control.curve import Control, ControlCurve
from trainer.control.laws import AxisControl, NoLaw
from trainer.generation.plan import PlannedVideo, Point
from trainer.generation.sampler import Sampling

CRF, PRESET = 12, "medium"  # as the datasets'


class State(Enum):
    """What lies in the folder under a video's name."""

    ABSENT = "to make"
    FINISHED = "finished before"
    OTHER = "made with other settings"
    STRANGE = "without a record that can be read"
    CHANGED = "changed since it was made"


def video_recipe(
    video: PlannedVideo, sampling: Sampling, fps: int, source: Mapping[str, Any], axes: tuple[AxisControl, ...]
) -> dict[str, Any]:
    """Return all that decides a video's pixels; `source` is what its whole run shares (`run_source`)."""
    return {
        "prompt": video.prompt,
        "negative": video.negative,
        "seed": video.seed,
        "mode": video.mode,
        "strength": video.strength,
        "controls": controls_tree(video.point),
        "values": {axis.name: _value(axis, video.point[axis.name]) for axis in axes},
        "sampling": _sampling_words(sampling),
        "fps": fps,
        "encoder": {"codec": "h264", "crf": CRF, "preset": PRESET},
        **source,
    }


def _sampling_words(sampling: Sampling) -> dict[str, Any]:
    """Return how a video is sampled; a control guidance of 1 goes unsaid, as in records from before there was one."""
    words = asdict(sampling)
    if sampling.control_guidance == 1:
        del words["control_guidance"]
    return words


def run_source(
    *,
    backbone: str,
    fingerprints: Mapping[str, str],
    adapter: SavedAdapter,
    scheduler: Mapping[str, Any],
    dtype: str,
    quantize: str,
) -> dict[str, Any]:
    """Return the part of a recipe that all videos of a run share: backbone, adapter, scheduler, number format."""
    return {
        "backbone": {"id": backbone, "fingerprints": dict(fingerprints)},
        "adapter": {
            "digest": adapter.digest,
            "step": adapter.card.step,
            "dataset_version": adapter.card.dataset_version,
        },
        "scheduler": json.loads(json.dumps(dict(scheduler), sort_keys=True, default=str)),
        "dtype": dtype,
        "quantize": quantize,
    }


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """Return the sha256 of a video's recipe."""
    return sha256(canonical(dict(recipe)))


def state_of(folder: Path, name: str, digest: str) -> State:
    """Say what lies in a folder under a video's name, given the digest of the recipe asked for."""
    video, record = folder / f"{name}.mp4", read_record(folder, name)
    if not video.exists():
        return State.ABSENT if record is None or record.get("digest") == digest else State.OTHER
    if record is None:
        return State.STRANGE
    if record.get("digest") != digest:
        return State.OTHER
    return State.FINISHED if sha256(video.read_bytes()) == record.get("sha256") else State.CHANGED


def read_record(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a video's record, None where there is none, it cannot be read, or it is not as it was written.

    Records of before have no checksum; of those the recipe is verified by its digest.
    """
    try:
        record = parse_checksummed_text((folder / f"{name}.json").read_bytes(), optional=True)
        return record if record["digest"] == recipe_digest(record["recipe"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse(folder: Path, name: str, state: State, recipe: Mapping[str, Any]) -> InputError:
    """Return the error for a video that would be overwritten, naming what differs."""
    record = read_record(folder, name) if state is State.OTHER else None
    words = "; ".join(differences((record or {}).get("recipe", {}), recipe)[:2])
    return InputError(
        f"{folder / name}.mp4 is there, {state.value}{f' ({words})' if words else ''}; choose another --out, or replace it "
        "with --force"
    )


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Return what differs between two recipes, as words (`sampling.steps 30, now 50`)."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*now, *(key for key in before if key not in now)]
        return [words for key in keys for words in differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))]
    if before == now:
        return []
    return [f"{path} {_short(before)}, now {_short(now)}"]


def write_video(folder: Path, video: PlannedVideo, recipe: Mapping[str, Any], frames_THW3: Bytes, fps: int) -> dict[str, Any]:
    """Write a video and its record, each whole or not at all; returns the record."""
    data = encode(frames_THW3, fps, CRF, PRESET)
    record = {
        "video": f"{video.name}.mp4",
        "digest": recipe_digest(recipe),
        "sha256": sha256(data),
        "recipe": dict(recipe),
        "versions": installed_versions() | {"encoder": encoder_version()},
    }
    (folder / f"{video.name}.mp4").unlink(missing_ok=True)  # a replaced one must not stand beside the new record
    write_atomic(folder / f"{video.name}.json", checksummed_text(record))
    write_atomic(folder / f"{video.name}.mp4", data)
    return record


def write_json(path: Path, tree: Any) -> None:
    """Write JSON for people and machines, whole or not at all."""
    write_atomic(path, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def controls_tree(point: Point) -> dict[str, Any]:
    """Return the controls of a video for JSON: numbers, and the knots [[seconds, control], ...] of curves."""
    return {
        name: [list(knot) for knot in control.knots] if isinstance(control, ControlCurve) else control
        for name, control in point.items()
    }


def _value(axis: AxisControl, control: Control) -> float | list[list[float]] | None:
    """Return the value in the axis's unit, or the knots of a curve with it; None where the law has no unit."""
    if isinstance(axis.law, NoLaw):
        return None
    if isinstance(control, ControlCurve):
        return [[time_s, axis.law.value(at)] for time_s, at in control.knots]
    return axis.law.value(control)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
