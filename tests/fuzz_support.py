"""What the fuzz tests throw: keys that exist or do not, values of every kind, text that is cut and joined anywhere."""

from __future__ import annotations

import copy
import typing
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from generator.recipe.schema import Recipe
from trainer.config.train import TrainSettings

RECIPE = """
name = "fuzz"
seed = 3
[video]
width = 64
height = 64
[axes.shutter]
neutral = "1/32"
[[pyramid]]
axes = ["shutter"]
family = ["flyby"]
layers = [3, 1]
scenes_per_layer = 1
frames = [5]
[verify.median_error]
shutter = 0.3
[train]
dataset = "datasets/none"
steps = 5
[train.backbone]
name = "tiny-random"
[train.optimizer]
learning_rate = 1e-3
[evaluate]
controls = "-1,1"
"""
# TOML values, as text: what cannot be parsed at all is among them.
VALUES = (
    *("true", "false", "0", "1", "-1", "2", "3", "5", "64", "1.5", "-0.0", "1e308", "1e-320", "nan", "inf", "-inf"),
    *("9" * 5000, "0x" + "f" * 5000, "9223372036854775807", "9223372036854775808", "99999999999", "1_000", "٣", "²"),
    *(
        '""',
        '" "',
        '"a"',
        "'a'",
        '"1/50"',
        '"1/0"',
        '"f/2"',
        '"f/0"',
        '"nanK"',
        '"3200K"',
        '"-3200K"',
        '"c=1"',
        '"../.."',
        '"/"',
    ),
    *(
        '"\\u0000"',
        '"\\u2028"',
        '"\\u001b[31m"',
        '"日本 🙂"',
        '"%s {0} {x}"',
        '"[bold]x[/]"',
        '"' + "x" * 5000 + '"',
        '"a\\nb"',
    ),
    *("[]", "{}", "[[]]", "[1]", "[0]", "[true]", "[3, 1]", '["shutter"]', '["shutter", "shutter"]', '["blend"]', "[nan]"),
    *("1979-05-27", "07:32:00", "2026-13-01", "{a = 1}", "{a.b.c = [1, {d = 2}]}", "[" * 400 + "]" * 400, "[1, 'a']"),
    *(
        "1\n[video]\nwidth = 32",
        "1\nname = 'b'",
        "1 # remark",
        "=",
        "[",
        '"',
        "'''",
        "flat",
        "lit",
        "pbr",
        "auto",
        "cpu",
        "cuda:99",
    ),
)


def keys_of(model: Any, prefix: str = "", depth: int = 4) -> list[str]:
    """Return the dotted keys of a pydantic model and of the models in it; lists get the position 0, dicts the name shutter."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        found.append(key)
        if depth:
            found += _inner_keys(field.annotation, key, depth - 1)
    return found


def _inner_keys(annotation: Any, key: str, depth: int) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return keys_of(annotation, f"{key}.", depth)
    origin, found = typing.get_origin(annotation), list[str]()
    step = {tuple: ".0", list: ".0", dict: ".shutter"}.get(origin, "")  # type: ignore[arg-type]
    for part in typing.get_args(annotation):
        found += _inner_keys(part, f"{key}{step}", depth)
    return found + ([f"{key}{step}"] if step else [])


KEYS = sorted({*keys_of(Recipe), *keys_of(TrainSettings, "train."), "evaluate.controls", "compare.seeds"})
ODD_KEYS = (
    *("", ".", "a", "a.b", "video.", ".video", "video.width.x", '"a b"', "x" * 5000),
    *("pyramid.9", "pyramid.-1", "pyramid.²", "pyramid.٣", "pyramid." + "9" * 5000),
)

keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(ODD_KEYS))
values = st.one_of(st.sampled_from(VALUES), st.text(max_size=20), st.integers().map(str), st.floats().map(repr))
overrides = st.lists(st.builds("{}={}".format, keys, values), min_size=1, max_size=3)


@st.composite
def mangled(draw: st.DrawFn, text: str) -> str:
    """Draw a text that was cut and joined at random places, with something else put in."""
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        middle = draw(st.sampled_from(["", text[start:end] * 2, "\x00", "\ufeff", "\u2028", "\r", "[", "=", '"', *VALUES]))
        text = text[:start] + middle + text[end:]
    return text


# Values of JSON, as Python reads them: what no schema foresees is among them.
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 16, 10**7, 10**12, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "a", "../..", "/", "\x00", "\u2028", "\x1b[31m", "\ud800", "日本 🙂"),
    *("x" * 5000, "f" * 64, "f/2", "1/0", "9" * 5000, "transformer", "transformer_2", "joint", "learned", "shutter"),
    *([], {}, [[]], [None], [1, "a"], [0, 0], [-1], list(range(2000)), {"": {}}, {"a": {"b": [{"c": None}]}}),
)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every container of a tree of JSON with each of its keys or positions."""
    keys: list[Any] = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]


@st.composite
def odd_trees(draw: st.DrawFn, tree: Any) -> Any:
    """Draw a copy of a tree of JSON in which one to three entries are others, gone, twice there or under another name."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(_places(tree) or [([], None)]))
        odd = copy.deepcopy(draw(st.sampled_from(JSON_VALUES)))
        how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"]))
        if how == "replace" and container:
            container[key] = odd
        elif how == "remove" and container:
            del container[key]
        elif isinstance(container, dict):
            container[str(odd)] = container[key] if how == "double" else container.pop(key)
        elif container:
            container.append(container[key])
    return tree
