"""Training by `accelerate launch` on several processes is the run of one process that accumulates as much.

Tolerance: a gradient that two processes sum is added up in another order than one that accumulates, so float32 rounds elsewhere
(relative 6e-8 a sum); over a few steps losses may differ by 1e-5 of themselves, weights by 1e-5 of the largest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from dataset_support import make_dataset
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from scenes.errors import InputError
from trainer.commands.train import command as train
from trainer.config.train import TrainSettings
from trainer.training.checkpoints.checkpoint import read_latest
from trainer.training.setup import KNOWN_KINDS, check_parallel

ROOT = Path(__file__).parent.parent.parent.parent
STEPS = 5
LAUNCH = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")


def recipe(folder: Path) -> str:
    return f"""
        [train]
        dataset = "{folder / "tints"}"
        steps = {STEPS}
        device = "cpu"
        trackers = []
        [train.backbone]
        name = "tiny-random"
        text_max_length = 32
        [train.adapter]
        rank = 4
        lora_rank = 4
        ramp_steps = 3
        [train.optimizer]
        learning_rate = 1e-3
        warmup_steps = 2
        ema_decay = 0.9
        [train.validation]
        every = {STEPS}
        times = 2
    """


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset and a recipe."""
    folder = tmp_path_factory.mktemp("processes")
    make_dataset(folder / "tints")
    (folder / "recipe.toml").write_text(recipe(folder))
    return folder


def launch_training(place: Path, out: str, accumulation: int, *kind: str) -> subprocess.CompletedProcess[str]:
    """Run `stopdown train` by `accelerate launch` on two processes, with caches of its own."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "MASTER", "FSDP"))}
    own = {"XDG_CACHE_HOME": str(place / f"cache-{out}"), "HF_HOME": str(place / "hf"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "accelerate.commands.launch", *kind, "--num_processes", "2", *LAUNCH, "-m", "stopdown"]
    words += ["train", str(place / "recipe.toml"), "--out", str(place / out)]
    words += [word for setting in settings(place, out, accumulation) for word in ("--set", setting)]
    words += ["--set", "train.backbone.blocks_to_swap=3"]  # which changes no number
    return subprocess.run(words, env={**mine, **own}, cwd=ROOT, capture_output=True, text=True, check=False)


def settings(place: Path, out: str, accumulation: int) -> list[str]:
    return [f"train.accumulation={accumulation}", f'train.cache="{place / f"encodings-{out}"}"']


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted((folder / "adapter").glob("*.safetensors"))
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.mark.timeout(1200)  # four processes load torch: minutes where the machine is busy
def test_two_processes_make_the_curve_of_one_with_twice_the_accumulation(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache-one"))
    train(place / "recipe.toml", out=place / "one", overrides=settings(place, "one", 4))
    two = launch_training(place, "two", 2, "--multi_gpu")  # accelerate's word for several processes; the recipe says cpu
    assert two.returncode == 0, two.stderr
    latest = read_latest(place / "two")
    assert latest is not None and latest.identity["processes"] == 2
    alone, both = events(place / "one"), events(place / "two")
    assert [(event["step"], event["kind"]) for event in both] == [(event["step"], event["kind"]) for event in alone]
    assert [event["kind"] for event in both].count("train") == STEPS and both[-1]["kind"] == "validation"
    for mine, expected in zip(both, alone, strict=True):
        assert mine["values"] == pytest.approx(expected["values"], rel=1e-5, abs=1e-7)
    made, before = weights(place / "two"), weights(place / "one")
    assert set(made) == set(before)
    for name, tensor in before.items():
        torch.testing.assert_close(made[name], tensor, rtol=0, atol=1e-5 * float(tensor.abs().max()))
    assert two.stdout.count("control after") == 1  # one process speaks for both


@pytest.mark.timeout(1200)
def test_a_launch_that_starts_fewer_processes_than_asked_is_refused(place: Path) -> None:
    done = launch_training(place, "fewer", 2, "--cpu")
    assert done.returncode != 0 and not (place / "fewer").exists()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("stopdown: error:")]
    assert "started one process" in line and "--multi_gpu" in line and "--device cpu" in line


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_shipped_configurations_are_of_kinds_that_training_knows(kind: str) -> None:
    config = load_config_from_file(str(ROOT / "examples" / f"accelerate_{kind}.yaml"))
    assert config.distributed_type in KNOWN_KINDS and config.mixed_precision == "no" and config.num_processes == 8
    if kind == "fsdp":
        assert config.fsdp_config["fsdp_version"] == 2  # another is refused
        assert config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] in WanTransformer3DModel._no_split_modules


def test_fsdp_refuses_in_one_line_what_needs_a_whole_model() -> None:
    quiet = {"dataset": "d", "validation": {"every": 0}}
    check_parallel(TrainSettings.model_validate(quiet), DistributedType.FSDP, second=True)
    refused = {
        "FSDP version 1": (quiet, False),
        "validation and previews": ({"dataset": "d"}, True),
        "blocks_to_swap = 0, or launch without FSDP": ({**quiet, "backbone": {"blocks_to_swap": 2}}, True),
    }
    for words, (settings, second) in refused.items():
        with pytest.raises(InputError, match=words) as caught:
            check_parallel(TrainSettings.model_validate(settings), DistributedType.FSDP, second=second)
        assert "\n" not in str(caught.value)
