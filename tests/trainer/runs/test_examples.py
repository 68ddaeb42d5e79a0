"""Every recipe in examples/ does what its comments say: the commands in them read, the numbers in them are the plan's."""

from __future__ import annotations

import re
import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from generator.recipe.load import load_recipe
from generator.recipe.plan import layer_counts
from generator.recipe.schema import Recipe
from trainer.backbones.wan_configs import WAN_CONFIGS
from trainer.commands.plan_table import settings_line
from trainer.comparison.run_grid import is_comparison, load_comparison
from trainer.config.recipe import load_settings
from trainer.config.train import TrainSettings
from trainer.estimates.footprint import MemoryEstimate
from trainer.runs.expect_large import sizes_of
from trainer.runs.run_recipe import load_run_recipe
from trainer.training.dry_run import training_memory

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
LARGE = sorted((ROOT / "examples").glob("wan*.toml"))
REFERENCE = {  # DESIGN, section 4
    "steps": 2000,
    "batch_size": 1,
    "accumulation": 4,
    "precision": "bf16",
    "gradient_checkpointing": True,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 2e-5,
    "optimizer.betas": (0.9, 0.99),
    "optimizer.weight_decay": 0.01,
    "optimizer.warmup_steps": 100,
    "optimizer.schedule": "constant",
    "adapter.rank": 32,
    "adapter.alpha": 32,
    "adapter.lora_rank": 32,
    "adapter.lora_alpha": 32,
    "adapter.ramp_steps": 100,
    "adapter.blocks": "deepest_third",
}


def comments(path: Path) -> str:
    return "\n".join(line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#"))


def commands(path: Path) -> list[list[str]]:
    """Return the `stopdown …` commands in a file's comments, as words."""
    found = []
    for line in comments(path).splitlines():
        for part in re.split(r"&&|`|: (?=stopdown )", line.partition("    #")[0].partition("     #")[0]):
            if part.strip().startswith("stopdown "):
                found.append(shlex.split(part.strip(), comments=True)[1:])
    return found


def setting(settings: TrainSettings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def clips(recipe: Recipe) -> int:
    return sum(count for *_, count in layer_counts(recipe))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_commands_of_an_example_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names files that are there, or that the commands before it make, and settings that exist."""
    monkeypatch.chdir(ROOT)
    for name, *words in commands(path):
        overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
        files = [Path(word) for word in words if word.endswith(".toml")]
        assert all(file.is_file() for file in files), (name, words)
        for file in files:
            if name == "run":
                (load_comparison if is_comparison(file, overrides) else load_run_recipe)(file, overrides)
            elif name == "train":
                load_settings(file, overrides)
            else:
                assert name == "build" and load_recipe(file, overrides)
        for word in words:
            if word.startswith("datasets/"):
                assert word.removeprefix("datasets/") in {
                    load_recipe(other).name for other in EXAMPLES if "train_" not in other.stem
                }


@pytest.mark.parametrize("path", [path for path in EXAMPLES if "train_" not in path.stem], ids=lambda path: path.stem)
def test_the_numbers_in_the_comments_of_an_example_are_its_plan_s(path: Path) -> None:
    recipe, words = load_recipe(path), comments(path)
    for number in re.findall(r"(?<!steps of )(?<![\d,])([\d,]+) clips", words):
        assert int(number.replace(",", "")) == clips(recipe)
    for steps, each in re.findall(r"([\d,]+) steps of (\d+) clips", words):
        settings = load_settings(path)
        assert settings.steps == int(steps.replace(",", ""))
        assert settings.batch_size * settings.accumulation == int(each)
    for low, high in re.findall(r"(1/\d+) s to (1/\d+) s", words + recipe.description):
        law = recipe.law("shutter")
        assert [law.value(end) for end in (-1.0, 1.0)] == pytest.approx([float(Fraction(low)), float(Fraction(high))], rel=0.02)
    for runs in re.findall(r"(\d+) runs of this recipe", words):
        assert len(load_comparison(path).cells) == int(runs)


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_the_recipes_of_true_backbones_have_the_reference_settings(path: Path) -> None:
    recipe = load_run_recipe(path)
    settings = recipe.train(Path("d"), "latest", Path("o"))
    assert {key: setting(settings, key) for key in REFERENCE} == REFERENCE
    assert settings.backbone.name in {config.hub_id for config in WAN_CONFIGS.values()}
    assert settings.backbone.dtype == "bfloat16" and settings.backbone.quantization == "none"
    video = recipe.dataset.video
    assert (video.width, video.height, video.fps) == (512, 512, 16) and clips(recipe.dataset) == 150
    assert "learning rate 2e-05" in settings_line(settings) and "1 x 4 clips a step" in settings_line(settings)
    alone = load_settings(path)  # the same file, for `stopdown train` after `stopdown build`
    assert alone.dataset == f"datasets/{recipe.dataset.name}"
    assert {key: setting(alone, key) for key in REFERENCE} == REFERENCE


def test_commands_are_found_in_comments() -> None:
    """So that the tests above test something."""
    found = {path.stem: [words[0] for words in commands(path)] for path in EXAMPLES}
    assert (
        found["demo"] == ["run"]
        and found["showcase"] == ["build", "gallery"]
        and found["train_demo"] == ["build", "train", "train"]
    )
    assert all(found[path.stem] == ["run", "run", "build", "train"] for path in LARGE)


def test_every_known_backbone_has_a_recipe() -> None:
    named = {load_settings(path).backbone.name for path in LARGE}
    assert named == {config.hub_id for config in WAN_CONFIGS.values()}


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_the_memory_in_their_comments_is_what_is_reckoned(path: Path) -> None:
    recipe = load_run_recipe(path)
    sizes = sizes_of(recipe, recipe.train(Path("d"), "latest", Path("o")))
    plain, packed = re.findall(r"([\d.]+) GB (?:in training|with)", comments(path))
    estimates: list[MemoryEstimate] = [training_memory(sizes, kind) for kind in ("none", "nf4")]
    assert [float(plain), float(packed)] == pytest.approx([estimate.total / 1e9 for estimate in estimates], rel=0.05)


def test_the_demo_of_training_names_the_recipe_with_the_reference_settings() -> None:
    """It must not send people to a real backbone with the settings of a toy."""
    (large,) = [words for words in commands(ROOT / "examples" / "train_demo.toml") if any("wan" in word for word in words)]
    overrides = [large[place + 1] for place, word in enumerate(large) if word == "--set"]
    settings = load_settings(ROOT / large[1], overrides)
    assert {key: setting(settings, key) for key in REFERENCE} == REFERENCE and settings.dataset == "datasets/showcase"
