"""Checkpoints: by time as well as by steps, checksummed to the last bit, kept while they may be needed, and on a full disk."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from toy_task import Log, ToyTask, toy_settings

from generator.io.checksummed_json import checksummed
from trainer.errors import DiskFullError
from trainer.training.callbacks.metrics import FILE, Event
from trainer.training.checkpoints import saving
from trainer.training.checkpoints.best import best_checkpoints
from trainer.training.checkpoints.checkpoint import (
    STATE,
    Checkpoint,
    checkpoint_steps,
    latest_identity,
    read_latest,
    tidy,
    write_checkpoint,
)
from trainer.training.checkpoints.saving import Clock, wait_for_room
from trainer.training.loop import Loop
from trainer.training.setup import make_accelerator
from trainer.training.tasks.base import TrainingProgress
from trainer.weights.full_disk import full_disk_in_words, no_room


def made(step: int, *, scheduled: bool = True, size: int = 4) -> Checkpoint:
    """Return a checkpoint of a step."""
    weights = {"a": torch.full((size,), float(step)), "b": torch.arange(3.0)}
    return Checkpoint(
        step=step,
        parameters=weights,
        averaged=None,
        optimizer={"a": {"step": torch.tensor(float(step)), "beta": 0.9}},
        losses=(0.5, 1.0 / step),
        identity={"seed": 1, "clips to learn from": "3 clips, abc"},
        scheduled=scheduled,
    )


def test_no_flipped_bit_of_the_state_goes_unnoticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a damaged state would change silently, such as its step, is found, and the checkpoint before it is used."""
    for step in (4, 8):
        write_checkpoint(tmp_path, made(step), keep=3)
    path = tmp_path / "checkpoint-8" / STATE
    data = path.read_bytes()
    rng = random.Random(1)
    places = {*rng.sample(range(len(data)), 60), data.index(b'"step":8') + 7, data.index(b'"format":2') + 9, len(data) - 1}
    for place in places:
        bit = 1 << rng.randrange(8)
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        caplog.clear()
        found = read_latest(tmp_path)
        assert found is not None and found.step == 4, (place, bit)
        assert "checkpoint-8 is damaged" in caplog.text and "the one before it is used" in caplog.text
    path.write_bytes(data)
    assert read_latest(tmp_path).step == 8


def test_a_state_is_held_against_the_folders_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A checkpoint that was renamed, or whose state was written anew with its checksum, is not taken for a later one."""
    for step in (4, 8):
        write_checkpoint(tmp_path, made(step), keep=3)
    (tmp_path / "checkpoint-8").rename(tmp_path / "checkpoint-9")
    assert read_latest(tmp_path).step == 4 and f"{STATE} is of step 8" in caplog.text
    (tmp_path / "checkpoint-9").rename(tmp_path / "checkpoint-8")
    state = json.loads((tmp_path / "checkpoint-8" / STATE).read_bytes())
    del state["check"]
    (tmp_path / "checkpoint-8" / STATE).write_bytes(checksummed({**state, "step": 7}))
    assert read_latest(tmp_path).step == 4
    assert latest_identity(tmp_path) == {"seed": 1, "clips to learn from": "3 clips, abc"}


def test_a_checkpoint_of_the_format_before_is_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, made(4), keep=3) / STATE
    state = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in ("check", "scheduled")}
    path.write_text(json.dumps({**state, "format": 1}, indent=1))
    found = read_latest(tmp_path)
    assert found.step == 4 and found.scheduled and torch.equal(found.parameters["a"], made(4).parameters["a"])
    path.write_text(json.dumps({**state, "format": 1, "step": 5}, indent=1))
    assert read_latest(tmp_path) is None


def test_what_a_killed_removal_left_is_removed_and_what_is_damaged_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3, 4):
        write_checkpoint(tmp_path, made(step), keep=9)
    (tmp_path / ".checkpoint-0-gone").mkdir()
    (tmp_path / "checkpoint-2" / STATE).write_bytes(b"{}")
    tidy(tmp_path, 3, 1)
    assert checkpoint_steps(tmp_path) == [2, 3, 4] and not list(tmp_path.glob(".*")) and not caplog.messages


def test_checkpoints_by_time_stay_until_the_next_by_steps_and_the_best_stay(tmp_path: Path) -> None:
    """The last by steps and the best of them are always there; of those by time, the newest two until the next by steps."""
    for step in range(1, 31):
        write_checkpoint(tmp_path, made(step, scheduled=step % 5 == 0), keep=2, best={7, 10})
        scheduled = list(range(5, step + 1, 5))[-2:]
        newest = [] if step % 5 == 0 else [step, max(1, step - 1)]
        assert checkpoint_steps(tmp_path) == sorted({*scheduled, *([10] if step >= 10 else []), *newest})


def test_the_loop_writes_one_when_the_time_is_up_before_anything_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps that take longer than the time there is one at every step, and it is there when others look at the weights."""
    monkeypatch.setattr(saving, "WORTH", 0.0)  # however long writing takes beside a step of this toy
    seen = []

    class Look(Log):
        logs = False

        def stepped(self, task: Any, progress: TrainingProgress) -> None:
            seen.append((progress.step, checkpoint_steps(tmp_path)))

    for minutes in (0.0, 1e-9):
        settings = toy_settings(steps=5, checkpoints={"every": 4, "minutes": minutes})
        loop = Loop(
            ToyTask(settings), settings, tmp_path, make_accelerator(settings), callbacks=(Look(tmp_path / "log.jsonl"),)
        )
        loop.run()
        for step in checkpoint_steps(tmp_path):
            shutil.rmtree(tmp_path / f"checkpoint-{step}")
    assert seen[:5] == [(1, []), (2, []), (3, []), (4, [4]), (5, [4, 5])]
    assert seen[5:] == [(1, [1]), (2, [1, 2]), (3, [2, 3]), (4, [4]), (5, [4, 5])]


