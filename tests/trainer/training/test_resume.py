"""A run that was killed anywhere and started again equals one that was not, bit for bit. Processes really die."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_task import Log, ToyTask, read_log, toy_settings

from scenes.errors import InputError
from trainer.config.train import TrainSettings
from trainer.training.checkpoints.checkpoint import checkpoint_steps, read_latest, write_checkpoint
from trainer.training.loop import Loop
from trainer.training.setup import make_accelerator

HERE = Path(__file__).parent.parent
KILLED, INTERRUPTED = -9, 130


def run_trials(trials: list[dict[str, Any]], tmp_path: Path) -> list[int]:
    """Run trials in processes of their own (see `toy_run`); returns their exit codes, -9 for a killed one."""
    listed = tmp_path / "trials.json"
    listed.write_text(json.dumps(trials))
    root = HERE.parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{HERE}"}
    command = [sys.executable, str(HERE / "toy_run.py"), str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return a finished run's log, the weights it saved and the tensors of its last checkpoint."""
    last = read_latest(folder)
    tensors = dict(last.parameters) | {f"average {name}": value for name, value in (last.averaged or {}).items()}
    for name, values in last.optimizer.items():
        tensors |= {f"{name}/{key}": torch.as_tensor(value) for key, value in values.items()}
    return read_log(folder / "log.jsonl"), load_file(folder / "result" / "weights.safetensors"), tensors


def assert_same(folder: Path, whole: Path) -> None:
    log, saved, tensors = outcome(folder)
    whole_log, whole_saved, whole_tensors = outcome(whole)
    assert log == whole_log  # floats written in full: equal text is equal bits
    for ours, theirs in ((saved, whole_saved), (tensors, whole_tensors)):
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_killed_anywhere_it_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = toy_settings(steps=17).model_dump(mode="json")  # two sizes of clips, accumulation 3, average, cosine
    fates: list[dict[str, int]] = []
    rng = random.Random(2)
    for _ in range(4):  # after a step
        fates.append({"die_at_step": rng.randint(1, 16)})
    for number in rng.sample(range(1, 13), 4):  # within the first or second checkpoint's writing (6 fsyncs each)
        fates.append({"die_at_fsync": number})
    fates.append({"stop_at_step": rng.randint(1, 16)})
    folders = [tmp_path / str(number) for number in range(len(fates))]
    trials: list[dict[str, Any]] = [{"folder": str(tmp_path / "whole"), "settings": settings}]
    for folder, fate in zip(folders, fates, strict=True):
        again = fates[(fates.index(fate) + 1) % len(fates)]
        first = {"folder": str(folder), "settings": settings}
        trials += [{**first, **fate}, {**first, **again}, first]
    statuses = run_trials(trials, tmp_path)
    assert statuses[0] == 0 and set(statuses[3::3]) == {0}
    assert statuses.count(KILLED) >= len(fates) and INTERRUPTED in statuses
    for folder, fate, status in zip(folders, fates, statuses[1::3], strict=True):
        assert status == (INTERRUPTED if "stop_at_step" in fate else KILLED)
        assert_same(folder, tmp_path / "whole")
        assert not list(folder.glob(".checkpoint-*"))


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_make_the_same_run_as_one_that_accumulates(sharded: bool, tmp_path: Path) -> None:
    more = {"checkpoints": {"every": 4, "keep": 3}, "optimizer": {"ema_decay": 0 if sharded else 0.9}}
    alone = toy_settings(steps=9, accumulation=2, **more).model_dump(mode="json")
    halves = {**alone, "accumulation": 1}
    both = {"settings": halves, "processes": 2, "sharded": sharded}
    trials: list[dict[str, Any]] = [
        {"folder": str(tmp_path / "alone"), "settings": alone},
        {"folder": str(tmp_path / "whole"), **both},
        {"folder": str(tmp_path / "stopped"), **both, "stop_at_step": 6},
        {"folder": str(tmp_path / "stopped"), **both},
    ]
    assert run_trials(trials, tmp_path) == [0, 0, INTERRUPTED, 0]
    log, saved, _ = outcome(tmp_path / "whole")
    one_log, one_saved, _ = outcome(tmp_path / "alone")
    assert [row["clips"] for row in log] == [row["clips"] for row in one_log]
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in one_log], rel=1e-6)
    for name, value in one_saved.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_full_disk_of_the_first_process_ends_all_with_the_same_line(tmp_path: Path) -> None:
    settings = toy_settings(steps=4, checkpoints={"every": 2, "keep": 3}).model_dump(mode="json")
    places = {what: tmp_path / what for what in ("checkpoint", "log", "result")}
    trials = [{"folder": str(place), "settings": settings, "processes": 2, "full_at": what} for what, place in places.items()]
    assert run_trials(trials, tmp_path) == [2, 2, 2]
    for place in places.values():
        first, second = ((place / f"error-{rank}").read_text() for rank in (0, 1))
        assert first == second and first.startswith("no room left to write somewhere (No space left on device)")


