"""The difference of two versions as one self-contained HTML page: clips side by side in step, labels field by field.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from generator.errors import DamagedError
from generator.io.atomic import write_atomic
from generator.media.video import decode
from generator.versions.history.history import History
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import find_row
from generator.versions.manifest.tree import Manifest
from generator.versions.reading.diff import ClipChange, FieldChange, VersionDiff
from generator.web.gallery import EMBED_LIMIT_BYTES, STILL_PX, environment, signed
from generator.web.gallery_pictures import POSTER_PX, data_uri, webp
from scenes.arrays import Bytes
from scenes.axes import AXES
from scenes.errors import InputError

Row = Mapping[str, Any]
Progress = Callable[[int, int], None]  # clips done, clips in all

CLIP_LIMIT = 20
_LEFT, _RIGHT = "A", "B"
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_PLUMBING = ("sha256_bytes", "sha256_frames", "size_bytes", "key", "lossless")  # follow from the rest: last in a table


@dataclass(frozen=True, kw_only=True)
class DiffPageReport:
    """What was written: where, how large, and how many of the clips of each kind the page shows."""

    path: Path
    size_bytes: int
    shown: int
    clips: int


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A clip of the page: its kind, its rows in A and B (None where it is not), and its changes."""

    clip_id: str
    kind: str
    rows: tuple[Row | None, Row | None]
    change: ClipChange | None

    @property
    def row(self) -> Row:
        """The newer of its rows."""
        row = self.rows[1] if self.rows[1] is not None else self.rows[0]
        assert row is not None
        return row

    @property
    def size_bytes(self) -> int:
        """The bytes of its videos, each object once."""
        return sum({row["sha256_bytes"]: int(row["size_bytes"]) for row in self.rows if row is not None}.values())


