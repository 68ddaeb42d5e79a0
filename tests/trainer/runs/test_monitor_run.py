"""`stopdown monitor` on runs and trainings: what the files of each stage tell, written by the code that writes them."""

from __future__ import annotations

import io
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from generator.building.heartbeat import HeartbeatFolder, HeartbeatWriter
from generator.io.atomic import write_atomic
from generator.monitor.board import Board, board_text
from generator.versions.working.working_folder import create_or_resume
from scenes.errors import InputError
from trainer.commands.monitor import command
from trainer.runs.run_folder import claim
from trainer.runs.run_recipe import load_run_recipe
from trainer.runs.run_stages import RunContext
from trainer.runs.stage_runner import STATE, RunState, StageRecord
from trainer.runs.watch_run import NAMES, RunWatch, read_training, watch_run
from trainer.training.callbacks.metrics import Event

RECIPE = """
name = "tints"
seed = 3
[video]
width = 32
height = 32
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3, 1]
scenes_per_layer = 3
frames = [1, 5]
[train]
steps = 40
[train.backbone]
name = "tiny-random"
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has begun and has done nothing."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load_run_recipe(tmp_path / "recipe.toml", ["train.steps=50"])
    folder = tmp_path / "runs" / "tints" / "001"
    claim(folder, recipe, tmp_path / "tints")
    return folder


def finish(run: Path, *names: str) -> None:
    """Record stages as done."""
    records = {name: StageRecord(inputs={}, made={}, summary={"clips": 12, "loss": 0.123456}, wall_s=75.0) for name in names}
    write_atomic(run / STATE, RunState(stages=records).model_dump_json().encode())


def log(folder: Path, steps: int, *, tail: str = "") -> None:
    """Write the metric log of so many steps, two steps a second, and a validation every ten."""
    events = []
    for step in range(1, steps + 1):
        values = {"loss": 1.0 / step, "learning_rate": 1e-3, "gradient_norm": 1.0}
        events.append(Event(step=step, kind="train", values=values, machine={"time_unix_s": time.time(), "steps_per_s": 2.0}))
        if step % 10 == 0:
            events.append(Event(step=step, kind="validation", values={"loss": 0.5 + step}))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(event.line() for event in events) + tail)


def text(board: Board) -> str:
    console = Console(width=160, file=io.StringIO(), highlight=False)
    console.print(board_text(board, width=160))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_line_that_repeats_a_run_is_one_that_a_shell_and_the_command_take(tmp_path: Path) -> None:
    (tmp_path / "my recipe.toml").write_text(RECIPE)
    overrides = ('evaluate.prompts=["a red ball", "it\'s dusk"]', "evaluate.fep=false", "train.steps=50")
    recipe = load_run_recipe(tmp_path / "my recipe.toml", overrides)

    def place(root: Path, dataset: Path, **more: Any) -> RunContext:
        where = {"device": "cpu", "workers": None, "note": print, "recipe_file": tmp_path / "my recipe.toml"}
        return RunContext(folder=root / "tints" / "001", recipe=recipe, dataset=dataset, **(where | more))

    words = shlex.split(place(tmp_path / "out", tmp_path / "data").repeated_by)
    given = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    assert load_run_recipe(Path(words[2]), given) == recipe
    assert words[3:10] == ["--new", "--out", str(tmp_path / "out"), "--dataset", str(tmp_path / "data"), "--device", "cpu"]
    plain = place(Path("runs"), Path("datasets/tints"), device="auto").repeated_by
    assert "--out" not in plain and "--dataset" not in plain and "--device" not in plain
    cell = place(Path("runs"), Path("datasets/tints-flat"), cell="flat-0", overrides=("train.steps=50",)).repeated_by
    assert shlex.split(cell)[3:] == ["--cell", "flat-0", "--from", "build", "--device", "cpu", "--set", "train.steps=50"]


def test_a_run_that_has_done_nothing_has_its_build_at_hand(run: Path) -> None:
    board = RunWatch(run).look()
    assert (board.state, board.over, board.numbers["stage"], board.numbers["build"]) == ("working", False, "build", None)
    assert [row.cells[:2] for row in board.grids[0].rows] == [("build", "at hand"), *((name, "waits") for name in NAMES[1:])]


def test_a_build_within_a_run_is_seen(run: Path, tmp_path: Path) -> None:
    plan = load_run_recipe(tmp_path / "recipe.toml").plan()
    root = create_or_resume(tmp_path / "tints", plan).root
    with HeartbeatWriter(HeartbeatFolder(root), "build", "build", slots=2, blender="5.0.1") as writer:
        writer.started("clip")
        while not (root / "farm" / "build.json").exists():
            time.sleep(0.01)
        board = RunWatch(run).look()
    assert board.numbers["build"]["workers"][0]["slots"] == 2 and board.numbers["build"]["clips"] == len(plan.clips)
    assert [meter.name for meter in board.meters] == ["stages", "clips"] and "workers" in [grid.name for grid in board.grids]


def test_a_training_within_a_run_tells_its_steps_and_its_time_left(run: Path) -> None:
    finish(run, "build", "verify", "version")
    log(run / "train", 30, tail='{"step": 31, "kind": "tr')
    board = RunWatch(run).look()
    told = board.numbers["training"]
    assert (told["step"], told["steps"], told["eta_s"], told["validation_loss"]) == (30, 50, 10.0, 30.5)
    assert told["loss"] == pytest.approx(sum(1.0 / step for step in range(11, 31)) / 20)
    words = text(board)
    assert "3/7" in words and "30/50  60.0 %" in words and "left 10 s" in words and "train     at hand" in words
    assert "1 min 15 s  clips 12, loss 0.1235" in words


def test_a_run_is_over_when_every_stage_is_done_and_not_while_one_is_done_again(run: Path) -> None:
    log(run / "train", 50)
    finish(run, *NAMES)
    board = RunWatch(run).look()
    assert (board.state, board.over, board.numbers["stage"]) == ("complete", True, None) and not board.notes
    log(run / "train", 7)
    later = (run / STATE).stat().st_mtime + 10
    os.utime(run / "train" / "metrics.jsonl", (later, later))
    again = RunWatch(run).look()
    assert (again.over, again.numbers["stage"], again.numbers["training"]["step"]) == (False, "train", 7)


def test_a_run_that_writes_nothing_is_silent(run: Path) -> None:
    finish(run, "build")
    past = time.time() - 7200
    for path in [*run.rglob("*"), run]:
        os.utime(path, (past, past))
    board = RunWatch(run).look()
    assert board.state == "silent" and "nothing was written for 2 h 00 min" in board.notes[0][1]


def test_the_end_of_a_long_log_is_enough(tmp_path: Path) -> None:
    log(tmp_path, 2000)
    assert (tmp_path / "metrics.jsonl").stat().st_size > 3 * 2**16
    training = read_training(tmp_path / "metrics.jsonl", 4000)
    assert training is not None and training.step == 2000 and training.eta_s == 1000.0


def test_a_training_alone_is_watched_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path / "run", 12)
    command(str(tmp_path / "run"), json=True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["state"], told["training"]["step"], told["training"]["steps"]) == (
        "training",
        "working",
        12,
        None,
    )


def test_a_training_that_ended_is_complete_however_long_ago_and_not_while_it_is_made_longer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    log(run, 12)
    (run / "adapter").mkdir()
    (run / "adapter" / "control.json").write_text('{"step": 12}')
    past = time.time() - 7200
    for path in [*run.rglob("*"), run]:
        os.utime(path, (past, past))
    watch = watch_run(run)
    assert watch is not None
    board = watch.look()
    assert (board.state, board.over, board.notes, board.numbers["training"]["steps"]) == ("complete", True, (), 12)
    assert str(run / "adapter") in text(board) and "stuck" not in text(board)
    log(run, 14)
    longer = watch.look()
    assert (longer.state, longer.over, longer.numbers["result"]) == ("working", False, None)


def test_a_model_trained_whole_is_complete_once_it_is_saved(tmp_path: Path) -> None:
    log(tmp_path, 12)
    config = tmp_path / "model" / "vae" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    written = (tmp_path / "metrics.jsonl").stat().st_mtime
    watch = watch_run(tmp_path)
    assert watch is not None
    for later, state in ((-5, "working"), (5, "complete")):
        os.utime(config, (written + later, written + later))
        assert watch.look().state == state


def test_a_run_as_text_and_as_a_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(run, "build", "verify")
    command(str(run), once=True, html=tmp_path / "run.html")
    assert "run tints/001" in capsys.readouterr().out and "tints/001" in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize(("file", "words"), [("run.json", "run.json cannot be read"), (STATE, "state.json cannot be read")])
def test_a_run_whose_files_are_torn_is_named(run: Path, file: str, words: str) -> None:
    (run / file).write_text('{"name": ')
    with pytest.raises(InputError, match=words) as caught:
        command(str(run), once=True)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_log_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("step 1\nstep 2\n")
    watch = watch_run(tmp_path)
    assert watch is not None
    with pytest.raises(InputError, match=r"metrics\.jsonl is no metric log"):
        watch.look()
