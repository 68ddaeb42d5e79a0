"""diffusion-pipe: folders of clips with captions beside them, and its dataset.toml.

Layout from its examples/dataset.toml. With a control preset, the layout that the method's research code (a fork of it) reads:
under each `[[directory]]` one sub-folder per control, named by the number, several controls joined by `_`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType

from generator.export.as_read import MODEL_FPS, resampled_frames, size_notes
from generator.export.base import Exporter, ExportJob, Row, media_file
from generator.export.files.entries import Entry, LongerClipFile, TextFile
from generator.export.files.text import toml_lines
from generator.export.presets import CONTROL_PRESETS, written
from scenes.axes import AXES
from scenes.errors import InputError

FLAT = "flat"


def _entries(job: ExportJob) -> Iterator[Entry]:
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
    """Yield a clip and its caption; one of several frames has its last frame once more, which every reader cuts off again.

    Older readers lose a frame to rounding and then floor what is left to 4n+1: 5 frames would be 1, and 9 be 5.
    """
    if row["frames"] > 1:
        path = f"{folder}/{row['clip_id']}.mp4"
        yield LongerClipFile(path=path, clip_id=row["clip_id"], sha256=row["sha256_bytes"], fps=row["fps"])
    else:
        yield media_file(row, folder)
    yield TextFile(path=f"{folder}/{row['clip_id']}.txt", data=row["caption"].encode() + b"\n")


def _axes(job: ExportJob, row: Row) -> tuple[str, ...]:
    return tuple(axis for axis in job.source.origin.axes if row[f"{axis}_control"] is not None)


def _folder(job: ExportJob, row: Row, axes: tuple[str, ...]) -> str:
    preset = CONTROL_PRESETS[job.options.preset or ""]
    scalars = [preset.scalar(axis, row[AXES[axis].column], row[f"{axis}_control"]) for axis in axes]
    if not all(math.isfinite(scalar) for scalar in scalars):
        raise InputError(f"clip {row['clip_id']} has a label that the preset '{job.options.preset}' cannot write as a number")
    return "_".join(written(scalar) for scalar in scalars)


def _config(job: ExportJob, rows: tuple[Row, ...], folders: list[str]) -> bytes:
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
        "# Every video has its last frame once more, and each reader cuts it off: older diffusion-pipe and the method's",
        "# research code take the duration in hundredths of a second, lose a frame to that, and floor the rest to 4n+1.",
        *toml_lines({"frame_buckets": _frame_buckets(rows)}),
    ]
    for folder in folders:
        lines += ["", "[[directory]]", *toml_lines({"path": job.place(folder), "num_repeats": 1})]
    return "\n".join([*lines, ""]).encode()


def _frame_buckets(rows: tuple[Row, ...]) -> list[int]:
    return sorted({1, *(read for read in _as_read(rows).values() if read > 1)})


def _as_read(rows: tuple[Row, ...]) -> dict[tuple[int, int], int]:
    """Return by frame count and rate how many frames are read of a clip with one frame more."""
    kinds = sorted({(row["frames"], row["fps"]) for row in rows if row["frames"] > 1})
    return {(frames, fps): resampled_frames(frames + 1, fps) for frames, fps in kinds}


def _notes(job: ExportJob) -> tuple[str, ...]:
    lines = []
    for (frames, fps), read in _as_read(job.rows).items():
        if read != frames:
            kept = f"{read} are left" if read > 1 else "too few are left, and the clip is dropped"
            lines.append(
                f"clips of {frames} frames at {fps} a second are resampled to {MODEL_FPS}: {kept}; render at {MODEL_FPS} "
                "frames a second to keep every frame"
            )
    return (*size_notes(job), *lines)


def _usage(job: ExportJob) -> str:
    config = "dataset.toml" if job.options.preset == FLAT else "dataset_AXES.toml"
    return f"set dataset = '{job.place(config)}' in diffusion-pipe's training file and start it in this folder"


DIFFUSION_PIPE = Exporter(
    summary="clips with captions and a dataset.toml; with a control preset, folders named by the control",
    entries=_entries,
    usage=_usage,
    notes=_notes,
    presets=MappingProxyType(
        {
            FLAT: "one folder of clips, no control",
            **{name: f"folders named by the control, {preset.summary}" for name, preset in CONTROL_PRESETS.items()},
        }
    ),
)
