"""`stopdown train`, whole: from a dataset version to an adapter's folder, killed and resumed; and bad input in a line each."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dataset_support import TWO_AXES, make_dataset
from safetensors.torch import load_file

from generator.io.file_lock import exclusive_lock
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.quantize import Quantization
from trainer.backbones.wan_configs import WAN_CONFIGS, random_transformer
from trainer.commands.train import command
from trainer.config.recipe import load_settings
from trainer.training import setup
from trainer.training.checkpoints.checkpoint import checkpoint_steps
from trainer.training.setup import autocast_dtype, open_run

HERE = Path(__file__).parent.parent
RUN = """
import os, signal, typer
from trainer.commands.train import command
from trainer.training.callbacks.metrics import MetricsFile
real = MetricsFile.write
def write(self, event):
    real(self, event)
    if (event.kind, event.step) == ("train", 5):
        os.kill(os.getpid(), signal.SIGKILL)
MetricsFile.write = write
typer.run(command)
"""
STEPS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of one axis, one of two, a recipe, and nothing of the user's cache."""
    folder = tmp_path_factory.mktemp("train")
    make_dataset(folder / "tints")
    make_dataset(folder / "two", TWO_AXES)
    recipe = f"""
        [train]
        dataset = "{folder / "tints"}"
        cache = "{folder / "cache"}"
        steps = {STEPS}
        accumulation = 2
        device = "cpu"
        trackers = []
        [train.backbone]
        name = "tiny-random"
        text_max_length = 64
        [train.adapter]
        rank = 4
        lora_rank = 4
        ramp_steps = 4
        [train.optimizer]
        learning_rate = 1e-3
        warmup_steps = 2
        ema_decay = 0.9
        [train.checkpoints]
        every = 3
        [train.validation]
        every = 4
        times = 2
    """
    (folder / "recipe.toml").write_text(recipe)
    return folder


@pytest.fixture(autouse=True)
def own_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the toy backbone in the test's folder, not in the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "user-cache"))


def train(place: Path, out: Path, *overrides: str, **options: Any) -> None:
    command(place / "recipe.toml", out=out, overrides=list(overrides), **{"device": None, "dry_run": False, **options})


