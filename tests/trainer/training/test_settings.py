"""The `[train]` section: its defaults, what it refuses, and what of it decides a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from generator.recipe.load import parse_recipe
from generator.recipe.section import Section
from scenes.errors import InputError
from trainer.config.recipe import load_settings, parse_settings
from trainer.config.train import TrainSettings, deciding_settings, digest, flat, require_same

MINIMAL = '[train]\ndataset = "d"\n'
DATASET = 'name = "x"\n[[pyramid]]\naxes = ["shutter"]\nfamily = ["flyby"]\n'


def settings(*overrides: str) -> TrainSettings:
    return parse_settings(MINIMAL, source="r.toml", overrides=overrides)


def test_defaults_are_the_reference_recipe() -> None:
    made = settings()
    assert (made.batch_size, made.accumulation, made.precision, made.gradient_checkpointing) == (1, 4, "bf16", True)
    optimizer = made.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.betas) == ("adamw", 2e-5, (0.9, 0.99))
    assert (optimizer.weight_decay, optimizer.warmup_steps, optimizer.schedule) == (0.01, 100, "constant")
    adapter = made.adapter
    assert (adapter.arm, adapter.blocks, adapter.gate, adapter.gate_value) == ("joint", "deepest_third", "fixed", 0.5)
    assert (adapter.rank, adapter.alpha, adapter.lora_rank, adapter.lora_alpha, adapter.tokens) == (32, 32, 32, 32, 4)
    assert adapter.ramp_steps == 100 and adapter.axes is None


def test_settings_are_frozen_and_every_key_is_described() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().steps = 3  # type: ignore[misc]
    for model in [TrainSettings, *(part for part in Section.__subclasses__() if part.__module__ == TrainSettings.__module__)]:
        for name, field in model.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
            assert nested or field.description, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stpes=3", ["unknown key 'stpes' in [train]", "did you mean 'steps'"]),
        ("train.optimizer.lr=1", ["unknown key 'lr' in [train.optimizer]"]),
        ("train.optimizer.name=sgd", ["train.optimizer.name", '"sgd"', "adamw_8bit"]),
        ("train.optimizer.learning_rate=0", ["train.optimizer.learning_rate"]),
        ("train.optimizer.betas=[0.9, 1.0]", ["train.optimizer.betas"]),
        ("train.adapter.axes=shuter", ["unknown axis 'shuter'", "did you mean 'shutter'"]),
        ('train.adapter.axes=["shutter", "shutter"]', ["stands twice"]),
        ("train.adapter.blocks=shallow", ["train.adapter.blocks"]),
        ("train.adapter.arm=both", ["train.adapter.arm", "lora_only"]),
        ("train.backbone.quantization=int4", ["train.backbone.quantization", "nf4"]),
        ("train.device=gpu", ["train.device", "cuda:N"]),
        ("train.steps=0", ["train.steps"]),
        ("train.precision=fp16", ["train.precision", "bf16"]),
        ("train.steps=nan", ["train.steps"]),
    ],
)
def test_bad_values_are_named_in_one_line(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        settings(override)
    message = str(caught.value)
    assert message.startswith("r.toml: ") and "\n" not in message
    for word in words:
        assert word in message


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="packs frozen weights"):
        settings("train.method=transformer", "train.backbone.quantization=nf4")
    with pytest.raises(InputError, match="generates nothing"):
        settings("train.method=vae", "train.previews.every=5")


def test_one_file_describes_a_dataset_and_how_to_learn_from_it(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text(DATASET + "[train]\ndataset = 'd'\nsteps = 7\n")
    assert load_settings(path).steps == 7
    assert load_settings(path, ["train.steps=9"]).steps == 9
    with_train = parse_recipe(path.read_text(), source="r")
    assert with_train.model_dump() == parse_recipe(DATASET, source="r").model_dump()  # plans and digests do not see it


def test_the_rest_of_a_file_is_checked_too() -> None:
    with pytest.raises(InputError, match=r"no \[train\] section"):
        parse_settings(DATASET, source="r.toml")
    with pytest.raises(InputError, match="unknown key 'pyramids'"):
        parse_settings(MINIMAL + "[[pyramids]]\nx = 1\n", source="r.toml")
    with pytest.raises(InputError, match="unknown scene family 'flyb'"):
        parse_settings(DATASET.replace("flyby", "flyb") + MINIMAL, source="r.toml")
    with pytest.raises(InputError, match=r"key 'train.dataset' is missing; it is the folder of the dataset"):
        parse_settings("[train]\nsteps = 3\n", source="r.toml")


def test_what_changes_no_weight_does_not_decide_a_run() -> None:
    first = deciding_settings(settings())
    same = [
        "train.dataset=elsewhere", "train.out=x", "train.device=cpu", "train.checkpoints.every=7", "train.previews.every=3",
        "train.validation.clips=2", "train.trackers=[]", "train.cache=c", "train.steps=99", "train.backbone.offload=cpu",
        "train.gradient_checkpointing=false", "train.compile=true", "train.optimizer.max_loss_factor=9", "train.train_split=x",
        "train.previews.prompts=[\"a ball\"]", "train.crop_frames=[1]",
    ]  # fmt: skip
    assert digest(deciding_settings(settings(*same))) == digest(first)
    for other in ("train.seed=1", "train.accumulation=2", "train.optimizer.ema_decay=0.9", "train.adapter.rank=8"):
        assert digest(deciding_settings(settings(other))) != digest(first)
    cosine = "train.optimizer.schedule=cosine"
    assert deciding_settings(settings(cosine, "train.steps=9")) != deciding_settings(settings(cosine))


def test_a_run_of_other_settings_says_what_differs() -> None:
    before, now = deciding_settings(settings()), deciding_settings(settings("train.seed=4"))
    require_same(before, before, "runs/a")
    with pytest.raises(InputError, match=r"^runs/a holds checkpoints of another run: seed was 0, is 4; give another --out"):
        require_same(before, now, "runs/a")


def test_an_autoencoder_goes_on_with_its_own_crops_only() -> None:
    before, now = (
        deciding_settings(settings("train.method=vae")),
        deciding_settings(settings("train.method=vae", "train.crop_frames=[1]")),
    )
    with pytest.raises(InputError, match="crop_frames was"):
        require_same(before, now, "runs/a")
    require_same(
        {**deciding_settings(settings()), "crop_frames": [1, 5]}, deciding_settings(settings()), "runs/a"
    )  # as once recorded of controls


def test_a_run_of_an_earlier_version_goes_on_with_its_own_dataset_only() -> None:
    now = {"clips to learn from": "3 clips, abc", "dataset version": "one"}
    require_same({"encodings": "abc", "dataset version": "one"}, now, "runs/a")
    require_same({"clips to learn from": "3 clips, abc", "dataset version": "two"}, now, "runs/a")
    with pytest.raises(InputError, match="dataset version was"):
        require_same({"encodings": "abc", "dataset version": "two"}, now, "runs/a")


def test_flat_names_every_leaf() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def test_settings_need_no_torch() -> None:
    words = "import sys, trainer.config.recipe; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'bpy')))"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