def train(settings: TrainSettings, folder: Path, identity: dict[str, Any] | None = None) -> ToyTask:
    task = ToyTask(settings)
    loop = Loop(task, settings, folder, make_accelerator(settings), identity=identity, callbacks=(Log(folder / "log.jsonl"),))
    loop.run()
    loop.save(folder / "result")
    return task


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 10 steps with checkpoints at 4, 8 and 10."""
    folder = tmp_path_factory.mktemp("stopped")
    train(toy_settings(steps=10, optimizer={"schedule": "constant"}, checkpoints={"every": 4, "keep": 5}), folder)
    return folder


LONGER = {"steps": 15, "optimizer": {"schedule": "constant"}, "checkpoints": {"every": 4, "keep": 5}}


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "state", "empty"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    damage: str, stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    last = folder / "checkpoint-10"
    victim = last / ("state.json" if damage in ("state", "empty") else "optimizer.safetensors")
    data = victim.read_bytes()
    damaged = {"cut": data[:-7], "flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "state": data[:40], "empty": b""}
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(damaged[damage])
    assert read_latest(folder).step == 8
    assert "checkpoint-10 is damaged" in caplog.text and "the one before it is used" in caplog.text
    train(toy_settings(**LONGER), folder)
    train(toy_settings(**LONGER), tmp_path / "whole")
    assert_same(folder, tmp_path / "whole")


def test_a_finished_run_may_be_made_longer(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    train(toy_settings(**LONGER), folder)
    train(toy_settings(**LONGER), tmp_path / "whole")
    assert_same(folder, tmp_path / "whole")


def test_a_finished_run_started_again_changes_nothing(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    train(toy_settings(steps=10, optimizer={"schedule": "constant"}, checkpoints={"every": 4, "keep": 5}), folder)
    assert_same(folder, stopped)


def test_the_last_checkpoints_stay(tmp_path: Path) -> None:
    train(toy_settings(steps=11, checkpoints={"every": 2, "keep": 3}), tmp_path)
    assert checkpoint_steps(tmp_path) == [8, 10, 11]


def test_checkpoints_of_another_run_are_refused_and_kept(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    with pytest.raises(
        InputError, match=r"holds checkpoints of another run: dataset version was absent, is \"v2\"; give another"
    ):
        train(toy_settings(**LONGER), folder, identity={"clips to learn from": "3 clips", "dataset version": "v2"})
    assert checkpoint_steps(folder) == checkpoint_steps(stopped)
    latest = read_latest(folder)
    assert latest.identity == {"processes": 1}


def test_a_checkpoint_reads_as_it_was_written(stopped: Path, tmp_path: Path) -> None:
    written = read_latest(stopped)
    write_checkpoint(tmp_path, written, keep=1)
    read = read_latest(tmp_path)
    assert (read.step, read.losses, read.identity) == (written.step, written.losses, written.identity)
    assert json.dumps(read.losses) == json.dumps(written.losses) and len(read.losses) == 10
    for name, values in written.optimizer.items():
        assert set(values) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(values[key], read.optimizer[name][key]) for key in values)


def test_muon_refuses_matrices_that_are_spread_over_processes(tmp_path: Path) -> None:
    settings = toy_settings(steps=2, optimizer={"name": "muon"}).model_dump(mode="json")
    trials = [
        {"folder": str(tmp_path / name), "settings": settings, "processes": 2, "sharded": name == "fsdp2"}
        for name in ("fsdp2", "ddp")
    ]
    assert run_trials(trials, tmp_path) == [2, 0]
    assert (tmp_path / "ddp" / "result").exists() and not (tmp_path / "fsdp2" / "result").exists()
