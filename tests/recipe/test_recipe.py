"""Recipes: what is accepted, and that every complaint is one line that says what was received and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from generator.recipe.load import load_recipe, parse_recipe, recipe_schema
from scenes.axes import AXES
from scenes.errors import InputError
from scenes.families import FAMILIES

MINIMAL = """
name = "tiny"
seed = 3
[video]
width = 64
height = 64
[[pyramid]]
axes = ["shutter"]
family = "flyby"
layers = [3, 1]
scenes_per_layer = 1
frames = [5]
"""


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(text, source="tiny.toml", overrides=overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_minimal_recipe_has_the_reference_defaults() -> None:
    recipe = parse_recipe(MINIMAL, source="tiny.toml")
    assert (recipe.video.fps, recipe.video.crf, recipe.video.preset) == (16, 12, "medium")
    assert recipe.render.fidelity == "flat"
    assert recipe.pyramid[0].sampling == "pyramid"
    assert recipe.law("shutter") == AXES["shutter"].default_law


@pytest.mark.parametrize(
    ("axis", "family", "text", "value"),
    [
        ("shutter", "flyby", "1/96", 1 / 96),
        ("aperture", "depth_row", "f/4", 4.0),
        ("temperature", "tabletop", "200 mired", 5000.0),
    ],
)
def test_a_neutral_is_read_in_units(axis: str, family: str, text: str, value: float) -> None:
    recipe = parse_recipe(
        MINIMAL.replace("shutter", axis).replace("flyby", family),
        source="tiny.toml",
        overrides=[f"axes.{axis}.neutral='{text}'", f"axes.{axis}.layout.neutral='{text}'"],
    )
    assert recipe.law(axis).neutral == pytest.approx(value, rel=1e-8)
    assert recipe.layout_law(axis).neutral == recipe.law(axis).neutral
    kept = recipe.model_validate_json(recipe.model_dump_json())
    assert kept == recipe and parse_recipe(MINIMAL, source="tiny.toml").model_dump(mode="json")["axes"] == {}


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_recipe(MINIMAL, source="tiny.toml").seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sede=1", ["unknown key 'sede'", "did you mean 'seed'"]),
        ("render.sample=4", ["unknown key 'sample'", "[render]", "did you mean 'samples'"]),
        ("pyramid.0.layer=[3]", ["unknown key 'layer'", "[pyramid[0]]", "did you mean 'layers'"]),
        ("video.width=0", ["video.width", "= 0", "greater than or equal to 16"]),
        ("video.width=-64", ["video.width", "= -64"]),
        ("video.height=65", ["video.height", "= 65", "even", "64 or 66"]),
        ("video.fps=0", ["video.fps", "= 0"]),
        ("video.crf=52", ["video.crf", "= 52", "51"]),
        ("video.preset=fats", ["video.preset", "fats", "'fast'"]),
        ("pyramid.0.frames=[4]", ["pyramid[0].frames", "4n+1", "1 and 5"]),
        ("pyramid.0.frames=[7]", ["5 and 9"]),
        ("pyramid.0.frames=[0]", ["pyramid[0].frames[0]", "= 0"]),
        ("pyramid.0.frames=[]", ["pyramid[0].frames", "at least 1"]),
        ("pyramid.0.layers=[]", ["pyramid[0].layers", "at least 1"]),
        ("pyramid.0.layers=[0]", ["pyramid[0].layers[0]", "= 0"]),
        ("pyramid.0.layers=[3,3]", ["'3' stands twice"]),
        ("pyramid.0.scenes_per_layer=0", ["pyramid[0].scenes_per_layer", "= 0"]),
        ("pyramid.0.axes=[]", ["pyramid[0].axes"]),
        ("pyramid.0.axes=['shuter']", ["unknown axis 'shuter'", "did you mean 'shutter'"]),
        ("pyramid.0.family='flybye'", ["unknown scene family 'flybye'", "did you mean 'flyby'"]),
        ("pyramid.0.sampling='random'", ["pyramid[0].sampling", "random", "'uniform'"]),
        ("render.fidelity=photo", ["render.fidelity", "photo", "'flat'"]),
        ("render.samples=0", ["render.samples", "= 0"]),
        ("axes.shutter.neutral=-1", ["axes.shutter.neutral", "= -1"]),
        ("axes.shutter.ratio=9", ["axes.shutter", "frame interval"]),
        ("axes.shutter.layout.ratio=9", ["axes.shutter", "frame interval"]),
        ("axes.shutter.neutral=1/o", ["shutter.neutral", "exposure '1/o'", "1/50"]),
        ("axes.aperture.neutral=2.8", ["axes.aperture", "no pyramid controls"]),
        ("axes.iso.neutral=100", ["axes.iso", "unknown axis"]),
        ("name='a b'", ["name", "a b", "letters"]),
        ("seed=-1", ["seed", "= -1"]),
        ("seed=one", ["seed", "one", "integer"]),
        ("verify.median_error.shuter=1", ["shuter", "did you mean"]),
        ("verify.median_error.shutter=true", ["median_error", "true and false are no numbers"]),
        ("video.fps=inf", ["video.fps"]),
    ],
)
def test_bad_values_are_named(override: str, words: list[str]) -> None:
    message = complaint(MINIMAL, override)
    assert message.startswith("tiny.toml: ")
    for word in words:
        assert word in message, message


def test_every_mistake_is_told() -> None:
    message = complaint(MINIMAL, "seed=-1", "sede=1", "video.crf=99")
    assert "'seed' = -1" in message and "unknown key 'sede'" in message and "'video.crf' = 99" in message
    many = complaint(MINIMAL, *(f"{name}=1" for name in "abcdefg"))
    assert many.count("unknown key") == 5 and many.endswith("and 2 more")


def test_kelvin_outside_the_locus_and_impossible_f_numbers_are_refused() -> None:
    warm = MINIMAL.replace("shutter", "temperature").replace("flyby", "tabletop")
    assert "axes.temperature" in complaint(warm, "axes.temperature.neutral=900")
    assert "axes.temperature" in complaint(warm, "axes.temperature.ratio=0.001")
    wide = MINIMAL.replace("shutter", "aperture").replace("flyby", "depth_row")
    assert "axes.aperture.neutral" in complaint(wide, "axes.aperture.neutral=0")
    assert "axes.aperture.neutral" in complaint(wide, "axes.aperture.neutral=-5.6")


def test_a_family_that_does_not_show_the_axis_is_refused_with_those_that_do() -> None:
    blind = [name for name, family in FAMILIES.items() if "shutter" not in family.shows]
    assert blind
    message = complaint(MINIMAL, f"pyramid.0.family='{blind[0]}'")
    assert f"'{blind[0]}' does not show shutter" in message and "flyby" in message


def test_two_pyramids_cannot_draw_the_same_clips() -> None:
    twice = MINIMAL + MINIMAL[MINIMAL.index("[[pyramid]]") :]
    assert "two pyramids draw the same clips" in complaint(twice)


def test_missing_keys_say_what_they_are() -> None:
    message = complaint(MINIMAL.replace('name = "tiny"', ""))
    assert "key 'name' is missing" in message and "name of the dataset" in message
    assert "key 'pyramid[0].family' is missing" in complaint(MINIMAL.replace('family = "flyby"', ""))


@pytest.mark.parametrize("override", ["seed", "=3", "seed.deep=1", "pyramid.first.layers=[1]", "pyramid.5.layers=[1]"])
def test_malformed_overrides_are_refused(override: str) -> None:
    assert "--set" in complaint(MINIMAL, override)


def test_overrides_reach_every_level() -> None:
    recipe = parse_recipe(
        MINIMAL, source="tiny.toml", overrides=["render.samples=32", "pyramid.0.layers=[5]", "render.fidelity=lit", "seed=9"]
    )
    assert (recipe.render.samples, recipe.pyramid[0].layers, recipe.render.fidelity, recipe.seed) == (32, (5,), "lit", 9)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    (tmp_path / "shutter.toml").write_text(MINIMAL)
    (tmp_path / "broken.toml").write_text("name = \n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, words in [
        ("shuter.toml", "did you mean 'shutter.toml'"),
        ("broken.toml", "not valid TOML"),
        ("binary.toml", "not UTF-8"),
        (".", "is a folder"),
        ("no/such/folder.toml", "no recipe at"),
    ]:
        with pytest.raises(InputError, match=words):
            load_recipe(tmp_path / name)
    assert load_recipe(tmp_path / "shutter.toml").name == "tiny"


def test_the_schema_describes_every_key() -> None:
    schema = recipe_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert {"name", "seed", "video", "render", "pyramid", "axes", "verify"} <= set(schema["properties"])
    assert "description" in schema["$defs"]["Pyramid"]["properties"]["layers"]


@pytest.mark.parametrize("name", ["shutter", "aperture", "temperature"])
def test_the_shipped_recipes_are_the_papers_pyramid(name: str) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "examples" / f"{name}.toml")
    pyramid = recipe.pyramid[0]
    assert pyramid.layers == (9, 7, 5, 3, 1) and pyramid.frames == (1, 5, 9)
    assert sum(pyramid.layers) * pyramid.scenes_per_layer * len(pyramid.frames) == 150
    assert (recipe.video.width, recipe.video.height, recipe.video.fps) == (512, 512, 16)