def test_a_checkpoint_by_time_is_due_before_too_much_is_lost() -> None:
    """With steps of any length, no more than the minutes asked for, or one step, lie between two checkpoints."""
    rng = random.Random(3)
    for minutes in (0.5, 1.0, 4.0):
        now = [0.0]
        clock = Clock(minutes, lambda now=now: now[0])
        saved, worst = 0.0, 0.0
        for _ in range(400):
            step_s = rng.uniform(0.1, 40.0)
            now[0] += step_s
            worst = max(worst, now[0] - saved)
            if clock.due(40.0):
                began = clock.now()
                now[0] += 1.0
                clock.written(began)
                saved = now[0]
        assert 60 * minutes - 41 <= worst <= max(60 * minutes, 40.0)
    assert not Clock(0.0, lambda: 1e9).due(1e9)


def test_slow_writing_makes_checkpoints_by_time_rarer() -> None:
    now = [0.0]
    clock = Clock(1.0, lambda: now[0])
    now[0] = 20.0
    clock.written(0.0)  # took 20 s: at most a tenth of the time goes into writing
    now[0] = 200.0
    assert not clock.due(1.0)
    now[0] = 221.0
    assert clock.due(1.0)


# --- the best ------------------------------------------------------------------------------------------------------------


def test_the_best_of_the_checkpoints_that_are_there_are_named(tmp_path: Path) -> None:
    probe = {"temperature/videos": 5.0, "temperature/readable": 5.0}
    events = [
        Event(step=2, kind="validation", values={"loss": 0.1}),  # has no checkpoint
        Event(step=4, kind="validation", values={"loss": 0.3}),
        Event(step=4, kind="train", values={"loss": 0.0}),
        Event(step=4, kind="preview", values={**probe, "temperature/median_error": 30.0}),
        Event(step=8, kind="validation", values={"loss": 0.2}),
        Event(step=8, kind="preview", values={**probe, "temperature/median_error": 40.0}),
        Event(step=12, kind="validation", values={"loss": None}),
        Event(step=12, kind="preview", values={**probe, "temperature/readable": 2.0, "temperature/median_error": 1.0}),
    ]
    (tmp_path / FILE).write_text("".join(event.line() for event in events) + '{"step": 12, "ki')
    for step in (4, 8, 12):
        write_checkpoint(tmp_path, made(step), keep=9)
    lines = [best.line(tmp_path) for best in best_checkpoints(tmp_path)]
    assert lines == [
        f"best by validation: {tmp_path / 'checkpoint-8'} (loss 0.2)",
        f"best by the temperature probe: {tmp_path / 'checkpoint-4'} (median error 30 mired)",
    ]
    assert best_checkpoints(tmp_path / "nowhere") == ()


# --- a full disk ---------------------------------------------------------------------------------------------------------


def test_training_waits_for_room_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    room = iter([10, 10, 10, 10**9])
    wait_for_room(tmp_path, 5_000_000, lambda: False, free=lambda _: next(room), sleep=lambda _: None)
    assert caplog.text.count("training pauses until there is room") == 1 and "there is room again" in caplog.text
    assert "a checkpoint of 5 MB does not fit" in caplog.text
    with pytest.raises(
        DiskFullError, match=r"a checkpoint of 5 MB does not fit .* free some space and run the same command again"
    ):
        wait_for_room(tmp_path, 5_000_000, lambda: True, free=lambda _: 10, sleep=lambda _: None)


def _in_child(work: Callable[[], None]) -> None:
    """Run something in a fork that may not write files above 64 KiB; what it asserts must hold."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_checkpoint_that_cannot_be_written_leaves_the_others_and_nothing_half(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, made(4), keep=1)

    def work() -> None:
        with pytest.raises(DiskFullError) as caught, full_disk_in_words(tmp_path, "free some"):
            write_checkpoint(tmp_path, made(8, size=100_000), keep=1)
        assert "\n" not in str(caught.value) and "no room left to write" in str(caught.value) and caught.value.exit_code == 2
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]

    _in_child(work)
    write_checkpoint(tmp_path, made(8, size=100_000), keep=1)
    assert read_latest(tmp_path).step == 8


def test_what_a_library_says_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    """safetensors writes files itself: its error has the system's number in its words only."""
    from safetensors.torch import save_file

    def work() -> None:
        with pytest.raises(SafetensorError) as caught:
            save_file({"a": torch.zeros(100_000)}, tmp_path / "weights.safetensors")
        assert no_room(caught.value) is not None

    _in_child(work)
    assert no_room(ValueError("os error 28)")) is None and no_room(PermissionError(13, "no")) is None


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
def test_on_a_small_disk_a_run_pauses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1_500_000))
        naps = []

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            ballast.unlink()

        checkpoint = made(4, size=200_000)
        wait_for_room(disk, checkpoint.size_bytes, lambda: False, sleep=sleep)
        write_checkpoint(disk, checkpoint, keep=1)
        assert len(naps) == 1 and read_latest(disk).step == 4
        (disk / "more").write_bytes(bytes(1_500_000))
        with pytest.raises(DiskFullError), full_disk_in_words(disk, "free some"):
            write_checkpoint(disk, made(8, size=400_000), keep=1)
        assert checkpoint_steps(disk) == [4] and not list(disk.glob(".checkpoint-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
