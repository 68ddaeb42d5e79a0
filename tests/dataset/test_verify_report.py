"""The verify report's statistics, its JSON and its plot: laws over many random cases."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from generator.recipe.load import parse_recipe
from generator.recipe.plan import make_plan
from generator.verify.findings import ClipMeasurement, VerifyReport, axis_reports, scene_ranks
from generator.verify.plot import plot_report, value_at_distance
from generator.verify.verify_dataset import verify
from generator.versions.working.working_folder import WorkingFolder
from scenes.axes import AXES
from scenes.axes.ticks import scale_values


@pytest.fixture(scope="module")
def report(demo_dataset: WorkingFolder) -> VerifyReport:
    return verify(demo_dataset, workers=1)


def entry(
    number: int, *, error: float | None, labelled: float = 1 / 80, judged: bool = True, scene: str = "s"
) -> ClipMeasurement:
    """Return a shutter measurement with a given error in stops."""
    return ClipMeasurement(
        clip_id=f"{scene}-{number}", scene_id=scene, layer=9, axis="shutter", control=0.0, labelled=labelled,
        measured=None if error is None else labelled * 2.0**error, error=error, judged=judged, confidence=1.0, note="",
    )  # fmt: skip


PLAN_OF_SHUTTER = make_plan(
    parse_recipe(
        'name = "s"\n[[pyramid]]\naxes = ["shutter"]\nfamily = ["flyby"]\nlayers = [1]\nscenes_per_layer = 1\nframes = [5]',
        source="s.toml",
    )
)
errors_and_judged = st.lists(st.tuples(st.one_of(st.none(), st.floats(-3, 3)), st.booleans()), min_size=1, max_size=30)


@given(errors_and_judged)
def test_axis_report_counts_and_median(drawn: list[tuple[float | None, bool]]) -> None:
    entries = [entry(number, error=error, judged=judged) for number, (error, judged) in enumerate(drawn)]
    (found,) = [axis for axis in axis_reports(PLAN_OF_SHUTTER, entries) if axis.axis == "shutter"]
    errors = [abs(error) for error, judged in drawn if error is not None and judged]
    assert found.judged == len(errors)
    assert found.unreadable == sum(error is None and judged for error, judged in drawn)
    assert found.too_small == sum(not judged for _, judged in drawn)
    assert found.judged + found.unreadable + found.too_small == len(drawn)
    assert found.median_error == (statistics.median(errors) if errors else None)
    assert set(found.clips_past_bar) == {
        e.clip_id for e in entries if e.judged and e.error is not None and abs(e.error) > found.median_bar
    }
    enough = found.unreadable <= 0.05 * (len(errors) + found.unreadable)
    within = bool(errors) and statistics.median(errors) <= found.median_bar
    assert found.passed == (within and enough and not found.scenes_past_bar)


@given(st.lists(st.floats(1e-3, 0.06), min_size=3, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_rank_is_spearman_within_the_scene(labels: list[float], random: object) -> None:
    readings = list(labels)
    random.shuffle(readings)  # type: ignore[attr-defined]
    entries = [
        entry(n, error=math.log2(reading / label), labelled=label)
        for n, (label, reading) in enumerate(zip(labels, readings, strict=True))
    ]
    exact = [e.model_copy(update={"measured": reading}) for e, reading in zip(entries, readings, strict=True)]
    (rank,) = scene_ranks(exact)
    assert rank.correlation == pytest.approx(stats.spearmanr(labels, readings).statistic)
    (ordered,) = scene_ranks([e.model_copy(update={"measured": e.labelled * 1.5}) for e in exact])
    assert ordered.correlation == pytest.approx(1.0)


def test_rank_needs_three_readings_joins_ties_and_refuses_constants() -> None:
    two = [entry(n, error=0.0, labelled=label) for n, label in enumerate((0.01, 0.02))]
    assert scene_ranks(two) == ()
    assert scene_ranks([*two, entry(2, error=None, labelled=0.03)]) == ()
    labels = (0.01, 0.02, 0.04)
    grid = [entry(n, error=0.1 * (n % 3 - 1), labelled=labels[n // 3]) for n in range(9)]
    (rank,) = scene_ranks(grid)
    assert (rank.readings, rank.correlation) == (3, pytest.approx(1.0))
    stuck = [entry(n, error=math.log2(0.02 / label), labelled=label) for n, label in enumerate(labels)]
    (flat,) = scene_ranks([e.model_copy(update={"measured": 0.02}) for e in stuck])
    assert flat.correlation == 0.0


def test_one_swap_fails_the_scene_and_names_it() -> None:
    labels = [0.01 * 1.2**n for n in range(9)]
    readings = [*labels[:3], labels[4], labels[3], *labels[5:]]
    entries = [
        entry(n, error=0.0, labelled=label, scene="swapped").model_copy(update={"measured": reading})
        for n, (label, reading) in enumerate(zip(labels, readings, strict=True))
    ]
    (found,) = axis_reports(PLAN_OF_SHUTTER, entries)
    assert found.scenes_past_bar == ("swapped",)
    assert not found.passed


def test_report_as_json_has_the_verdict(report: VerifyReport) -> None:
    tree = json.loads(report.model_dump_json())
    assert tree["passed"] is True
    assert {axis["axis"]: axis["passed"] for axis in tree["axes"]} == dict.fromkeys(AXES, True)
    assert len(tree["measurements"]) == report.clips


# --- the plot -------------------------------------------------------------------------------------------------------------


def test_plot_is_a_picture_with_a_panel_per_axis(report: VerifyReport, tmp_path: Path) -> None:
    plot_report(report, tmp_path / "all" / "verify.png")
    one = report.model_copy(update={"axes": report.axes[:1]})
    plot_report(one, tmp_path / "one.png")
    with Image.open(tmp_path / "all" / "verify.png") as three, Image.open(tmp_path / "one.png") as single:
        assert three.width > 1.5 * single.width  # a single panel is as wide as its legend needs
        assert len(set(three.convert("RGB").get_flattened_data())) > 50


def test_plot_without_any_reading(report: VerifyReport, tmp_path: Path) -> None:
    unread = tuple(e.model_copy(update={"measured": None, "error": None, "judged": False}) for e in report.measurements)
    bare = report.model_copy(update={"measurements": unread})
    plot_report(bare, tmp_path / "bare.png")
    with Image.open(tmp_path / "bare.png") as picture:
        assert picture.width > 500


@given(st.sampled_from(sorted(AXES)), st.floats(-1, 1), st.floats(-4, 4))
def test_value_at_distance_inverts_the_axis(axis: str, control: float, distance: float) -> None:
    reference = AXES[axis].default_law.value(control)
    assert AXES[axis].distance(value_at_distance(axis, reference, distance), reference) == pytest.approx(distance, abs=1e-6)


@given(st.sampled_from(sorted(AXES)), st.floats(0.3, 1.0), st.integers(3, 12))
def test_scale_values_are_few_ascending_and_inside(axis: str, reach: float, most: int) -> None:
    law = AXES[axis].default_law
    low, high = sorted((law.value(-reach), law.value(reach)))
    values = scale_values(axis, low, high, most)
    assert 1 <= len(values) <= most
    assert values == sorted(set(values))
    assert low <= values[0] <= values[-1] <= high
