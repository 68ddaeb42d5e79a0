"""The metric log, trackers, progress and curves: kills double and lose nothing, what is shown is what was logged."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watch_support import AXES, clips, control_task, make_loop, small_settings, tiny_pipe

from generator.errors import DamagedError
from scenes.errors import InputError
from trainer.training.callbacks import make_callbacks, make_metrics_log
from trainer.training.callbacks.curves import CurveDrawer, draw_curves, panels, series, smoothed
from trainer.training.callbacks.metrics import FILE, Event, MetricsFile, MetricsLog, read_events
from trainer.training.callbacks.progress_bar import LiveBar, PlainLines, make_progress_sink, summary
from trainer.training.callbacks.trackers import make_trackers, tags
from trainer.training.tasks.base import Task, TrainingProgress

SWEEP = {"rho": 0.9, "slope": None, "median_error": 0.3, "readable": 4.0, "videos": 5.0}
SHUTTER = {f"shutter/{name}": value for name, value in SWEEP.items()}
MACHINE = {"time_unix_s": 1.5, "steps_per_s": 2.0, "peak_memory_bytes": 2.0**30}


def train(step: int, loss: float | None = None) -> Event:
    """Return the event of a step."""
    values = {"loss": loss if loss is not None else 1.0 / step, "learning_rate": 2e-5, "gradient_norm": 0.5}
    return Event(step=step, kind="train", values=values, machine=MACHINE)


def rare(step: int) -> list[Event]:
    """Return a validation and a preview."""
    return [
        Event(step=step, kind="validation", values={"loss": 0.4, "loss/shutter": 0.3, "gap": 0.01, "gap/shutter": 0.02}),
        Event(step=step, kind="preview", values={**SHUTTER, "temperature/rho": None, "shutter/0/c0.50": None}),
    ]


def write(path: Path, events: Sequence[Event], step: int = 0) -> None:
    """Go on with a log after a step."""
    log = MetricsFile(path)
    log.open(step, 100)
    for event in events:
        log.write(event)
    log.close()


# --- metrics.jsonl -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 80), st.booleans())
def test_a_killed_run_that_goes_on_leaves_the_log_of_an_unbroken_one(reached: int, saved: int, cut: int, foreign: bool) -> None:
    """Killed anywhere, even within a line, and resumed from any checkpoint before: the log is the same."""
    saved = min(saved, reached)
    events = [event for step in range(1, 13) for event in ([train(step), *rare(step)] if step % 3 == 0 else [train(step)])]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole.jsonl", Path(folder) / "killed.jsonl"
        write(whole, events)
        write(killed, [event for event in events if event.step <= reached])
        torn = killed.read_bytes() + (events[-1].line().encode()[:cut] if foreign else b"")
        kept = [line for line in torn.splitlines(keepends=True) if line.endswith(b"\n")]
        killed.write_bytes(torn if any(json.loads(line)["step"] == saved for line in kept) or saved == 0 else b"".join(kept))
        write(killed, [event for event in events if event.step > saved], step=saved)
        assert killed.read_bytes() == whole.read_bytes()
        assert read_events(killed) == events


def test_an_event_is_on_the_disk_at_once(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path / FILE)
    log.open(0, 2)
    log.write(train(1))
    assert read_events(tmp_path / FILE) == [train(1)]
    log.close()


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    write(tmp_path / FILE, [Event(step=1, kind="preview", values={"a": None, "b": float("nan"), "c": float("inf"), "d": 2.0})])
    assert read_events(tmp_path / FILE)[0].values == {"a": None, "b": None, "c": None, "d": 2.0}


@pytest.mark.parametrize(
    "line", ['{"step": 1', '{"step": 1, "kind": "other", "values": {}, "machine": {}}', "[]", '{"kind": "train"}']
)
def test_a_damaged_log_is_named_and_not_overwritten(tmp_path: Path, line: str) -> None:
    path = tmp_path / FILE
    write(path, [train(1)])
    path.write_text(path.read_text() + line + "\n" + train(2).line())
    before = path.read_bytes()
    with pytest.raises(DamagedError, match=r"metrics.jsonl, line 2 is no metric event"):
        MetricsFile(path).open(1, 3)
    assert path.read_bytes() == before


def test_values_are_free_of_the_clock(tmp_path: Path) -> None:
    """Two runs of the same settings log the same values; times and speeds stand apart."""
    task = None
    for name, speed in (("a", 1.0), ("b", 9.0)):
        metrics_log = MetricsLog([MetricsFile(tmp_path / name)])
        metrics_log.started(task, 0, 1)
        metrics_log.stepped(
            task,
            TrainingProgress(
                step=1,
                steps=1,
                loss=0.5,
                learning_rate=1e-3,
                gradient_norm=2.0,
                steps_per_s=speed,
                peak_memory_bytes=7,
                clip_ids=("x",),
            ),
        )
        metrics_log.finished(task, 1)
    first, second = (read_events(tmp_path / name)[0] for name in "ab")
    assert first.values == second.values == {"loss": 0.5, "learning_rate": 1e-3, "gradient_norm": 2.0}
    assert first.machine["steps_per_s"] == 1.0 and first.machine["time_unix_s"] > 1.7e9


# --- with the real loop --------------------------------------------------------------------------------------------------


class Stop:
    """A watcher that ends the run at a step, as a crash would."""

    logs = True

    def __init__(self, step: int) -> None:
        self.step = step

    def started(self, task: Task, step: int, steps: int) -> None:
        """Begin."""

    def stepped(self, task: Task, progress: TrainingProgress) -> None:
        """End the run at the step."""
        if progress.step == self.step:
            raise RuntimeError("crash")

    def finished(self, task: Task, step: int) -> None:
        """End."""


def test_a_resumed_run_logs_what_an_unbroken_one_does(tmp_path: Path) -> None:
    told = small_settings(trackers=["tensorboard"])
    logs = []
    for name, crash in (("whole", None), ("broken", 5)):
        for stop in [crash, None] if crash else [None]:
            task, metrics_log = control_task(tiny_pipe(tmp_path)), make_metrics_log(tmp_path / name, told, io.StringIO())
            callbacks = make_callbacks(metrics_log, told, tmp_path / name, held_out=clips("held-out"), axes=AXES)
            loop = make_loop(task, told, tmp_path / name, [*callbacks, *([Stop(stop)] if stop else [])])
            if stop:
                with pytest.raises(RuntimeError, match="crash"):
                    loop.run()
                assert read_events(tmp_path / name / FILE)[-1].step == 5  # the last checkpoint is of step 4
            else:
                loop.run()
        logs.append([(event.step, event.kind, event.values) for event in read_events(tmp_path / name / FILE)])
        found = EventAccumulator(str(tmp_path / name / "tensorboard")).Reload()
        assert [point.step for point in found.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
        assert [point.step for point in found.Scalars("validation/gap/shutter")] == [3, 6]
        assert (tmp_path / name / "loss curves.png").exists() and (tmp_path / name / "loss curves.svg").exists()
    assert logs[0] == logs[1] and [(step, kind) for step, kind, _ in logs[0]].count((6, "validation")) == 1


def test_watchers_are_those_the_settings_ask_for(tmp_path: Path) -> None:
    metrics_log = MetricsLog(())

    def made(**more: object) -> list[str]:
        told = small_settings(**more)
        held_out = clips("held-out")
        return [type(one).__name__ for one in make_callbacks(metrics_log, told, tmp_path, held_out=held_out, axes=AXES)]

    assert made() == ["MetricsLog", "Validation"]
    assert made(validation={"every": 0}) == ["MetricsLog"]
    nothing = make_callbacks(metrics_log, small_settings(), tmp_path, held_out=(), axes=AXES)
    assert [type(one).__name__ for one in nothing] == ["MetricsLog"]


# --- trackers ------------------------------------------------------------------------------------------------------------


def test_tensorboard_shows_every_number_once_after_a_resume(tmp_path: Path) -> None:
    for step, events in ((0, [train(1), train(2), *rare(2), train(3, 99.0)]), (2, [train(3), train(4)])):
        (tracker,) = make_trackers(("tensorboard",), tmp_path, {})
        tracker.open(step, 4)
        for event in events:
            tracker.write(event)
        tracker.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(point.step, round(point.value, 3)) for point in found.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.333),
        (4, 0.25),
    ]
    assert {"machine/steps_per_s", "validation/gap/shutter", "preview/shutter/rho"} <= set(found.Tags()["scalars"])
    assert "preview/temperature/rho" not in found.Tags()["scalars"]
    assert "machine/time_unix_s" not in found.Tags()["scalars"]


def test_what_could_not_be_measured_has_no_tag() -> None:
    known = {name: value for name, value in SHUTTER.items() if value is not None}
    assert tags(rare(3)[1]) == {f"preview/{name}": value for name, value in known.items()}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="W&B is installed here")
def test_an_absent_tracker_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tracker 'wandb' was asked for and wandb is not installed; pip install wandb"):
        make_trackers(("wandb",), tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="W&B is not installed")
@pytest.mark.filterwarnings("ignore")
def test_wandb_goes_on_with_its_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    for step in (0, 1):
        (tracker,) = make_trackers(("wandb",), tmp_path, {"steps": 2})
        tracker.open(step, 2)
        tracker.write(train(step + 1))
        ids.append(json.loads((tmp_path / "wandb-run.json").read_text())["id"])
        tracker.close()
    assert ids[0] == ids[1] and len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tracker 'tensorbord' is unknown \(did you mean 'tensorboard'\?\)"):
        make_trackers(("tensorbord",), tmp_path, {})


# --- progress ------------------------------------------------------------------------------------------------------------


def test_plain_lines_are_few_and_say_all() -> None:
    stream, now = io.StringIO(), [0.0]
    lines = PlainLines(stream, lambda: now[0])
    lines.open(10, 1000)
    for step in range(11, 1001):
        now[0] = step / 2
        lines.write(train(step, 0.25))
    lines.write(rare(1000)[1])
    said = stream.getvalue().splitlines()
    assert said[0] == "training to step 1000, from step 10"
    assert said[1] == "step 11/1000, loss 0.25, lr 2e-05, 2 steps/s, 8 min 14 s left, 1.00 GiB"
    assert [line.split("/")[0] for line in said[1:5]] == ["step 11", "step 71", "step 131", "step 191"]
    assert said[-2].startswith("step 1000/1000") and "0 s left" in said[-2] and len(said) == 20
    assert said[-1] == "preview at step 1000: shutter 4 of 5 read, rho 0.90, median error 0.3 stop; temperature 0 of 0 read"
    assert summary(rare(7)[0]) == "validation at step 7: loss 0.4, loss/shutter 0.3, gap 0.01, gap/shutter 0.02"


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(make_progress_sink(io.StringIO()), PlainLines)
    stream = Terminal()
    bar = make_progress_sink(stream)
    assert isinstance(bar, LiveBar)
    bar.open(0, 4)
    for step in range(1, 5):
        bar.write(train(step))
    bar.write(rare(4)[0])
    bar.close()
    assert "4/4" in stream.getvalue() and "2 steps/s" in stream.getvalue() and summary(rare(4)[0]) in stream.getvalue()


def test_the_shown_loss_is_a_mean_that_starts_true() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([1.0, 3.0], decay=0.5) == pytest.approx([1.0, (0.5 * 1 + 3) / 1.5])


# --- curves --------------------------------------------------------------------------------------------------------------


def test_curves_are_drawn_as_picture_and_in_the_terminal(tmp_path: Path) -> None:
    events = [event for step in range(1, 30) for event in ([train(step), *rare(step)] if step % 5 == 0 else [train(step)])]
    write(tmp_path / FILE, events)
    drawer = CurveDrawer(tmp_path / FILE, "my run")
    drawer.write(train(1))
    assert not (tmp_path / "loss curves.png").exists()
    drawer.write(rare(5)[0])
    with Image.open(tmp_path / "loss curves.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
        assert picture.size == (1320, 900) and colours is not None and len(colours) > 100
    first = (tmp_path / "loss curves.svg").read_bytes()
    drawer.write(train(6))
    drawer.close()
    assert (tmp_path / "loss curves.svg").read_bytes() == first  # a function of the log
    (tmp_path / "loss curves.svg").unlink()
    drawer.close()
    assert not (tmp_path / "loss curves.svg").exists()  # nothing was logged since it was drawn
    with pytest.raises(InputError, match=r"ends in .png or .svg"):
        draw_curves(events, tmp_path / "curves.txt", title="my run")


def test_curves_hold_what_was_logged() -> None:
    events = [train(1), *rare(1), train(2), *rare(2)]
    assert series(events, "train", "loss") == ([1, 2], [1.0, 0.5])
    assert series(events, "preview", "temperature/rho") == ([], [])
    shown = [list(panel.curves) for panel in panels(events)]
    assert shown == [["loss"], ["loss", "loss/shutter"], ["gap", "gap/shutter"], ["shutter/rho", "temperature/rho"]]


def test_an_empty_log_is_drawn_too(tmp_path: Path) -> None:
    draw_curves([], tmp_path / "empty.svg", title="nothing yet")
    assert (tmp_path / "empty.svg").stat().st_size > 1000


# --- sinks that fail -----------------------------------------------------------------------------------------------------


class Flaky:
    """A tracker that cannot be opened, or whose writing fails at some steps."""

    def __init__(self, *, opens: bool = True, fails_at: Sequence[int] = ()) -> None:
        self.opens, self.fails_at, self.written = opens, fails_at, []

    def open(self, step: int, steps: int) -> None:
        """Fail, or not."""
        if not self.opens:
            raise ConnectionError("no network")

    def write(self, event: Event) -> None:
        """Fail, or remember the step."""
        if event.step in self.fails_at:
            raise OSError("gone")
        self.written.append(event.step)

    def close(self) -> None:
        """Fail."""
        raise OSError("gone")


def test_a_tracker_that_fails_is_said_once_until_it_works_again_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed, flaky, log = Flaky(opens=False), Flaky(fails_at=(2, 3, 5)), MetricsFile(tmp_path / FILE)
    metrics_log = MetricsLog((closed, flaky, log))
    metrics_log.started(None, 0, 6)
    for step in range(1, 7):
        metrics_log.write(step, "train", {"loss": 1.0})
    metrics_log.finished(None, 6)
    assert closed.written == [] and flaky.written == [1, 4, 6]
    assert [event.step for event in read_events(tmp_path / FILE)] == [1, 2, 3, 4, 5, 6]
    assert caplog.text.count("Flaky, which is left out, failed (ConnectionError: no network); training goes on") == 1
    assert caplog.text.count(" Flaky failed (OSError: gone)") == 3 and caplog.text.count("closing Flaky failed") == 1