def diff_page(
    history: History,
    found: VersionDiff,
    out: Path,
    progress: Progress | None = None,
    *,
    limit: int = CLIP_LIMIT,
    embed_limit_bytes: int = EMBED_LIMIT_BYTES,
) -> DiffPageReport:
    """Write a difference to one HTML file that plays offline.

    At most `limit` clips of each kind (added, removed, changed), evenly spaced in order of id; fewer where their videos would
    make more than `embed_limit_bytes`. The page says how many of how many it shows. Raises InputError for an `out` that is no
    .html file, DamagedError for a clip whose bytes are not as committed or cannot be decoded.
    """
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out} is no .html file; give a file name like diff.html")
    chosen = _choose(history, found, limit, embed_limit_bytes)
    clips = []
    for number, clip in enumerate(chosen, start=1):
        clips.append(_tree(history, clip))
        if progress is not None:
            progress(number, len(chosen))
    kinds = {"changed": len(found.changed), "added": len(found.added), "removed": len(found.removed)}
    sections = [
        {"kind": kind, "count": count, "clips": [clip for clip in clips if clip["kind"] == kind]}
        for kind, count in kinds.items()
        if count
    ]
    page = (
        environment()
        .get_template("diff.html.j2")
        .render(
            name=found.after.name,
            sides=[_side(history, letter, v) for letter, v in ((_LEFT, found.before), (_RIGHT, found.after))],
            kinds=kinds,
            sections=sections,
            facets=_facets(clips),
            recipe=[_field(change) for change in found.recipe],
            clips=len(clips),
            fps=next((side["fps"] for clip in clips for side in clip["sides"] if side["fps"]), 1.0),
            most_frames=max((side["frames"] for clip in clips for side in clip["sides"]), default=1),
        )
    )
    data = page.encode()
    write_atomic(out, data)
    return DiffPageReport(path=out, size_bytes=len(data), shown=len(clips), clips=sum(kinds.values()))


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` of some items, in order, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[0]]
    return [items[round(n * (len(items) - 1) / (count - 1))] for n in range(count)]


def written(field: str, value: Any) -> str:
    """Write a label in its physical unit: `1/80`, `f/2.8`, `3200 K`, stops or mired for errors; plain words for the rest."""
    if value is None:
        return "nothing"
    for name, axis in AXES.items():
        if field in (axis.column, f"{name}_measured"):
            return axis.format(float(value))
        if field == f"{name}_error":
            return f"{signed(float(value), 3 if axis.error_unit == 'stop' else 2)} {axis.error_unit}"
        if field == f"{name}_control":
            return signed(float(value), 3)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if field == "size_bytes":
        return f"{value:,} bytes"
    return str(value)


def _choose(history: History, found: VersionDiff, limit: int, embed_limit_bytes: int) -> list[_Shown]:
    """Return the clips to show; the limit is halved until their videos fit."""
    manifests = history.manifest(found.before), history.manifest(found.after)
    while True:
        chosen = [
            *_of(history, manifests, "changed", evenly(found.changed, limit)),
            *_of(history, manifests, "added", evenly(found.added, limit)),
            *_of(history, manifests, "removed", evenly(found.removed, limit)),
        ]
        if limit == 1 or sum(clip.size_bytes for clip in chosen) * 4 / 3 <= embed_limit_bytes:
            return chosen
        limit = max(1, limit // 2)


def _of(history: History, manifests: tuple[Manifest, Manifest], kind: str, which: Iterable[ClipChange | str]) -> list[_Shown]:
    shown = []
    for item in which:
        clip_id, change = (item, None) if isinstance(item, str) else (item.clip_id, item)
        rows = (
            None if kind == "added" else find_row(history.store, manifests[0], clip_id),
            None if kind == "removed" else find_row(history.store, manifests[1], clip_id),
        )
        shown.append(_Shown(clip_id=clip_id, kind=kind, rows=rows, change=change))
    return shown


def _tree(history: History, clip: _Shown) -> dict[str, Any]:
    sides, frames = [], []
    for letter, row in zip((_LEFT, _RIGHT), clip.rows, strict=True):
        if row is not None:
            frames_THW3, side = _side_of(history, clip, letter, row)
            frames.append(frames_THW3)
            sides.append(side)
    if len(sides) == 2 and sides[0]["digest"] == sides[1]["digest"]:
        sides[1] |= {"video": "", "twin": sides[0]["id"] if sides[0]["video"] else ""}  # the same bytes are embedded once
    picture = clip.change is not None and clip.change.picture
    changes = () if clip.change is None else clip.change.fields
    fields = [_field(change) for change in sorted(changes, key=lambda change: change.field in _PLUMBING)]
    row = clip.row
    captions = list(dict.fromkeys(str(row["caption"]) for row in clip.rows if row is not None))
    return {
        "id": clip.clip_id,
        "kind": clip.kind,
        "what": "" if clip.change is None else "other picture" if picture else "labels only",
        "caption": row["caption"],
        "family": row.get("family") or "",
        "axis": "|".join(_axes(row)),
        "search": " ".join([*captions, clip.clip_id, *(field["name"] for field in fields)]).lower(),
        "sides": sides,
        "fields": fields,
        "distance": _distance(*frames) if picture else "",
    }


def _side_of(history: History, clip: _Shown, letter: str, row: Row) -> tuple[Bytes, dict[str, Any]]:
    data = history.store.read(row["sha256_bytes"])
    frames_THW3 = decode(data)
    count, height, width, _ = frames_THW3.shape
    still = count == 1
    changed = () if clip.change is None else tuple(change.field for change in clip.change.fields)
    return frames_THW3, {
        "id": f"{letter}-{clip.clip_id}",
        "letter": letter,
        "frames": count,
        "fps": None if still else _fps(data),
        "width": width,
        "height": height,
        "digest": row["sha256_bytes"],
        "size": f"{len(data) / 1000:.1f} kB",
        "still": webp(frames_THW3[0], STILL_PX, 92) if still else "",
        "poster": "" if still else webp(frames_THW3[count // 2], POSTER_PX, 82),
        "video": "" if still else data_uri("video/mp4", data),
        "twin": "",
        "labels": [
            {"axis": name, "value": written(AXES[name].column, row[AXES[name].column]), "changed": AXES[name].column in changed}
            for name in _axes(row)
        ],
        "caption": row["caption"],
    }


def _fps(data: bytes) -> float:
    with av.open(io.BytesIO(data)) as container:
        rate = container.streams.video[0].average_rate
    if rate is None:
        raise DamagedError("a clip says no frame rate; run `stopdown verify`, then build again")
    return float(rate)


def _axes(row: Row) -> list[str]:
    return [name for name, axis in AXES.items() if row.get(axis.column) is not None]


def _distance(before_THW3: Bytes, after_THW3: Bytes) -> str:
    """Return how far two clips' frames lie apart, in words."""
    if before_THW3.shape != after_THW3.shape:
        sizes = (f"{width} × {height}, {count} frames" for count, height, width, _ in (before_THW3.shape, after_THW3.shape))
        return "frames of another size: " + " to ".join(sizes)
    away_THW3 = np.abs(before_THW3.astype(np.int16) - after_THW3)
    return f"frames differ by {away_THW3.mean():.2f} of 255 in the mean, {away_THW3.max()} at most"


def _field(change: FieldChange) -> dict[str, str]:
    """Return one changed field as a row of a table; values that read alike are told apart by all their digits."""
    before, after = (written(change.field, value) for value in (change.before, change.after))
    if before == after:
        before, after = f"{before} ({change.before!r})", f"{after} ({change.after!r})"
    return {
        "name": change.field,
        "before": before,
        "after": after,
        "before_short": _short(before),
        "after_short": _short(after),
        "by": _by(change),
    }


def _short(words: str) -> str:
    """Return words for a table: hashes by their first twelve digits, long texts by their beginning."""
    words = _SHA256.sub(lambda match: match.group()[:12], words)
    return words if len(words) <= 160 else f"{words[:159]}…"


def _by(change: FieldChange) -> str:
    """Return how far a physical value moved, in stops or mired; positive is towards the stronger effect."""
    if change.before is None or change.after is None:
        return ""
    for name, axis in AXES.items():
        if change.field in (axis.column, f"{name}_measured"):
            distance = axis.distance(float(change.after), float(change.before))
            return f"{signed(distance, 2 if axis.error_unit == 'stop' else 1)} {axis.error_unit}"
    return ""


def _side(history: History, letter: str, version: Version) -> dict[str, Any]:
    tags = sorted(name for name, tag in history.refs.tags().items() if tag.version == version.id)
    return {"letter": letter, "version": version, "tags": tags, "time": version.time[:16].replace("T", " ") + version.time[19:]}


def _facets(clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the filters: only what differs among the shown clips is worth one."""
    values = {name: list(dict.fromkeys(part for clip in clips for part in clip[name].split("|") if part)) for name in _FACETS}
    return [{"name": name, "values": several} for name, several in values.items() if len(several) > 1]


_FACETS = ("kind", "what", "axis", "family")
