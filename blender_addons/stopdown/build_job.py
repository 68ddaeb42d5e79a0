"""Build: `stopdown build` in a process of its own, its progress in the panel; cancelling it keeps what is finished."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import bpy

from .child import child_command, child_environment
from .choices import absolute
from .recipe_file import save
from .reports import reporting

EVERY_S = 0.25
LAST_LINES = 3

RUNNING: list[Job] = []  # at most one: Blender's own data hold no Python objects


class Job:
    """A running `stopdown` command that prints JSON lines; a thread reads them, so that asking never waits."""

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            child_command(words), env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.said: list[str] = []
        self.report: dict[str, Any] = {}

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call; what is no JSON is kept in `said`, the final report in `report`."""
        while not self._lines.empty():
            line = self._lines.get().strip()
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                self.said = [*self.said, line][-LAST_LINES:] if line else self.said
                continue
            if event.get("event") == "report":
                self.report = event
            yield event

    @property
    def code(self) -> int | None:
        """The exit code, once the command has ended and all it printed was read; None before."""
        return None if self._reader.is_alive() or not self._lines.empty() else self._process.wait()

    def cancel(self) -> None:
        """Interrupt the command, as Ctrl-C does; what is finished stays finished."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of what it prints."""
        self._reader.join(timeout_s)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)


class STOPDOWN_OT_build(bpy.types.Operator):
    """Save the recipe and build its dataset in the background; after a cancel or a crash, press it again to resume"""

    bl_idname = "stopdown.build"
    bl_label = "Build"

    _timer: Any = None

    @classmethod
    def poll(cls, _context: Any) -> bool:
        """One build at a time."""
        return not RUNNING

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Start the build; without a window, where no timer runs, wait for its end."""
        session = context.window_manager.stopdown
        RUNNING.append(Job(build_words(session)))
        session.build_share, session.build_words = 0.0, "starting"
        if bpy.app.background:
            while RUNNING[0].code is None:
                RUNNING[0].wait(EVERY_S)
                follow(session, RUNNING[0])
            return self._end(context)
        self._timer = context.window_manager.event_timer_add(EVERY_S, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> Set[str]:
        """Show what the build said since the last tick."""
        if event.type != "TIMER" or not RUNNING:
            return {"PASS_THROUGH"}
        follow(context.window_manager.stopdown, RUNNING[0])
        for area in context.screen.areas:
            area.tag_redraw()
        return {"PASS_THROUGH"} if RUNNING[0].code is None else self._end(context)

    def cancel(self, context: Any) -> None:
        """Stop with the window or the file that the operator ran in."""
        stop()
        self._remove_timer(context)

    def _end(self, context: Any) -> Set[str]:
        session, job = context.window_manager.stopdown, RUNNING.pop()
        follow(session, job)
        self._remove_timer(context)
        session.build_words = end_words(job)
        self.report({"INFO"} if job.code == 0 else {"WARNING"} if job.code == 130 else {"ERROR"}, session.build_words)
        return {"FINISHED"} if job.code == 0 else {"CANCELLED"}

    def _remove_timer(self, context: Any) -> None:
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            self._timer = None


class STOPDOWN_OT_cancel_build(bpy.types.Operator):
    """Stop the build; the clips that are finished are kept"""

    bl_idname = "stopdown.cancel_build"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, _context: Any) -> bool:
        """There must be a build."""
        return bool(RUNNING)

    def execute(self, _context: Any) -> Set[str]:
        """Interrupt it; its own operator reports the end."""
        RUNNING[0].cancel()
        return {"FINISHED"}


def build_words(session: Any) -> list[str]:
    """Save the panel's recipe and return the words of the command that builds it; raises InputError."""
    from scenes.errors import InputError

    if not session.recipe:
        raise InputError("there is no recipe file yet; save the recipe first")
    if not session.out:
        raise InputError("no folder for the dataset; choose one")
    path, out = absolute(session.recipe), absolute(session.out)
    save(session, path)
    return ["build", str(path), "--out", str(out), "--workers", str(session.workers), "--json"]


def follow(session: Any, job: Job) -> None:
    """Show a job's new events in the session's fields."""
    for event in job.events():
        if event["event"] == "start":
            session.build_share = event["finished"] / max(1, event["clips"])
            session.build_words = f"{event['finished']} of {event['clips']} clips"
        elif event["event"] == "done":
            left = "" if event["eta_s"] is None else f", {event['eta_s']:.0f} s left"
            session.build_share = event["finished"] / event["clips"]
            session.build_words = f"{event['finished']} of {event['clips']} clips{left}"
        elif event["event"] in ("failed", "note"):
            session.build_words = event["message"]


def end_words(job: Job) -> str:
    """Return how a job ended: its report, or its own last words without their prefix."""
    report = job.report
    if job.code == 0:
        version = f", version {report['version'][:12]}" if report.get("version") else ""
        return f"{Path(report['path']).name}: {report['rendered']} clips rendered, {report['reused']} were there{version}"
    if job.code == 130:
        return "cancelled; the finished clips are kept, Build goes on from them"
    if report.get("failed"):
        clip_id, message = next(iter(report["failed"].items()))
        return f"{len(report['failed'])} clips failed, the rest is kept; {clip_id}: {message}"
    said = job.said[-1] if job.said else f"the build ended with code {job.code}"
    return said.removeprefix("stopdown: ").removeprefix("error: ")


def stop() -> None:
    """Cancel a running build and forget it."""
    while RUNNING:
        job = RUNNING.pop()
        job.cancel()
        job.wait(10.0)


_CLASSES = (STOPDOWN_OT_build, STOPDOWN_OT_cancel_build)


def register() -> None:
    """Register the operators."""
    for kind in _CLASSES:
        bpy.utils.register_class(kind)


def unregister() -> None:
    """Stop a running build and remove the operators."""
    stop()
    for kind in reversed(_CLASSES):
        bpy.utils.unregister_class(kind)
