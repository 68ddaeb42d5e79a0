"""diffusion-pipe: folders of clips with captions beside them, and its dataset.toml.

Layout from its examples/dataset.toml. With a control preset, the layout that the method's research code (a fork of it) reads:
under each `[[directory]]` one sub-folder per control, named by the number, several controls joined by `_`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType

from generator.export.base import Exporter, Job, Row, media_file
from generator.export.entries import Entry, TextFile
from generator.export.presets import CONTROL_PRESETS, written
from generator.export.text import toml_lines
from scenes.axes import AXES
from scenes.errors import InputError

FLAT = "flat"
MODEL_FPS = 16  # Wan's; diffusion-pipe counts frames at the frame rate of the model


def _entries(job: Job) -> Iterator[Entry]:
    if job.options.preset == FLAT:
        for row in job.rows:
            yield from _clip(row, "clips")
        yield TextFile(path="dataset.toml", data=_config(job, job.rows, ["clips"]))
        return
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in job.rows:
        axes = _axes(job, row)
        layer = f"{'+'.join(axes)}/{row['layer']}s{row['frames']}f"
        groups.setdefault("+".join(axes), {}).setdefault(layer, []).append(row)
        yield from _clip(row, f"{layer}/{_folder(job, row, axes)}")
    for name, layers in groups.items():
        rows = tuple(row for part in layers.values() for row in part)
        yield TextFile(path=f"dataset_{name}.toml", data=_config(job, rows, sorted(layers)))


def _clip(row: Row, folder: str) -> Iterator[Entry]:
    yield media_file(row, folder)
    yield TextFile(path=f"{folder}/{row['clip_id']}.txt", data=row["caption"].encode() + b"\n")


def _axes(job: Job, row: Row) -> tuple[str, ...]:
    return tuple(axis for axis in job.source.origin.axes if row[f"{axis}_control"] is not None)


def _folder(job: Job, row: Row, axes: tuple[str, ...]) -> str:
    preset = CONTROL_PRESETS[job.options.preset or ""]
    scalars = [preset.scalar(axis, row[AXES[axis].column], row[f"{axis}_control"]) for axis in axes]
    if not all(math.isfinite(scalar) for scalar in scalars):
        raise InputError(f"clip {row['clip_id']} has a label that the preset '{job.options.preset}' cannot write as a number")
    return "_".join(written(scalar) for scalar in scalars)


def _config(job: Job, rows: tuple[Row, ...], folders: list[str]) -> bytes:
    shapes = sorted({(row["width"], row["height"]) for row in rows})
    lines = [
        "# diffusion-pipe dataset, written by stopdown export. Paths are relative to the folder that training is started in.",
        *toml_lines(
            {
                "resolutions": [list(shape) for shape in shapes],
                "enable_ar_bucket": True,
                "ar_buckets": [list(shape) for shape in shapes],
            }
        ),
        "# Two buckets per clip length: newer diffusion-pipe counts frames exactly; older ones and the method's research code",
        "# take the duration in hundredths of a second, count a 9-frame clip at 16 fps as 8, and drop what no bucket takes.",
        *toml_lines({"frame_buckets": _frame_buckets(rows)}),
    ]
    for folder in folders:
        lines += ["", "[[directory]]", *toml_lines({"path": job.place(folder), "num_repeats": 1})]
    return "\n".join([*lines, ""]).encode()


def _frame_buckets(rows: tuple[Row, ...]) -> list[int]:
    buckets = {1}
    for frames, fps in {(row["frames"], row["fps"]) for row in rows if row["frames"] > 1}:
        hundredths = frames * 100 // fps
        buckets |= {frames * MODEL_FPS // fps, MODEL_FPS * hundredths // 100}
    return sorted(buckets)


def _usage(job: Job) -> str:
    config = "dataset.toml" if job.options.preset == FLAT else "dataset_AXES.toml"
    return f"set dataset = '{job.place(config)}' in diffusion-pipe's training file and start it in this folder"


DIFFUSION_PIPE = Exporter(
    summary="clips with captions and a dataset.toml; with a control preset, folders named by the control",
    entries=_entries,
    usage=_usage,
    presets=MappingProxyType(
        {
            FLAT: "one folder of clips, no control",
            **{name: f"folders named by the control, {preset.summary}" for name, preset in CONTROL_PRESETS.items()},
        }
    ),
)