def curve(folder: Path) -> list[tuple[Any, ...]]:
    """Return what a run's log says of its steps and validations, without the clock's part."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(event["step"], event["kind"], event["values"]) for event in events]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in ("control_adapter.safetensors", "pytorch_lora_weights.safetensors")
        for name, tensor in load_file(folder / "adapter" / file).items()
    }


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "user-cache"))
        train(place, place / "whole")
    return place / "whole"


def test_it_ends_with_an_adapter_and_the_next_command(whole: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(place, whole)  # finished: nothing is left to do but to say so
    words = capsys.readouterr().out
    assert f"{whole / 'adapter'}: control after {STEPS} steps" in words
    assert f"next: stopdown generate --adapter {whole / 'adapter'} --prompt" in words and "--temperature" in words
    card = SavedAdapter.open(whole / "adapter").card
    assert card.step == STEPS and card.backbone.id == "tiny-random"
    assert [axis.name for axis in card.config.control.axes] == ["temperature"]
    assert card.config.control.axes[0].law.neutral == 6000  # the dataset's, not the axis's default
    assert card.recipe["optimizer"]["ema_decay"] == 0.9
    assert checkpoint_steps(whole) == [3, 6, 8]
    steps = [(step, kind) for step, kind, _ in curve(whole)]
    assert [step for step, kind in steps if kind == "train"] == list(range(1, STEPS + 1))
    assert [step for step, kind in steps if kind == "validation"] == [4, 8]


def test_killed_and_started_again_it_is_the_same_run(whole: Path, place: Path) -> None:
    folder = place / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    words = [sys.executable, "-c", RUN, str(place / "recipe.toml"), "--out", str(folder)]
    killed = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (folder / "adapter").exists()
    assert max(checkpoint_steps(folder)) < STEPS
    train(place, folder)
    assert curve(folder) == curve(whole)
    made, expected = adapter(folder), adapter(whole)
    assert set(made) == set(expected) and all(torch.equal(made[name], expected[name]) for name in expected)


def test_another_seed_in_the_same_folder_is_refused(whole: Path, place: Path) -> None:
    with pytest.raises(InputError, match=r"holds checkpoints of another run: .*seed was 0, is 3.*give another --out"):
        train(place, whole, "train.seed=3")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine fails the test."""

    def refuse(*address: object) -> None:
        raise AssertionError(f"a connection to {address[1:]} was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["wan2.2-t2v-a14b", "wan2.2-ti2v-5b"])
def test_a_dry_run_for_a_hub_id_needs_no_hub(
    name: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = WAN_CONFIGS[name]
    train(
        place,
        tmp_path / "run",
        f"train.backbone.name={config.hub_id}",
        "train.adapter.rank=32",
        "train.adapter.lora_rank=32",
        dry_run=True,
    )
    words = capsys.readouterr().out
    sizes = {
        row.split()[0]: [float(size) for size in re.findall(r"([0-9.]+) GB", row)]
        for row in words.splitlines()
        if " GB " in row
    }
    for kind in Quantization:
        captions, clips, training, kept = sizes[kind]
        assert captions > 11.4 and 0 < clips < captions, words
        assert 11.4 < kept - training < 14.5, "the text encoder in bfloat16, the autoencoder in float32"
    assert sizes["nf4"][2] < sizes["fp8"][2] < sizes["none"][2], "packing is what it is for"
    weights = 2e-9 * len(config.experts) * sum(parameter.numel() for parameter in random_transformer(config).parameters())
    assert weights < sizes["none"][2] < 1.3 * weights + 6
    fits = re.search(r"on 24 GB: train.backbone.blocks_to_swap = (\d+) takes ([\d.]+) GB .*, ([\d.]+) GB in main memory", words)
    assert (fits is not None) == (sizes["none"][2] > 24)
    if fits is not None:
        assert 0 < int(fits[1]) <= config.num_layers and float(fits[2]) <= 24 and float(fits[3]) > 0
    for part in config.experts:
        assert re.search(rf"trains [1-9][\d,]+ parameters of {part}: control", words)
    assert not (tmp_path / "run").exists()


EARLY: dict[str, tuple[list[str], str]] = {
    "preview size": (["train.previews.every=2", "train.previews.width=100"], "train.previews: size 100x512 does not fit"),
    "preview frames": (["train.previews.every=2", "train.previews.frames=7"], "train.previews: 7 frames do not fit"),
    "blank prompt": (["train.previews.every=2", 'train.previews.prompts=["a car", " "]'], "has one without words"),
    "tracker": (['train.trackers=["wandb"]'], "tracker 'wandb' was asked for and wandb is not installed; pip install wandb"),
    "optimizer": (["train.optimizer.name=adamw_8bit"], "needs bitsandbytes, which is not installed"),
    "crops": (["train.method=vae", "train.crop_frames=[1, 7]"], "crops of 7 frames do not fit"),
    "swapped": (["train.backbone.blocks_to_swap=7"], "blocks_to_swap = 7, and this backbone has 6 blocks; give 0 to 6"),
    "blocks": (["train.adapter.blocks=[3, 40]"], "blocks [3, 40] do not fit"),
}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("case", list(EARLY))
def test_what_labels_and_settings_decide_is_refused_before_encoding_and_in_a_dry_run(
    case: str, dry_run: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    absent = ("wandb", "bitsandbytes")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else real(name, *rest))
    overrides, words = EARLY[case]
    cache = f'train.cache="{tmp_path / "cache"}"'
    with pytest.raises(InputError) as caught:
        train(place, tmp_path / "run", cache, *overrides, dry_run=dry_run)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists(), "nothing was encoded or written"


def test_a_dry_run_counts_and_writes_nothing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(place, tmp_path / "run", "train.adapter.arm=lora_only", dry_run=True)
    words = capsys.readouterr().out
    assert "clips to learn from" in words and "train.optimizer.learning_rate" in words
    assert "trains 0 parameters of transformer: control" in words and "parameters of transformer: LoRA" in words
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("hardware", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cpu_that_imitates_bfloat16_computes_float32_weights_as_they_are(
    hardware: bool, dtype: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "bfloat16_pays", lambda kind: hardware or kind != "cpu")
    settings = load_settings(place / "recipe.toml", [f"train.backbone.dtype={dtype}"])
    opened = open_run(settings, torch.device("cpu"))
    stays = dtype == "float32" and not hardware
    assert autocast_dtype(opened) == (None if stays else torch.bfloat16)
    assert any("no hardware for bfloat16" in note for note in opened.notes) == stays
    assert autocast_dtype(replace(opened, device=torch.device("cuda"))) is torch.bfloat16


@pytest.mark.parametrize("what", ["transformer", "vae"])
def test_whole_models_train_by_the_same_command(what: str, place: Path, tmp_path: Path) -> None:
    overrides = [f"train.method={what}", "train.steps=2", "train.crop_frames=[1]", "train.backbone.train_text_encoder=true"]
    train(place, tmp_path / "run", *overrides)
    saved = {path.parent.name for path in (tmp_path / "run" / "model").glob("*/*.safetensors")}
    assert saved == ({"vae"} if what == "vae" else {"transformer", "text_encoder"})


SMALL = TWO_AXES.replace("width = 80", "width = 88")

BAD: dict[str, tuple[list[str], list[str]]] = {
    "no dataset": (["train.dataset=nowhere"], ["nowhere"]),
    "no such ref": (["train.ref=v9"], ["v9"]),
    "axis": (["train.adapter.axes=shutter"], ["no axis 'shutter'", "it has temperature"]),
    "backbone": (["train.backbone.name=tiny-randon"], ["backbone 'tiny-randon'", "did you mean 'tiny-random'"]),
    "experts": (["train.backbone.experts=low_noise"], ["has one transformer", "use 'all'"]),
    "blocks": (["train.adapter.blocks=[3, 40]"], ["blocks [3, 40] do not fit", "0 to 5"]),
    "size": (["train.dataset=ODD"], ["size 88x64 does not fit", "multiple of 16"]),
    "split": (["train.train_split=all"], ["all"]),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_line(case: str, place: Path, tmp_path: Path) -> None:
    overrides, words = BAD[case]
    if case == "size":
        make_dataset(tmp_path / "odd", SMALL)
        overrides = [f'train.dataset="{tmp_path / "odd"}"']
    with pytest.raises(InputError) as caught:
        train(place, tmp_path / "run", *overrides)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2 and not (tmp_path / "run").exists()
    for word in words:
        assert word in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_asked_for_and_absent(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device 'cuda:1' was asked for and this machine has no usable CUDA GPU"):
        train(place, tmp_path / "run", device="cuda:1")


def test_torch_not_installed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    with pytest.raises(InputError, match=r"torch not installed.*pip install 'stopdown\[train\]'"):
        train(place, tmp_path / "run")


def test_help_needs_no_torch() -> None:
    words = (
        "import sys, typer; from typer.testing import CliRunner; from trainer.commands.train import command;"
        "app = typer.Typer(); app.command()(command); done = CliRunner().invoke(app, ['--help']);"
        "assert 'accelerate launch' in done.output; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'bpy')))"
    )
    assert subprocess.run([sys.executable, "-c", words], check=False, cwd=HERE.parent.parent).returncode == 0


def test_the_shipped_recipe_reads() -> None:
    from generator.recipe.load import load_recipe
    from trainer.config.recipe import load_settings

    root = HERE.parent.parent / "examples"
    settings = load_settings(root / "train_demo.toml")
    assert settings.dataset == f"datasets/{load_recipe(root / 'showcase.toml').name}"


def test_two_trainings_never_share_a_folder(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with exclusive_lock(out / ".lock", "held by the test"), pytest.raises(InputError, match="another training is writing"):
        train(place, out)
    assert [path.name for path in out.iterdir()] == [".lock"]
