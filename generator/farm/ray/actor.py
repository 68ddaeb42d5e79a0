"""What a Ray worker runs: one render slot, with Blender loaded once and kept warm.

The actor class is sent by value and imports Stopdown only after its machine has told its versions: one that has another
Stopdown, or none, can so be refused by name.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generator.errors import DamagedError
from generator.farm.ray.process_folder import process_folder
from generator.farm.target import Target
from generator.recipe.blend_file import FOLDER
from generator.render.engine.start import start_blender, use_own_settings
from generator.render.messages import Done, Event, Failed, NoSpace, SceneJob, WorkerSettings
from generator.render.worker import render_scene
from generator.store.objects import Store
from scenes.errors import StopdownError
from scenes.spec import SceneSpec

if TYPE_CHECKING:
    from generator.render.scene_renderer import SceneRenderer

WATCH_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A worker's versions, and where it is."""

    stopdown: str | None
    python: str
    blender: str | None
    host: str
    node: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """What every actor is told: how to render (`worker.store` is not used), and where scratch folders go (None: the system's
    temporary folder)."""

    worker: WorkerSettings
    scratch: Path | None


@dataclass(frozen=True)
class StoreTrouble:
    """The store did not take a clip, after all retries; no other clip would fare better."""

    message: str


Outcome = Done | Failed | NoSpace | StoreTrouble


def actor_class() -> type[Any]:
    """Return the class of a render actor; defined in here, so that Ray sends its code and not its name."""

    class StopdownRender:
        def about(self) -> dict[str, Any]:
            """Return the fields of a `Machine`; imports nothing of Stopdown."""
            import importlib.metadata
            import os
            import platform
            import socket

            import ray

            def installed(name: str) -> str | None:
                try:
                    return importlib.metadata.version(name)
                except importlib.metadata.PackageNotFoundError:
                    return None

            return {
                "stopdown": installed("stopdown"),
                "python": ".".join(platform.python_version_tuple()[:2]),
                "blender": os.environ.get("STOPDOWN_BLENDER_VERSION") or installed("bpy"),
                "host": socket.gethostname(),
                "node": ray.get_runtime_context().get_node_id(),
                "pid": os.getpid(),
            }

        def load(self, *arguments: Any) -> None:
            """Load Blender; Ray calls methods in the main thread of the worker, where Blender must be."""
            from generator.farm.ray.actor import RenderSlot

            self._slot = RenderSlot(*arguments)

        def render(self, job: Any) -> Any:
            """Render one clip."""
            return self._slot.render(job)

        def close(self) -> None:
            """Leave nothing behind."""
            self._slot.close()

    return StopdownRender


class RenderSlot:
    """Renders one clip after another into a scratch store, and publishes each; what is published is dropped here."""

    def __init__(self, target: Target, settings: ActorSettings) -> None:
        """Load Blender, and make a scratch store."""
        _end_with_parent()
        self._open = ExitStack()
        folder = self._open.enter_context(process_folder("slot", settings.scratch))
        self._target = target
        self._settings = replace(settings.worker, store=folder / "store")
        self._scratch = Store(self._settings.store)
        self._scratch.root.mkdir()
        target.fetch_scene(self._scratch)
        self._scene_id: str | None = None
        self._renderer: SceneRenderer | None = None
        use_own_settings(folder / "blender")
        start_blender(settings.worker.threads)

    def render(self, job: SceneJob) -> Outcome:
        """Render the one clip of a job, unless the store has it, and publish it; never raises."""
        [clip] = job.clips
        try:
            if self._is_there(clip.key):
                return Done(clip.clip_id, 0.0)
            outcome = self._rendered(job)
            if isinstance(outcome, Done):
                self._target.publish(self._scratch, clip.key)
                self._drop()
        except StopdownError as error:
            return StoreTrouble(str(error))
        return outcome

    def close(self) -> None:
        """Remove the scratch folder; nothing can be rendered afterwards."""
        self._open.close()

    def _rendered(self, job: SceneJob) -> Outcome:
        events: list[Event] = []
        render_scene(job, self._settings, lambda spec: self._renderer_of(job.scene_id, spec), events.append)
        outcome = events[-1]
        assert isinstance(outcome, Done | Failed | NoSpace), "a clip ends done, failed or for want of space"
        if not isinstance(outcome, Done):
            self._scene_id = self._renderer = None
            self._drop()
        return outcome

    def _is_there(self, key: str) -> bool:
        """Return whether the store has a clip: whoever rendered it died, or was cut off, before saying so."""
        try:
            return self._target.record(key) is not None
        except DamagedError:
            return False  # publishing replaces it

    def _renderer_of(self, scene_id: str, spec: SceneSpec) -> SceneRenderer:
        """Return the renderer of the scene, kept from clip to clip: clips that share a render share it here, too."""
        from generator.render.scene_renderer import SceneRenderer  # imports bpy, so only now

        if self._renderer is None or self._scene_id != scene_id:
            self._renderer = SceneRenderer(spec, self._settings.render, self._settings.threads, self._scratch.root / FOLDER)
            self._scene_id = scene_id
        return self._renderer

    def _drop(self) -> None:
        for name in ("objects", "records"):
            shutil.rmtree(self._scratch.root / name, ignore_errors=True)


def _end_with_parent() -> None:
    """End at once when the raylet that started this process is gone: a busy worker outlives it (seen on Ray 2.60)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
