"""After a first training: any checkpoint in use, a run that goes on under other settings, a start from given weights."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dataset_support import make_dataset
from generation_support import SMALL, output
from safetensors.torch import load_file
from trainer_support import adapted, tiny_config

from scenes.errors import InputError
from trainer.adapters.folder import save_adapter
from trainer.adapters.place import adapter_place
from trainer.adapters.saved import SavedAdapter
from trainer.commands import adapter as adapter_commands
from trainer.commands import generate as generate_command
from trainer.commands.train import command
from trainer.training.callbacks import Preview
from trainer.training.callbacks.metrics import FILE, read_events
from trainer.training.checkpoints.checkpoint import checkpoint_steps
from trainer.training.given import check_given

WEIGHTS = ("control_adapter.safetensors", "pytorch_lora_weights.safetensors")
TWO_LINES = "a red ball\nrolls past"
PREVIEWS = [
    f"train.previews.prompts=['''{TWO_LINES}''']", "train.previews.every=2", "train.previews.values=2",
    "train.previews.frames=1",
    "train.previews.height=16", "train.previews.width=16", "train.previews.sampling_steps=1", "train.previews.guidance=1",
]  # fmt: skip
RECIPE = """
[train]
dataset = "{folder}/tints"
cache = "{folder}/cache"
steps = 2
accumulation = 1
device = "cpu"
precision = "no"
trackers = []
gradient_checkpointing = false
[train.backbone]
name = "tiny-random"
dtype = "float32"
text_max_length = 8
[train.adapter]
rank = 4
lora_rank = 4
ramp_steps = 3
[train.optimizer]
learning_rate = 1e-3
warmup_steps = 0
[train.checkpoints]
every = 2
[train.validation]
every = 2
times = 1
clips = 2
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, a recipe and the toy backbone."""
    folder = tmp_path_factory.mktemp("again")
    make_dataset(folder / "tints")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the toy backbone in the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "user-cache"))


def train(place: Path, out: Path, *overrides: str, dry_run: bool = False) -> None:
    command(place / "recipe.toml", out=out, overrides=list(overrides), device=None, dry_run=dry_run)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in WEIGHTS for name, tensor in load_file(folder / file).items()}


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A finished run of four steps, made in two goes: the second has previews, and other settings without effect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "user-cache"))
        train(place, place / "run")
        more = ["train.steps=4", "train.gradient_checkpointing=true", "train.optimizer.max_loss_factor=0"]
        more += ["train.backbone.blocks_to_swap=4"]
        train(place, place / "run", *more, *PREVIEWS, "train.validation_split=test")
        train(place, place / "whole", "train.steps=4", "train.checkpoints.minutes=0.0000001")  # one after every step
    return place / "run"


def test_settings_without_effect_may_change_in_a_run_that_goes_on(run: Path, place: Path) -> None:
    """Previews, held-out split, gradient checkpointing, blocks in main memory: the weights are those of an unchanged run."""
    assert same(run / "adapter", place / "whole" / "adapter")
    assert checkpoint_steps(run) == checkpoint_steps(place / "whole") == [2, 4]
    assert (run / "previews" / "step-000004" / "grid-temperature.png").is_file()
    with pytest.raises(InputError, match=r"holds checkpoints of another run: .*text_max_length was 8, is 9"):
        train(place, run, "train.steps=4", "train.backbone.text_max_length=9")


def test_other_clips_to_learn_from_are_another_run(run: Path, place: Path) -> None:
    with pytest.raises(InputError, match=r"holds checkpoints of another run: clips to learn from was .* clips"):
        train(place, run, "train.steps=4", "train.train_split=validation", "train.validation_split=test")


def test_any_checkpoint_is_an_adapter(run: Path, place: Path, tmp_path: Path) -> None:
    early, late = run / "checkpoint-2", run / "checkpoint-4"
    assert same(late / "adapter", run / "adapter") and not same(early / "adapter", run / "adapter")
    info = output(adapter_commands.app, "info", early)
    assert "temperature" in info and "tiny-random" in info
    said = output(adapter_commands.app, "extract", early, tmp_path / "taken")
    assert f"{tmp_path / 'taken'}: the adapter after 2 steps" in said
    assert same(tmp_path / "taken", early / "adapter") and SavedAdapter.open(tmp_path / "taken").card.step == 2
    words = ["--out", tmp_path / "made", "--prompt", TWO_LINES, "--control", "1", "--guidance", "1", *SMALL]
    assert "1 videos made" in output(generate_command.command, "--adapter", early, *words)
    with pytest.raises(InputError, match="taken exists; give a new folder"):
        output(adapter_commands.app, "extract", late, tmp_path / "taken")


def test_a_run_is_its_adapter_and_an_unfinished_one_names_its_checkpoints(run: Path, tmp_path: Path) -> None:
    assert adapter_place(run) == run / "adapter" and adapter_place(run / "adapter") == run / "adapter"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint-4").symlink_to(run / "checkpoint-4")
    with pytest.raises(InputError, match=r"has not finished; give one of its 1 checkpoints, such as .*checkpoint-4"):
        adapter_place(tmp_path / "run")
    (tmp_path / "run" / "checkpoint-9").mkdir()
    (tmp_path / "run" / "checkpoint-9" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="is a checkpoint without an adapter"):
        adapter_place(tmp_path / "run" / "checkpoint-9")


def test_a_new_training_starts_from_given_weights(run: Path, place: Path, tmp_path: Path, capsys: Any) -> None:
    """From a checkpoint, at a learning rate of nearly nothing: what comes out is what was given, however many steps."""
    other = ["train.steps=1", "train.optimizer.learning_rate=1e-60", "train.optimizer.weight_decay=0", "train.seed=7"]
    train(place, tmp_path / "new", *other, f'train.from="{run / "checkpoint-2"}"')
    words = capsys.readouterr().out
    assert "starts from" in words and "2 steps old" in words and "best by validation: " in words
    assert same(tmp_path / "new" / "adapter", run / "checkpoint-2" / "adapter")
    card = SavedAdapter.open(tmp_path / "new" / "adapter").card
    assert card.step == 1 and card.recipe["from"] == str(run / "checkpoint-2")
    with pytest.raises(InputError, match=r"holds checkpoints of another run: from was .*, is"):
        train(place, tmp_path / "new", *other, f'train.from="{run}"')


def test_widths_that_no_setting_says_are_compared(tmp_path: Path) -> None:
    given = adapted(tiny_config("shutter"))
    save_adapter(tmp_path / "given", {"transformer": given}, backbone_id="tiny", step=1)
    own = given.config.control
    for key, other in (("embed_dim", 256), ("hidden_dim", 64)):
        asked = given.config.model_copy(update={"control": own.model_copy(update={key: other})})
        with pytest.raises(InputError, match=f"has {key} {getattr(own, key)}, and adapters are trained with {other} here"):
            check_given("given", SavedAdapter.open(tmp_path / "given"), asked, {"transformer": given.transformer})


def test_given_weights_may_go_once_there_is_a_checkpoint(run: Path, place: Path, tmp_path: Path, capsys: Any) -> None:
    """The run goes on to the weights of one whose source stayed; without a checkpoint, or without its files, it is refused."""
    source, gone = tmp_path / "source", f'train.from="{tmp_path / "source"}"'
    shutil.copytree(run / "checkpoint-2" / "adapter", source)
    for name, steps in (("run", 1), ("whole", 2)):
        train(place, tmp_path / name, gone, f"train.steps={steps}")
    shutil.rmtree(source)
    train(place, tmp_path / "run", gone, "train.steps=2")
    assert f"train.from = {source} is gone; the run goes on from its checkpoint" in capsys.readouterr().out.replace("\n", " ")
    assert same(tmp_path / "run" / "adapter", tmp_path / "whole" / "adapter")
    for name in ("new", "run"):
        for state in (tmp_path / name).glob("checkpoint-*/state.json"):
            state.write_text("{}")  # damaged, all of them
        with pytest.raises(InputError, match=r"source does not exist"):
            train(place, tmp_path / name, gone, "train.steps=3")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.adapter.rank=8"], "has rank 4, the settings ask for 8; set train.adapter.rank"),
        (["train.adapter.arm=lora_only"], "set train.adapter.arm = 'joint'"),
        (["train.backbone.name=tiny-random:1"], "this backbone's 'transformer' is another one"),
        (["train.method=vae"], "from names an adapter"),
        (["train.from=nowhere"], "adapter nowhere does not exist"),
    ],
)
def test_given_weights_that_do_not_fit_are_refused(
    run: Path, place: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        train(place, tmp_path / "new", f'train.from="{run}"', *overrides)
    assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()


def in_full_disk(work: Callable[[], object], most_bytes: int) -> str:
    """Do something in a fork that cannot write files above a size, as on a full disk; returns what it fails with."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the threads of the parent are not there
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  pytest's are files, which would be full as well
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does when it starts; a library may have changed it since
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        try:
            work()
            os.write(writer, b"it was not refused")
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(reader) as said:
        words = said.read()
    assert status == 0, f"the child ended with {status}: {words}"
    return words


