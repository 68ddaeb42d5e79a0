"""Comparisons: cells of a recipe, numbers over seeds, claims that follow the numbers, the page and the Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from evaluation_support import report_of, synthetic
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from scenes.errors import InputError
from trainer.comparison.aggregate import aggregate
from trainer.comparison.claims import MODE_CLAIMS, comparison_verdict, judge, outcome_of
from trainer.comparison.comparison_page import END, START, ComparisonPage, fill_markdown, write_comparison
from trainer.comparison.run_grid import load_comparison
from trainer.comparison.seed_means import (
    FILE,
    ComparisonReport,
    GridRunReport,
    SeedMean,
    arm_rows,
    paired,
    read_comparison,
    seed_mean,
)
from trainer.config.evaluate import CONTROLLED, WITHOUT_LORA
from trainer.control.laws import axis_control
from trainer.control.modes import PARTS
from trainer.evaluation.results import EstimatedValue, EvaluationReport, Fep
from trainer.runs.expect import expected_videos

RECIPE = """
name = "both"
[video]
width = 64
height = 64
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3]
scenes_per_layer = 1
frames = [5]
[compare]
fidelity = ["flat", "pbr"]
seeds = [0, 1, 2]
trained = ["joint", "adapter_only"]
[train]
steps = 4
[train.backbone]
name = "tiny"
[evaluate]
prompts = ["a", "b", "c"]
controls = "-1,0,1"
features = ["tiny"]
fep = false
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationReport]:
    """The evaluation of drawn casts, with two controlled modes and one without control."""
    folder = tmp_path_factory.mktemp("drawn")
    modes = ("decoupled", "joint", "backbone_only", "control_only")
    plan, measured = synthetic(folder, ["temperature"], 3, controls="-1,0,1", modes=modes)
    return folder, report_of(plan, measured, [axis_control("temperature")])


def cell(
    report: EvaluationReport, fidelity: str, seed: int, slopes: Mapping[str, float], drift: Mapping[str, float]
) -> GridRunReport:
    """A run whose arms have these slopes and distances from the backbone."""
    accuracy = tuple(
        one.model_copy(update={"slope": EstimatedValue(value=slopes[one.arm])}) if one.arm in slopes else one
        for one in report.accuracy
    )
    fast = tuple(Fep(arm=arm, extractor="e", ssf=1 - fd / 100, ss_fd=fd, dvs=1.0, videos=8) for arm, fd in drift.items())
    changed = report.model_copy(update={"accuracy": accuracy, "fep": fast})
    return GridRunReport(name=f"{fidelity}-{seed}", fidelity=fidelity, seed=seed, trained="joint", report=changed, wall_s=60.0)


def compared(report: EvaluationReport, *, better: float, nearer: float, control: float = 0.8) -> ComparisonReport:
    """Three seeds at two fidelities: flat has `better` more control than pbr, decoupled is `nearer` the backbone than joint."""
    noise = np.random.default_rng(0).normal(0.0, 0.01, (2, 3))
    cells = [
        cell(
            report,
            fidelity,
            seed,
            {"decoupled": control + better * (row == 0) + noise[row, seed], "joint": control + noise[row, seed] / 2},
            {"joint": 5.0 + nearer + noise[row, seed], "decoupled": 5.0 - noise[row, seed], "noise floor": 9.0},
        )
        for row, fidelity in enumerate(("flat", "pbr"))
        for seed in range(3)
    ]
    return aggregate("both", cells)


def outcomes(report: ComparisonReport, name: str) -> list[str]:
    return [one.outcome for one in report.judgements if one.name == name]


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6))
def test_the_interval_over_seeds_is_student_s(values: list[float]) -> None:
    one = seed_mean(dict(enumerate(values)))
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    assert one.value == pytest.approx(np.mean(values)) and one.low is not None and one.high is not None
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=spread)
        assert (one.low, one.high) == (pytest.approx(low), pytest.approx(high))


def test_what_was_not_measured_stays_out_and_seeds_are_paired() -> None:
    assert seed_mean({0: None}) == SeedMean(value=None)
    assert seed_mean({0: 1.0, 1: None}).low is None
    left, right = seed_mean({0: 1.0, 1: 5.0, 2: 7.0}), seed_mean({1: 4.0, 2: 6.0})
    difference = paired(left, right)
    assert difference.by_seed == {1: 1.0, 2: 1.0} and outcome_of(difference) == "reproduced"
    assert outcome_of(paired(right, left)) == "not reproduced" and outcome_of(SeedMean(value=None)) == "not measured"
    assert outcome_of(seed_mean({0: 1.0})) == "undecided"


