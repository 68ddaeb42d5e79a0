"""Pairs that people already have, in the layouts of other programs: a table with two paths a line, or two folders.

| layout | what it is | from |
|---|---|---|
| `.jsonl` | `{"video_path", "control_path", "caption"}` a line | musubi-tuner |
| `.csv` | `video,reference_video,caption` | LTX-Video-Trainer |
| `.csv` | `video,in_context_videos,prompt` | DiffSynth-Studio |
| folder | clips with captions beside them, and a folder of conditions with the same stems | diffusion-pipe, musubi-tuner |

Paths in a table are relative to the table's folder. The condition may be a picture or a video.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from scenes.errors import InputError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi"})
FORMS = "a .jsonl, a .csv, or a folder of clips with --conditions FOLDER"
_JSON_KEYS = ("video_path", "control_path", "caption")
_CSV_COLUMNS = (("video", "reference_video", "caption"), ("video", "in_context_videos", "prompt"))


@dataclass(frozen=True, kw_only=True)
class PairFile:
    """A condition (picture or video), a target video, and the words for the target; `where` names it in messages."""

    condition: Path
    target: Path
    caption: str
    where: str

    def frames(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the sRGB frames of condition and target, uint8 `[T, H, W, 3]`; raises InputError for what cannot be read."""
        return _frames(self.condition, self.where), _frames(self.target, self.where)


@dataclass(frozen=True, kw_only=True)
class Format:
    """A file's number of frames, width and height (pixels), and rate (frames per second, 0 for a picture)."""

    frames: int
    width: int
    height: int
    fps: float


def read_pair_files(path: Path, conditions: Path | None = None) -> tuple[PairFile, ...]:
    """Return the pairs of a table or, with `conditions`, of two folders, in their order; no file is opened yet.

    Raises InputError naming the line and what it lacks: a key, a caption, a file.
    """
    if path.is_dir():
        pairs = tuple(_of_folders(path, conditions))
    elif conditions is not None:
        raise InputError(f"{path} is no folder, and a folder of conditions goes with one; give {FORMS}")
    elif path.suffix.lower() == ".jsonl":
        pairs = tuple(_json_lines(path, _text(path)))
    elif path.suffix.lower() == ".csv":
        pairs = tuple(_csv_lines(path, _text(path)))
    else:
        raise InputError(f"{path} holds no pairs in a known form; give {FORMS}")
    if not pairs:
        raise InputError(f"{path} holds no pair; give {FORMS}")
    return pairs


def check_formats(pairs: Sequence[PairFile]) -> tuple[tuple[Format, Format], ...]:
    """Return the formats of every pair's condition and target; reads the files' headers, and counts frames.

    Raises InputError for a file that is no picture or video, and for a video condition whose length or rate is not that of
    its target: what is cut or repeated then is for a person to say.
    """
    found = []
    for pair in pairs:
        condition, target = _format(pair.condition, pair.where), _format(pair.target, pair.where)
        if condition.frames > 1 and condition.frames != target.frames:
            raise InputError(
                f"{pair.where}: {pair.condition.name} has {condition.frames} frames, {pair.target.name} has {target.frames}; "
                "cut them to one length, or give a still as the condition"
            )
        if condition.fps and abs(condition.fps - target.fps) > 0.01:
            raise InputError(
                f"{pair.where}: {pair.condition.name} has {condition.fps:g} frames per second, {pair.target.name} has "
                f"{target.fps:g}; convert them to one rate"
            )
        found.append((condition, target))
    return tuple(found)