def scratch(folder: Path) -> list[Path]:
    """Return what half-written files and folders would be called."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_to_the_same_bytes(run: Path, place: Path, tmp_path: Path) -> None:
    """In training and in the encoding before it, and in generation; what half-written files there were are gone."""
    new_cache = f'train.cache="{tmp_path / "cache"}"'
    for most_bytes in (300, 40_000):  # not even an encoding; not a checkpoint
        said = in_full_disk(lambda: train(place, tmp_path / "run", new_cache), most_bytes)
        assert said.startswith("DiskFullError: no room left to write") and "run the same command again" in said
        assert "\n" not in said and not scratch(tmp_path)
    train(place, tmp_path / "run", new_cache)
    assert same(tmp_path / "run" / "adapter", run / "checkpoint-2" / "adapter")

    words = ["--adapter", run, "--out", tmp_path / "made", "--prompt", "a ball", "--control", "0,1", "--guidance", "1", *SMALL]
    said = in_full_disk(lambda: output(generate_command.command, *words), 2_000)
    assert said.startswith("DiskFullError: no room left to write") and "finished videos are kept" in said
    assert not scratch(tmp_path)
    assert "videos made" in output(generate_command.command, *words)


def test_a_preview_that_fails_ends_no_training(
    run: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; its checkpoint is there already; when the run goes on, what is missing is made up."""
    real = Preview.make

    def broken(self: Preview, *arguments: Any) -> Any:
        assert checkpoint_steps(tmp_path / "run") == [2]
        raise ZeroDivisionError("no picture")

    monkeypatch.setattr(Preview, "make", broken)
    with caplog.at_level(logging.WARNING):
        train(place, tmp_path / "run", *PREVIEWS)
    assert "failed (ZeroDivisionError: no picture); training goes on" in caplog.text
    assert same(tmp_path / "run" / "adapter", run / "checkpoint-2" / "adapter")
    monkeypatch.setattr(Preview, "make", real)
    train(place, tmp_path / "run", *PREVIEWS)
    kinds = [(event.step, event.kind) for event in read_events(tmp_path / "run" / FILE)]
    assert kinds == [(1, "train"), (2, "train"), (2, "validation"), (2, "preview")]
