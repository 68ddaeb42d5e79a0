"""What runs in a render process: Blender is loaded here, and the clips of one scene after another become records in the store.

Everything that this process prints goes to its log, which the parent quotes if the process dies.
Array legend: T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from generator.io.atomic import FULL
from generator.media.images import exr_bytes, png_bytes
from generator.media.read_clip import neutral_region, read
from generator.media.video import decode, encode, encoder_version, frames_digest
from generator.recipe.blend_file import FOLDER
from generator.render.engine.start import start_blender, use_own_settings
from generator.render.messages import (
    ClipJob,
    Done,
    Event,
    Failed,
    NoSpace,
    Ready,
    SceneDone,
    SceneJob,
    Started,
    WorkerSettings,
)
from generator.render.store_truth import store_truth
from generator.store.objects import ClipRecord, ReadingRecord, Store
from generator.truth.truth_names import frame_files
from scenes.arrays import Floats32
from scenes.axes import AXES
from scenes.control_axis import Reading
from scenes.palette import to_bytes
from scenes.spec import SceneSpec

if TYPE_CHECKING:
    from generator.render.scene_renderer import SceneRenderer

Send = Callable[[Event], None]


def work(connection: Connection, settings: WorkerSettings, log: Path) -> None:
    """Render the scenes that arrive until None or the end of the pipe; the entry point of a spawned process."""
    _print_to(log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_own_settings(log.parent / "blender")
    try:
        start_blender(settings.threads)
        from generator.render.scene_renderer import SceneRenderer  # imports bpy, so only now

        connection.send(Ready())
        while (job := connection.recv()) is not None:
            render_scene(
                job,
                settings,
                lambda spec: SceneRenderer(spec, settings.render, settings.threads, settings.store / FOLDER),
                connection.send,
            )
            connection.send(SceneDone())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the build is over


def render_scene(job: SceneJob, settings: WorkerSettings, build: Callable[..., SceneRenderer], send: Send) -> None:
    """Render every clip of a scene that has no record yet; what fails is reported and the rest goes on.

    Cycles has threads of its own. The rest of a clip is small arrays: they gain nothing by threads of numerical libraries, on a
    busy machine these wait for one another ten times longer than the work takes, and the last bits of a reading (by least
    squares) would hang on the number of cores.
    """
    with threadpool_limits(limits=1):
        _render_clips(job, settings, build, send)


def _render_clips(job: SceneJob, settings: WorkerSettings, build: Callable[..., SceneRenderer], send: Send) -> None:
    store = Store(settings.store)
    scene = _Scene(store, job, settings, build)
    for clip in job.clips:
        send(Started(clip.clip_id))
        if store.finished(clip.key) is not None:  # a process died between its record and its report
            send(Done(clip.clip_id, 0.0))
            continue
        start_s = time.process_time()
        try:
            record = scene.store_clip(clip, start_s)
        except OSError as error:
            if error.errno in FULL:
                send(NoSpace(f"{error.strerror} while writing clip {clip.clip_id}"))
                return
            send(Failed(clip.clip_id, _one_line(error)))
        except Exception as error:  # whatever is wrong with one clip must not take the others down
            send(Failed(clip.clip_id, _one_line(error)))
        else:
            send(Done(clip.clip_id, record.cpu_s))


class _Scene:
    """The scene at hand: its renderer and its truth are made when a clip needs them, and once."""

    def __init__(self, store: Store, job: SceneJob, settings: WorkerSettings, build: Callable[..., SceneRenderer]) -> None:
        self._store, self._job, self._settings, self._build = store, job, settings, build

    @cached_property
    def _renderer(self) -> SceneRenderer:
        return self._build(self._job.spec)

    @cached_property
    def _truth(self) -> dict[str, str]:
        """The objects of the scene's truth by stored name."""
        job = self._job.truth
        if job is None:
            return {}
        return self._store.truth(job.key) or store_truth(self._store, job, self._renderer, self._settings)

    def store_clip(self, clip: ClipJob, start_s: float) -> ClipRecord:
        """Render and store a clip, or only give the frames of a clip that is there the truth that is asked for."""
        donors = (self._store.finished(key) for key in clip.donors)
        donor = next((record for record in donors if record is not None), None)
        if donor is None:
            frames_THW3 = self._renderer.frames(clip.optics)
            return _store_clip(self._store, clip, frames_THW3, self._job.spec, self._settings, self._truth, start_s)
        record = donor.model_copy(update={"key": clip.key, "frames": {**frame_files(donor.frames), **self._truth}})
        self._store.put_record(record)
        return record


def _store_clip(
    store: Store,
    clip: ClipJob,
    linear_THW3: Floats32,
    spec: SceneSpec,
    settings: WorkerSettings,
    truth: Mapping[str, str],
    start_s: float,
) -> ClipRecord:
    """Develop, encode, measure and store a clip: objects first, the record last."""
    video, fps = settings.video, spec.shot.fps
    for name, axis in AXES.items():
        if name in clip.values:
            linear_THW3 = axis.apply_image(linear_THW3, clip.values[name])
    srgb_THW3 = to_bytes(linear_THW3)
    data = encode(srgb_THW3, fps, video.crf, video.preset)
    decoded_THW3 = decode(data)
    where = neutral_region(spec)
    readings = {name: _stored(read(name, decoded_THW3, fps, where)) for name in AXES if name in clip.values}
    stills = _stills(video.keep_frames, srgb_THW3, linear_THW3)
    record = ClipRecord(
        key=clip.key,
        sha256_bytes=store.put(data),
        sha256_frames=frames_digest(decoded_THW3),
        size_bytes=len(data),
        frames={**{name: store.put(still) for name, still in stills}, **truth},
        readings=readings,
        blender=settings.blender,
        encoder=encoder_version(),
        cpu_s=round(time.process_time() - start_s, 4),
    )
    store.put_record(record)
    return record


def _stills(kinds: tuple[str, ...], srgb_THW3: NDArray[np.uint8], linear_THW3: Floats32) -> Iterator[tuple[str, bytes]]:
    for index in range(len(srgb_THW3)):
        if "png" in kinds:
            yield f"{index:04d}.png", png_bytes(srgb_THW3[index])
        if "exr" in kinds:
            yield f"{index:04d}.exr", exr_bytes(linear_THW3[index])


def _stored(reading: Reading) -> ReadingRecord:
    parts = asdict(reading)
    del parts["unread"]  # records on disk say it in words only, as they always have
    return ReadingRecord.model_validate({"marks": parts.pop("detections"), **parts})  # `marks` is the key on disk


def _one_line(error: Exception) -> str:
    kind = "" if type(error).__name__.endswith(("InputError", "RenderError")) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"


def _print_to(log: Path) -> None:
    """Send this process's standard output and error, Blender's C++ ones too, to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _end_with_parent() -> None:
    """Wait for the parent to die and end at once: an orphan would render what the next build renders too."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
