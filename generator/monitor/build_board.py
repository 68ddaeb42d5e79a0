"""What is shown of a build."""

from __future__ import annotations

import re
from typing import Any

from generator.building.heartbeat import STALE_S, Heartbeat
from generator.monitor.board import Board, BoardGrid, BoardRow, Meter, Tone, in_words
from generator.monitor.watch_build import BuildStatus, State, WorkerStatus

TONES: dict[State, Tone] = {"complete": "good", "building": "busy", "waiting": "warn", "stopped": "bad"}
COLUMNS = ("worker", "machine", "state", "done", "failed", "clips/min", "CPU s/clip", "last heartbeat", "now")
NUMERIC = frozenset({3, 4, 5, 6, 7})
SPARE = (1, 6, 8, 7)


def build_board(status: BuildStatus) -> Board:
    """Return what is shown of a build."""
    rate = status.clips_per_min
    facts = [("workers", _workers_words(status))]
    if shards := _shards_words(status):
        facts.append(("shards", shards))
    facts.append(("rate", f"{rate:.1f} clips/min" if status.alive else "-"))
    facts.append(("left", "-" if status.eta_s is None else in_words(status.eta_s)))
    if status.cpu_s_per_clip is not None:
        facts.append(("CPU", f"{status.cpu_s_per_clip:.2f} s/clip"))
    facts.append(("Blender", status.blender))
    rows = tuple(_row(worker) for worker in sorted(status.workers, key=_interest))
    failures = tuple(BoardRow(cells=(name, words), tone="bad") for name, words in sorted(status.failed.items()))
    return Board(
        title=f"{status.name} at {status.where}",
        state=status.state,
        tone=TONES[status.state],
        at=status.at,
        over=status.state == "complete" and not status.alive,
        facts=tuple(facts),
        meters=(Meter(name="clips", done=status.done, total=status.clips),),
        grids=(
            BoardGrid(name="workers", columns=COLUMNS, rows=rows, numeric=NUMERIC, spare=SPARE),
            BoardGrid(name="failures", columns=("clip", "failed for good"), rows=failures),
        ),
        notes=tuple(_notes(status)),
        numbers=numbers(status),
    )


def numbers(status: BuildStatus) -> dict[str, Any]:
    """Return a build's state for machines."""
    return {
        "kind": "build",
        "where": status.where,
        "name": status.name,
        "blender": status.blender,
        "at": status.at.isoformat(),
        "state": status.state,
        "clips": status.clips,
        "done": status.done,
        "missing": status.missing,
        "failed": status.failed,
        "clips_per_min": round(status.clips_per_min, 3),
        "eta_s": None if status.eta_s is None else round(status.eta_s, 1),
        "workers": [
            {
                **worker.heartbeat.model_dump(mode="json", exclude={"recent", "failures"}),
                "age_s": round(worker.age_s, 1),
                "stale": worker.stale,
                "clips_per_min": round(worker.clips_per_min, 3),
            }
            for worker in status.workers
        ],
        "unreadable": list(status.unreadable),
    }


def _notes(status: BuildStatus) -> list[tuple[Tone, str]]:
    notes: list[tuple[Tone, str]] = []
    stale = [worker.heartbeat.name for worker in status.workers if worker.stale]
    if stale:
        gone = "killed, or cut off from the store; run the same command again"
        notes.append(("warn", f"no heartbeat for {STALE_S:.0f} s from {_some(stale)}: {gone}"))
    if status.state == "stopped":
        words = f"nobody works on the {status.missing:,} clips that are missing; run the same build again to go on"
        notes.append(("bad", words))
    if status.state == "waiting":
        notes.append(("warn", "no worker has begun"))
    if status.unreadable:
        notes.append(("warn", f"heartbeats that this Stopdown cannot read: {_some(list(status.unreadable))}"))
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _workers_words(status: BuildStatus) -> str:
    slots = sum(worker.heartbeat.slots for worker in status.workers if worker.alive)
    stale = sum(worker.stale for worker in status.workers)
    ended = len(status.workers) - status.alive - stale
    words = [f"{status.alive} at work ({slots} slots)" if status.alive else "0 at work"]
    words += [f"{stale} silent"] if stale else []
    words += [f"{ended} ended"] if ended else []
    return ", ".join(words)


def _shards_words(status: BuildStatus) -> str:
    """Return how many shards have begun and finished, where the build has shards."""
    shards = {worker.heartbeat.shard: worker for worker in status.workers if worker.heartbeat.shard is not None}
    if not shards:
        return ""
    total = max(int(shard.rpartition("/")[2]) for shard in shards)
    finished = sum(worker.heartbeat.state == "finished" for worker in shards.values())
    return f"{finished} finished, {len(shards)} begun of {total}"


def _row(worker: WorkerStatus) -> BoardRow:
    heartbeat = worker.heartbeat
    state = "silent" if worker.stale else heartbeat.state
    tone: Tone = (
        "warn" if worker.stale or heartbeat.state == "interrupted" else "bad" if heartbeat.state == "failed" else "plain"
    )
    now = [f"{clip_id} {in_words((heartbeat.beat_at - since).total_seconds())}" for clip_id, since in heartbeat.current.items()]
    cells = (
        heartbeat.name,
        f"{heartbeat.host}:{heartbeat.pid}",
        state,
        f"{heartbeat.done:,}/{heartbeat.assigned:,}" if heartbeat.assigned else f"{heartbeat.done:,}",
        str(heartbeat.failed) if heartbeat.failed else "",
        f"{worker.clips_per_min:.1f}" if worker.alive else "",
        f"{heartbeat.cpu_s / heartbeat.done:.2f}" if heartbeat.done else "",
        f"{in_words(worker.age_s)} ago",
        ", ".join(now[:2]) + (f" and {len(now) - 2} more" if len(now) > 2 else ""),
    )
    return BoardRow(cells=cells, tone="good" if state == "finished" else tone)


def _interest(worker: WorkerStatus) -> tuple[int, list[tuple[int, str]]]:
    troubled = worker.stale or worker.heartbeat.state in ("failed", "interrupted")
    return (0 if troubled else 1 if worker.alive else 2), _natural(worker.heartbeat)


def _natural(heartbeat: Heartbeat) -> list[tuple[int, str]]:
    """Sort shard-2 before shard-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", heartbeat.name) if part]