def test_claims_follow_the_numbers(drawn: tuple[Path, EvaluationReport]) -> None:
    _, report = drawn
    borne = compared(report, better=0.2, nearer=2.0)
    assert outcomes(borne, "prior kept") == outcomes(borne, "below the noise") == ["reproduced", "reproduced"]
    assert outcomes(borne, "less is more, control") == ["reproduced"]
    against = compared(report, better=-0.4, nearer=-2.0)
    assert outcomes(against, "prior kept") == ["not reproduced", "not reproduced"]
    assert outcomes(against, "less is more, control") == ["not reproduced"]
    neither = compared(report, better=-0.08, nearer=0.0)  # at the margin of nine tenths
    assert outcomes(neither, "prior kept") == ["undecided", "undecided"]
    assert outcomes(neither, "less is more, control") == ["undecided"]
    assert outcomes(borne, "LoRA absorbs the look") == ["not measured", "not measured"]
    assert any("reproduced with flat, pbr" in line for line in borne.verdict)


def test_a_control_that_does_nothing_bears_no_claim_out(drawn: tuple[Path, EvaluationReport]) -> None:
    idle = compared(drawn[1], better=0.0, nearer=2.0, control=0.0)
    assert outcomes(idle, "prior kept") == ["undecided", "undecided"]
    assert all("does nothing" in one.words for one in idle.judgements if one.name == "prior kept")


def test_an_adapter_trained_alone_is_an_arm_of_its_own(drawn: tuple[Path, EvaluationReport]) -> None:
    joint = cell(drawn[1], "flat", 0, {"decoupled": 0.5}, {"decoupled": 1.0, "control_only": 2.0})
    alone = cell(drawn[1], "flat", 0, {"control_only": 0.25}, {"control_only": 7.0})
    rows = {row.arm: row for row in arm_rows([joint, GridRunReport(**{**vars(alone), "trained": "adapter_only"})])}
    assert rows["adapter_only"].numbers["ss_fd"].value == 7.0 and rows["adapter_only"].numbers["slope"].value == 0.25
    assert rows["control_only"].numbers["ss_fd"].value == 2.0


def test_runs_that_cannot_be_compared_are_refused(drawn: tuple[Path, EvaluationReport]) -> None:
    one, other = (cell(drawn[1], "flat", seed, {}, {}) for seed in (0, 1))
    changed = other.report.model_copy(update={"prompts": {"temperature": ("another",)}})
    with pytest.raises(InputError, match="flat-0 and flat-1 differ in prompts"):
        aggregate("x", [one, GridRunReport(**{**vars(other), "report": changed})])


def test_the_page_and_the_text_hold_every_number(drawn: tuple[Path, EvaluationReport], tmp_path: Path) -> None:
    folder, evaluation = drawn
    report = compared(evaluation, better=0.2, nearer=2.0)
    (tmp_path / FILE).write_text(report.model_dump_json())
    assert read_comparison(tmp_path) == report
    for one in report.cells:
        (tmp_path / one.name).mkdir()
        (tmp_path / one.name / "evaluation").symlink_to(folder)
    (folder / "report.json").write_text(evaluation.model_dump_json())
    size = write_comparison(report, ComparisonPage(folder=tmp_path, command="stopdown run x.toml"), tmp_path / "r.html")
    page = re.sub(r"<script>.*?</script>", "", (tmp_path / "r.html").read_text(), flags=re.S)
    assert size < 30_000_000 and not re.search(r'(?:src|href)=(?!"(?:data:|#))|https?://(?!www\.w3\.org)', page)
    assert page.index("prior kept") < page.index("Control accuracy") and "another, far larger model" in page
    assert "arXiv 2511.17844" in page and page.count('class="strip-row"') == 4  # two modes with control, two fidelities
    note = tmp_path / "note.md"
    note.write_text(f"# Mine\n\n{START}\nold\n{END}\n\nafter\n")
    fill_markdown(note, report)
    first = note.read_text()
    assert first.startswith("# Mine") and first.endswith("after\n") and "old" not in first and "less is more, control" in first
    fill_markdown(note, report)
    assert note.read_text() == first
    note.write_text("# no marks\n")
    with pytest.raises(InputError, match="has no place for results"):
        fill_markdown(note, report)


