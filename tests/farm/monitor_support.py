"""Heartbeats and clips for the monitor's tests: clips of made-up bytes, published as real ones are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import tiny
from farm_support import begin

from generator.building.heartbeat import Heartbeat
from generator.farm.target import Target, open_target
from generator.recipe.plan import ClipPlan
from generator.remotes.base import RemoteOptions
from generator.store.objects import ClipRecord, Store

BLENDER = "5.0.1"


def farm(where: str | Path, options: RemoteOptions | None = None) -> Target:
    """Return the claimed store of the tiny plan: fifteen clips, of which a worker has begun to render."""
    target = open_target(str(where), tiny.plan(), blender=BLENDER, options=options)
    begin(target)
    return target


def publish(target: Target, clips: list[ClipPlan], scratch: Path) -> None:
    """Publish clips whose videos are a few made-up bytes."""
    store = Store(scratch)
    for clip in clips:
        video = f"video of {clip.clip_id}".encode()
        record = ClipRecord(
            key=target.keys[clip.clip_id],
            sha256_bytes=store.put(video),
            sha256_frames="0" * 64,
            size_bytes=len(video),
            blender=BLENDER,
            encoder="none",
            cpu_s=0.5,
        )
        store.put_record(record)
        target.publish(store, record.key)


def heartbeat_of(name: str, *, age_s: float = 0.0, **more: Any) -> Heartbeat:
    """Return the heartbeat of a worker that began ten minutes before it."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    own = {"kind": "shard", "host": "node-1", "pid": 4242, "slots": 2, "state": "running", "assigned": 5, "done": 0}
    own |= {"failed": 0, "cpu_s": 0.0, "started_at": at - timedelta(minutes=10), "beat_at": at}
    return Heartbeat.model_validate({"name": name, **own, **more})


def put_heartbeat(target: Target, written: Heartbeat) -> None:
    """Write a heartbeat as a worker would."""
    assert target.write_heartbeat(written.name, written.model_dump_json().encode())
