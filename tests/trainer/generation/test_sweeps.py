"""Values, sweeps, prompts and the plan that they make: no model is loaded."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenes.axes import AXES
from scenes.errors import InputError
from trainer.control import AxisControl, NoLaw, axis_control
from trainer.generation.plan import Row, make_points, make_rows, slug
from trainer.generation.prompts import Prompt, gather_prompts, read_prompts
from trainer.generation.values import controls_of, given_controls, plain_controls

SHUTTER, APERTURE, TEMPERATURE = (axis_control(name) for name in ("shutter", "aperture", "temperature"))
LAWLESS = AxisControl(name="aperture", law=NoLaw())


@given(
    axis=st.sampled_from([SHUTTER, APERTURE, TEMPERATURE]),
    ends=st.tuples(st.floats(-1, 0.9), st.floats(-1, 0.9)),
    count=st.integers(2, 40),
)
def test_a_sweep_is_even_in_control_and_ends_where_it_says(axis: AxisControl, ends: tuple[float, float], count: int) -> None:
    written = [axis.format(end).replace(" ", "") for end in ends]
    controls = controls_of(axis, f"{written[0]}..{written[1]}:{count}")
    first, last = (axis.control(one) for one in written)
    assert len(controls) == count and controls[0] == first and controls[-1] == last
    gaps = [after - before for before, after in itertools.pairwise(controls)]
    assert max(gaps) - min(gaps) < 1e-9


def test_a_sweep_of_shutter_is_even_in_stops() -> None:
    values = [SHUTTER.law.value(control) for control in controls_of(SHUTTER, "1/400..1/16:7")]
    ratios = [after / before for before, after in itertools.pairwise(values)]
    assert values[0] == pytest.approx(1 / 400) and values[-1] == pytest.approx(1 / 16)
    assert ratios == pytest.approx([25 ** (1 / 6)] * 6)


def test_lists_keep_their_order_and_may_hold_sweeps() -> None:
    assert controls_of(SHUTTER, "1/16, 1/400") == (SHUTTER.control("1/16"), SHUTTER.control("1/400"))
    assert len(controls_of(SHUTTER, "1/1000,1/400..1/16:7,20ms")) == 9
    assert plain_controls(LAWLESS, "-1..1:5") == (-1.0, -0.5, 0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("axis", "text", "message"),
    [
        (SHUTTER, "f/2", "'f/2' is no shutter but reads as aperture"),
        (SHUTTER, "3200K", "'3200K' is no shutter but reads as temperature"),
        (TEMPERATURE, "1/50", "'1/50' is no temperature but reads as shutter"),
        (APERTURE, "1/400..1/16:3", "'1/400' is no aperture but reads as shutter"),
        (SHUTTER, "1/400..1/16", "no sweep of shutter; write START..END:COUNT, such as 1/400..1/16:7"),
        (SHUTTER, "1/400..:7", "no sweep of shutter"),
        (APERTURE, "f/22..f/2:x", r"count 'x', allowed is 2 to 1000; write START..END:COUNT, such as f/22.4..f/1.4:7"),
        (APERTURE, "f/22..f/2:1", "count '1'"),
        (TEMPERATURE, "2000K..9000K:100000", "count '100000'"),
        (SHUTTER, "1/50,,1/60", "no list of shutter values; write it like 1/400,1/80,1/16"),
        (SHUTTER, "fast", "exposure 'fast'"),
        (LAWLESS, "f/2", "states no unit law"),
    ],
)
def test_what_is_no_value_is_refused_with_a_right_one(axis: AxisControl, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        controls_of(axis, text)


def test_values_and_controls_of_several_axes() -> None:
    axes = (SHUTTER, APERTURE)
    found = given_controls(axes, {"aperture": "f/5.6"}, ["shutter=-1..1:3"])
    assert list(found) == ["shutter", "aperture"]
    assert found["shutter"] == (-1.0, 0.0, 1.0) and found["aperture"] == (0.0,)
    assert given_controls((SHUTTER,), {}, ["0.7"]) == {"shutter": (0.7,)}
    assert given_controls(axes, {}) == {}


@pytest.mark.parametrize(
    ("values", "control", "limit", "message"),
    [
        ({"temperature": "3200K"}, [], None, "A does not control 'temperature'; it controls shutter, aperture"),
        ({}, ["zoom=1"], None, "A does not control 'zoom'"),
        ({}, ["0.7"], None, "names no axis and A controls shutter, aperture; write it like --control AXIS=0.7"),
        ({"shutter": "1/50"}, ["shutter=0"], None, "shutter was given twice"),
        ({}, ["shutter=nan"], None, "control 'nan' of shutter"),
        ({"shutter": "1/50,1/2"}, [], 1.5, r"shutter 0.5s is control 2.29, beyond the limit 1.5 \(1/894 to 1/7.155\)"),
        ({"shutter": "1/50"}, [], -1.0, "limit -1 is no bound"),
    ],
)
def test_axes_and_limits_are_checked(values: dict, control: list[str], limit: float | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_controls((SHUTTER, APERTURE), values, control, limit=limit, source="A")


def test_points_are_the_product_or_pairs() -> None:
    controls = {"shutter": (-1.0, 0.0, 1.0), "aperture": (0.0, 0.5, 1.0), "temperature": (0.2,)}
    crossed, paired = make_points(controls), make_points(controls, zipped=True)
    assert len(crossed) == 9 and crossed[1] == {"shutter": -1.0, "aperture": 0.5, "temperature": 0.2}
    assert [tuple(point.values()) for point in paired] == [(-1.0, 0.0, 0.2), (0.0, 0.5, 0.2), (1.0, 1.0, 0.2)]
    assert make_points({}) == ({},) and make_points({}, zipped=True) == ({},)
    with pytest.raises(InputError, match="--zip pairs values and received 3 of shutter, 2 of aperture"):
        make_points({"shutter": (0.0, 0.1, 0.2), "aperture": (0.0, 1.0)}, zipped=True)


def rows(**changed: object) -> tuple[Row, ...]:
    """Return rows of two prompts, two seeds, two modes and three shutters."""
    options = {
        "axes": (SHUTTER, TEMPERATURE),
        "prompts": [Prompt(prompt="a red ball"), Prompt(prompt="A car!", seed=40, negative="rain")],
        "points": make_points({"shutter": controls_of(SHUTTER, "1/400,1/50,1/37")}),
        "modes": ["decoupled", "backbone_only"],
        "seeds": 2,
    } | changed
    return make_rows(**options)  # type: ignore[arg-type]


def test_rows_are_prompts_seeds_and_modes() -> None:
    found = rows(seed=7)
    assert [(row.prompt, row.seed, row.mode) for row in found[:3]] == [
        ("a red ball", 7, "decoupled"),
        ("a red ball", 7, "backbone_only"),
        ("a red ball", 8, "decoupled"),
    ]
    assert {row.seed for row in found if row.prompt == "A car!"} == {40, 41}
    assert {row.negative for row in found} == {"", "rain"}
    video = found[0].videos[1]
    assert video.labels == ("1/50",) and video.given == ("shutter",)
    assert video.point == {"shutter": pytest.approx(math.log(80 / 50) / math.log(5)), "temperature": 0.0}


def test_names_are_unique_and_do_not_depend_on_the_company() -> None:
    together = [video for row in rows() for video in row.videos]
    assert len({video.name for video in together}) == len(together) == 24
    assert together[0].name == "a-red-ball_seed-0_decoupled_shutter-1-400"
    alone = rows(points=make_points({"shutter": controls_of(SHUTTER, "1/50")}), modes=["decoupled"], seeds=1)
    assert alone[0].videos[0].name == together[1].name
    assert all(video.name.isascii() and "/" not in video.name and " " not in video.name for video in together)


@given(st.lists(st.text(min_size=1, max_size=90), min_size=2, max_size=6, unique=True))
def test_different_prompts_have_different_slugs(texts: list[str]) -> None:
    slugs = [slug(text) for text in texts]
    assert len(set(slugs)) == len(slugs) and all(1 <= len(one) <= 40 for one in slugs)


def test_values_that_are_written_alike_have_different_names() -> None:
    close = make_points({"shutter": (0.3001, 0.3002)})
    names = {video.name for row in rows(points=close, modes=["joint"], seeds=1) for video in row.videos}
    assert SHUTTER.format(0.3001) == SHUTTER.format(0.3002) and len(names) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompts": []}, "there is no prompt"),
        ({"prompts": [Prompt(prompt="x"), Prompt(prompt="x")]}, "the same video is asked for twice"),
        ({"seeds": 0}, "0 seeds from 0"),
        ({"seed": -1}, "2 seeds from -1"),
        ({"strength": math.nan}, "strength nan"),
    ],
)
def test_plans_that_cannot_be(changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rows(**changed)


def test_prompt_files(tmp_path: Path) -> None:
    text, lines, tables = (tmp_path / f"p.{kind}" for kind in ("txt", "jsonl", "toml"))
    text.write_text("# all\n a red ball \n\na car # not a comment\n")
    lines.write_text('{"prompt": "a ball", "seed": 3}\n\n{"prompt": "a car", "negative": "rain"}\n')
    tables.write_text('[[prompts]]\nprompt = "a ball"\nseed = 3\n[[prompts]]\nprompt = "a car"\nnegative = "rain"\n')
    assert [one.prompt for one in read_prompts(text)] == ["a red ball", "a car # not a comment"]
    assert read_prompts(lines) == read_prompts(tables)
    assert read_prompts(lines)[0] == Prompt(prompt="a ball", seed=3)
    assert gather_prompts(["first"], text)[0].prompt == "first"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "# nothing\n", "has no prompt"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "a", "sed": 3}\n', "line 2: sed: .*allowed keys are prompt, seed, negative"),
        ("p.jsonl", "{\n", "line 1 is no JSON"),
        ("p.toml", 'prompt = "a"\n', "has prompt; allowed are"),
        ("p.toml", "[[prompts]]\nprompt = ''\n", "prompt 1: prompt"),
        ("p.csv", "a\n", "of no known form"),
        ("p.txt", None, "does not exist"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / name)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="a prompt is empty"):
        gather_prompts([" "], None)


def test_the_command_has_an_option_for_every_axis() -> None:
    import inspect

    from trainer.commands.generate import command

    assert set(AXES) <= set(inspect.signature(command).parameters)
