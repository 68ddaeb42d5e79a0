"""Nothing that a person can write gives a traceback: recipes, overrides. `make explore` draws more, and anew."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.plan import make_plan
from generator.recipe_io import load_recipe, parse_recipe
from scenes.errors import StopdownError

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

from fuzz_support import RECIPE, mangled, overrides

from trainer.recipe import parse_settings

MOST_CLIPS = 60  # of recipes that are planned, too


def one_line_or_nothing(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or None where it refuses in one line."""
    try:
        return call()
    except StopdownError as error:
        words = str(error)
        assert words and "\n" not in words and "\r" not in words and "\x1b" not in words, words
        assert error.exit_code in (1, 2)
        return None


@settings(max_examples=400)
@given(overrides)
def test_odd_overrides_are_refused_in_one_line(given_overrides: list[str]) -> None:
    recipe = one_line_or_nothing(lambda: parse_recipe(RECIPE, source="fuzz.toml", overrides=given_overrides))
    one_line_or_nothing(lambda: parse_settings(RECIPE, source="fuzz.toml", overrides=given_overrides))
    if recipe is not None:
        clips = sum(len(one.frames) * one.scenes_per_layer * sum(one.layers) for one in recipe.pyramid)
        if clips <= MOST_CLIPS and max(max(one.frames) for one in recipe.pyramid) <= 33:
            one_line_or_nothing(lambda: make_plan(recipe).to_json())


@settings(max_examples=300)
@given(mangled(RECIPE))
def test_mangled_recipes_are_refused_in_one_line(text: str) -> None:
    one_line_or_nothing(lambda: parse_recipe(text, source="fuzz.toml"))
    one_line_or_nothing(lambda: parse_settings(text, source="fuzz.toml"))


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["a.toml", "x" * 300, "a\x00b", ".", ""]))
def test_mangled_files_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    folder = Path(tmp_path_factory.getbasetemp())
    with contextlib.suppress(OSError, ValueError):
        (folder / name).write_bytes(data)
    one_line_or_nothing(lambda: load_recipe(folder / name))
