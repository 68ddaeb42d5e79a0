"""The registry of methods: what trains, is saved and generates is found through it, and through nothing else."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from generation_support import run
from trainer_support import tiny_config, tiny_transformer

from generator.io.checksummed_json import canonical, sha256
from scenes.errors import InputError
from trainer.adapters.card import CARD, AdapterCard, card_bytes
from trainer.adapters.folder import attach_saved, save_adapter
from trainer.adapters.saved import SavedAdapter
from trainer.commands.adapter import app as adapter_commands
from trainer.config.recipe import parse_settings, with_present_names
from trainer.config.train import TrainSettings, deciding_settings
from trainer.control import attach
from trainer.generation.sampler import generation_of
from trainer.methods import METHODS
from trainer.methods.control.adapter import ControlAdapter
from trainer.training.setup import task_parts

ROOT = Path(__file__).parents[2]
RECIPE = '[train]\ndataset = "d"\n'


class ToyCard(AdapterCard):
    """A card of a method with a word of its own."""

    buffer: int = 0


class ToyAdapter(ControlAdapter):
    """The same files under another card."""

    card = ToyCard


TOY = ToyAdapter()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A method more, as a folder and a line would add it."""
    adapter = f"{ToyAdapter.__module__}:TOY"
    monkeypatch.setitem(METHODS, "toy", dataclasses.replace(METHODS["control"], name="toy", adapter=adapter))
    return "toy"


def saved_as(folder: Path, **told: object) -> Path:
    """Save an adapter whose card says more, under a checksum that holds."""
    save_adapter(folder, {"transformer": attach(tiny_transformer(), tiny_config("shutter"))}, backbone_id="tiny", step=3)
    tree = json.loads((folder / CARD).read_text())
    check = tree.pop("check")
    assert check == sha256(canonical(tree))
    named = {"method": told.pop("method")} if "method" in told else {}
    order = {"format": tree.pop("format"), **named, **tree, **told}
    (folder / CARD).write_text(json.dumps({**order, "check": sha256(canonical(order))}, indent=2, ensure_ascii=False) + "\n")
    return folder


@pytest.mark.parametrize("name", list(METHODS))
def test_every_part_of_a_method_is_there(name: str) -> None:
    method = METHODS[name]
    settings = parse_settings(RECIPE, source="r.toml", overrides=[f"train.method={name}"])
    assert method.name == settings.method == name and task_parts(settings) is method.load("task")
    assert (method.result == "adapter") == (method.adapter is not None)
    if method.settings is not None:
        assert method.load("settings") in {field.annotation for field in TrainSettings.model_fields.values()}
    if method.generation is not None:
        assert callable(generation_of(method).sample)
    for part in ("adapter", "generation"):
        if getattr(method, part) is None:
            with pytest.raises(ValueError, match=f"method '{name}' has no part '{part}'"):
                method.load(part)


def test_naming_the_methods_loads_none_of_them() -> None:
    program = "import sys, trainer.methods, trainer.config.train; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_card_without_a_method_or_with_its_own_keeps_its_bytes(tmp_path: Path) -> None:
    for name, told in (("without", {}), ("with", {"method": "control"})):
        folder = saved_as(tmp_path / name, **told)
        saved = SavedAdapter.open(folder)
        assert saved.method is METHODS["control"] and saved.card.step == 3
        assert card_bytes(saved.card) == (folder / CARD).read_bytes()
    assert b'"method"' not in (tmp_path / "without" / CARD).read_bytes()


def test_an_adapter_is_opened_by_the_method_of_its_card(toy: str, tmp_path: Path) -> None:
    saved = SavedAdapter.open(saved_as(tmp_path / "a", method=toy, buffer=3))
    assert saved.method.name == toy and isinstance(saved.card, ToyCard) and saved.card.buffer == 3
    assert set(attach_saved({"transformer": tiny_transformer()}, saved)) == {"transformer"}
    with pytest.raises(InputError, match="surprise: "):
        SavedAdapter.open(saved_as(tmp_path / "b", method=toy, surprise=3))


def test_an_adapter_of_an_unknown_method_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    folder = saved_as(tmp_path / "a", method="in_contxt", layout="c1b3t9")
    result = run(adapter_commands, "info", folder)
    assert isinstance(result.exception, InputError)
    words = str(result.exception)
    assert "\n" not in words and "method 'in_contxt' is unknown" in words and "known are control" in words and CARD in words
    assert "transformer" not in words  # which trains no adapter


def test_the_former_name_of_the_setting_is_read_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    former = parse_settings(RECIPE + 'what = "vae"\n', source="r.toml")
    assert capsys.readouterr().err.count("r.toml: train.what is train.method now") == 1
    present = parse_settings(RECIPE + 'method = "vae"\n', source="r.toml")
    assert former == present and capsys.readouterr().err == ""
    noise = "clips_per_scene = 2\n{} = 0.5\n"
    former_noise = parse_settings(RECIPE + noise.format("contradiction"), source="r.toml")
    assert "r.toml: train.contradiction is train.counterfactual_noise now" in capsys.readouterr().err
    assert former_noise == parse_settings(RECIPE + noise.format("counterfactual_noise"), source="r.toml")
    assert deciding_settings(former_noise)["contradiction"] == 0.5
    assert deciding_settings(present)["what"] == "vae"  # as earlier versions recorded it: their runs go on
    evaluate = with_present_names({"evaluate": {"fast": False}}, "r.toml")
    assert evaluate == {"evaluate": {"fep": False}}
    assert "r.toml: evaluate.fast is evaluate.fep now" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"train\.what is the former name of train\.method, and both are given"):
        parse_settings(RECIPE + 'method = "vae"\nwhat = "vae"\n', source="r.toml")
    with pytest.raises(
        InputError, match=r"unknown method 'contrl' \(did you mean 'control'\?\); known: control, transformer, vae"
    ):
        parse_settings(RECIPE + 'method = "contrl"\n', source="r.toml")


def test_nothing_else_asks_for_a_method_by_its_name() -> None:
    asked = []
    for path in sorted((ROOT / "trainer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            constants = {part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)}
            about = any(isinstance(side, ast.Attribute) and side.attr in ("method", "what") for side in sides)
            if about and constants & set(METHODS):
                asked.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not asked, f"branches on a method's name; give `Method` a field, or the method a part: {asked}"