def test_every_claim_is_told_once(drawn: tuple[Path, EvaluationReport]) -> None:
    report = compared(drawn[1], better=0.2, nearer=2.0)
    lines = comparison_verdict(judge(report.rows), 3)
    assert len(lines) == 1 + len(MODE_CLAIMS) + 2
    assert comparison_verdict(judge(report.rows), 1)[-1].startswith("seeds: one seed")


def test_a_recipe_s_cells_are_runs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    comparison = load_comparison(tmp_path / "r.toml", ["train.steps=7"])
    assert [one.name for one in comparison.cells[:4]] == ["flat-0", "flat-0-adapter_only", "pbr-0", "pbr-0-adapter_only"]
    assert len({one.name for one in comparison.cells}) == 12
    for one in comparison.cells:
        settings = one.recipe.train(Path(), "latest", Path())
        assert (settings.seed, settings.adapter.arm, settings.steps) == (one.seed, one.trained, 7)
        assert one.recipe.dataset.render.fidelity == one.fidelity and one.recipe.evaluate.seed == 1000 * one.seed
        assert one.recipe.overrides[0] == "train.steps=7"
    assert len({one.recipe.plan().digest for one in comparison.cells}) == 2, "one dataset for each fidelity"
    by_name = {one.name: one for one in comparison.cells}
    # three prompts: decoupled and joint at three controls, two uncontrolled modes, two more words; control alone and backbone
    assert expected_videos(by_name["flat-0"].recipe) == 3 * (3 + 3 + 1 + 1 + 2)
    assert expected_videos(by_name["flat-0-adapter_only"].recipe) == 3 * (3 + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('fidelity = ["flat", "pbr"]', 'fidelity = ["flat", "real"]'), "compare.fidelity"),
        (('fidelity = ["flat", "pbr"]', 'fidelity = ["flat", "flat"]'), "stands twice"),
        (("seeds = [0, 1, 2]", "seeds = []"), "compare.seeds"),
        (('trained = ["joint", "adapter_only"]', 'trained = ["adapter_only"]'), "'joint' is missing"),
        (("steps = 4", "steps = 4\nseed = 3"), "train.seed is set, and compare.seeds decides it"),
        (("[compare]", "[render]\nfidelity = 'lit'\n[compare]"), "render.fidelity is set"),
        (("trained = [", "trianed = ["), "did you mean 'trained'"),
    ],
)
def test_a_bad_comparison_is_one_line(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.replace(*change, 1))
    with pytest.raises(InputError, match=re.escape(words)) as refused:
        load_comparison(tmp_path / "r.toml")
    assert "\n" not in str(refused.value)


def test_the_command_plans_a_comparison_and_refuses_what_does_not_fit_it(tmp_path: Path) -> None:
    import typer

    from trainer.commands.run import command

    app = typer.Typer()
    app.command()(command)
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "plain.toml").write_text(re.sub(r"\[compare\].*?(?=\[train\])", "", RECIPE, flags=re.S))

    def told(*words: str) -> str:
        made = CliRunner().invoke(app, [*words], catch_exceptions=True)
        return f"{made.output} {made.exception or ''}"

    where = ("--out", str(tmp_path / "runs"), "--dataset", str(tmp_path / "data"))
    planned = told(str(tmp_path / "r.toml"), "--dry-run", *where)
    assert "pbr-2" in planned and "on one core" in planned and "not done" in planned
    assert "no cell 'flat-7'" in told(str(tmp_path / "r.toml"), "--cell", "flat-7", *where)
    assert "use --cell instead" in told(str(tmp_path / "r.toml"), "--new", *where)
    assert "has no cells" in told(str(tmp_path / "plain.toml"), "--cell", "flat-0", *where)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.toml", "r.toml"]


def test_what_is_said_of_modes_without_torch_is_what_they_are() -> None:
    assert {str(mode) for mode, parts in PARTS.items() if parts.control} == CONTROLLED
    assert {str(mode) for mode, parts in PARTS.items() if parts.lora == "none"} == WITHOUT_LORA


def test_the_shipped_comparison_reads() -> None:
    comparison = load_comparison(Path(__file__).parents[3] / "examples" / "less_is_more.toml")
    assert [comparison.settings.fidelity, len(comparison.settings.seeds)] == [("flat", "lit", "pbr"), 3]
    assert len(comparison.cells[0].recipe.evaluate.prompts) >= 8, "a Fréchet distance needs eight"