def _of_folders(path: Path, conditions: Path | None) -> Iterator[PairFile]:
    if conditions is None:
        raise InputError(f"{path} is a folder of targets, and the folder of their conditions is not given; give {FORMS}")
    if not conditions.is_dir():
        raise InputError(f"{conditions} is no folder; give the folder that has a condition of the same name for each clip")
    given: dict[str, list[Path]] = {}
    for file in sorted(conditions.iterdir()):
        if file.suffix.lower() in PICTURES | VIDEOS:
            given.setdefault(file.stem, []).append(file)
    targets = [file for file in sorted(path.iterdir()) if file.suffix.lower() in VIDEOS]
    for target in targets:
        matches = given.pop(target.stem, [])
        if len(matches) != 1:
            kind = "no file" if not matches else f"{len(matches)} files"
            raise InputError(f"{target}: {conditions} has {kind} named {target.stem}; give each clip one condition of its name")
        words = target.with_suffix(".txt")
        if not words.is_file():
            raise InputError(f"{target} has no caption; write {words.name} beside it")
        yield _pair(str(target), matches[0], target, _text(words).strip())
    if given:
        stray = next(iter(given.values()))[0]
        raise InputError(f"{stray} is the condition of no clip in {path}; add {stray.stem}.mp4 there, or take it away")


def _json_lines(path: Path, text: str) -> Iterator[PairFile]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where} is no JSON; write one object a line with {', '.join(_JSON_KEYS)}") from None
        yield _entry(path, where, entry, _JSON_KEYS)


def _csv_lines(path: Path, text: str) -> Iterator[PairFile]:
    forms = " or ".join(",".join(columns) for columns in _CSV_COLUMNS)
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        names = reader.fieldnames or []
        columns = next((columns for columns in _CSV_COLUMNS if set(columns) <= set(names)), None)
        if columns is None:
            raise InputError(f"{path} has the columns {','.join(names) or '(none)'}; they must be {forms}")
        for entry in reader:
            yield _entry(path, f"{path}, line {reader.line_num}", entry, columns)
    except csv.Error as error:
        raise InputError(f"{path} is no CSV ({error}); its first line must be {forms}") from None


def _entry(path: Path, where: str, entry: Any, keys: tuple[str, str, str]) -> PairFile:
    video, condition, caption = keys
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} is no object; write one a line with {', '.join(keys)}")
    for key in keys:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise InputError(f"{where} has no text for '{key}'; each line needs {', '.join(keys)}")
    return _pair(where, path.parent / entry[condition], path.parent / entry[video], entry[caption].strip())


def _pair(where: str, condition: Path, target: Path, caption: str) -> PairFile:
    if not caption:
        raise InputError(f"{where}: the caption is empty; write what the target shows")
    for file, kinds in ((condition, PICTURES | VIDEOS), (target, VIDEOS)):
        if file.suffix.lower() not in kinds:
            raise InputError(f"{where}: {file} is of no known kind; known: {', '.join(sorted(kinds))}")
        if not file.is_file():
            raise InputError(f"{where}: {file} does not exist; paths are relative to the table's folder")
    return PairFile(condition=condition, target=target, caption=caption, where=where)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give {FORMS}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give UTF-8 text") from None


def _format(path: Path, where: str) -> Format:
    if path.suffix.lower() in PICTURES:
        height, width = _frames(path, where).shape[1:3]
        return Format(frames=1, width=width, height=height, fps=0.0)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            count = stream.frames or sum(1 for _ in container.decode(stream))
            return Format(frames=count, width=stream.codec_context.width, height=stream.codec_context.height, fps=rate)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise InputError(f"{where}: {path} is no readable video ({error})") from None


def _frames(path: Path, where: str) -> NDArray[np.uint8]:
    try:
        if path.suffix.lower() in PICTURES:
            return np.asarray(iio.imread(path, plugin="pillow", mode="RGB"), np.uint8)[None]
        return np.asarray(iio.imread(path, plugin="pyav", format="rgb24", thread_type="SLICE"), np.uint8)
    except Exception as error:  # what a decoder raises for a damaged file is of no one kind
        raise InputError(f"{where}: {path} cannot be read ({str(error).splitlines()[0] if str(error) else error!r})") from None
