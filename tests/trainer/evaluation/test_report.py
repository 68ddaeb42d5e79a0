"""The report as a file: self-contained, small, escaped, with the parts that there are and a word for those that are not."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from evaluation_support import report_of, synthetic
from generation_support import output

from generator.media.video import decode
from generator.versions.working.working_folder import WorkingFolder
from generator.web.glossary import Glossary
from scenes.errors import InputError
from trainer.commands.report import command
from trainer.control.laws import axis_control
from trainer.evaluation.results import FILE, EvaluationReport, VideoReading, read_report
from trainer.generation.values import controls_of
from trainer.report import ReportParts, write_report
from trainer.report.plots import pyramid_figure, response_figure, training_figure
from trainer.report.report_glossary import WORDS
from trainer.report.sweeps import make_stages, mosaic, step_of
from trainer.report.tables import accuracy_table, published_table
from trainer.training.callbacks.curves import Panel


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of drawn casts, two modes."""
    folder = tmp_path_factory.mktemp("drawn")
    plan, measured = synthetic(folder, ["temperature"], 3, controls="-1,0,1", modes=("decoupled", "joint", "lora_only"))
    report = report_of(plan, measured, [axis_control("temperature")])
    (folder / FILE).write_text(report.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def report(evaluation: Path) -> EvaluationReport:
    """Its numbers."""
    return read_report(evaluation)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run's folder with a metric log."""
    folder = tmp_path_factory.mktemp("run")
    steps = [{"step": step, "kind": "train", "values": {"loss": 1 / step}, "machine": {}} for step in range(1, 21)]
    steps += [
        {"step": step, "kind": "validation", "values": {"loss": 2 / step, "gap": 0.1}, "machine": {}} for step in (10, 20)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return folder


def test_the_file_holds_everything_and_refers_to_nothing(evaluation: Path, run_folder: Path, tmp_path: Path) -> None:
    parts = ReportParts(
        title="a <b>run</b>",
        evaluation=evaluation,
        training=run_folder,
        recipe="name = '<script>alert(1)</script>'",
        command="stopdown run x.toml",
        stages=(("build", 30.0), ("train", 600.0)),
        facts={"version": "abc"},
    )
    written = write_report(parts, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = re.sub(r"<script>.*?</script>", "", text, flags=re.S)  # without Plotly's own words
    assert written.size_bytes == len(text.encode()) < 30_000_000
    assert not re.search(r'(?:src|href)=(?!"(?:data:|#))|url\((?!data:)|@import|https?://(?!www\.w3\.org)', page)
    assert "<b>run" not in page and "a &lt;b&gt;run" in page and "<script>alert" not in text
    assert "drawn, not &lt;generated&gt;" in page
    assert written.verdict[0] in page.replace("<b>temperature</b>", "temperature: ")
    for words in ("not in this report: the dataset", "stopdown run x.toml", "30 s", "10 min", "abc", "training loss"):
        assert words in page
    assert "not in this report: training" not in page


def test_it_names_the_adapter_and_commands_that_work(evaluation: Path, tmp_path: Path) -> None:
    """The commands of the page are split as a shell splits them, and their commands take them."""
    write_report(ReportParts(title="t", evaluation=evaluation), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    shown = [html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page, flags=re.S)]
    generated, played = shown[0].splitlines()
    assert "<dd>runs/drawn/adapter</dd>" in page
    words = shlex.split(generated)
    assert words[:4] == ["stopdown", "generate", "--adapter", "runs/drawn/adapter"] and "temperature 0" in words
    controls = controls_of(axis_control("temperature"), words[words.index("--temperature") + 1])
    assert controls == pytest.approx((-1.0, -0.5, 0.0, 0.5, 1.0), abs=0.01)
    assert shlex.split(played) == ["stopdown", "play", "runs/drawn/adapter", "--size", "96x96", "--frames", "5"]
    again = shlex.split(shown[1])
    assert again == ["stopdown", "report", "report.html", "--evaluation", str(evaluation)]
    output(command, tmp_path / "again.html", *again[3:], "--title", "t")
    assert (tmp_path / "again.html").read_text() == (tmp_path / "report.html").read_text()


def test_words_are_explained_where_they_first_stand_and_once(evaluation: Path, tmp_path: Path) -> None:
    write_report(ReportParts(title="t", evaluation=evaluation), tmp_path / "report.html")
    text = re.sub(r"<script.*?</script>", "", (tmp_path / "report.html").read_text(), flags=re.S)
    explained = re.findall(r"<dfn>(.*?)</dfn>", text)
    assert len(set(explained)) == len(explained) and set(explained) <= set(WORDS)
    assert {"mired", "ρ", "arm", "decoupled", "c = 0", "SSF", "SS-FD"} <= set(explained)
    for word in ("mired", "ρ"):
        assert text.index(f"<dfn>{word}</dfn>") < text.index('class="axis"'), "they stand in the verdict"
    glossary = Glossary({"bar": "x", "stop": "y"})
    assert glossary.first("a barrel of non-stop") == () and glossary.first("two stops", "bar") == (("stop", "y"), ("bar", "x"))
    assert glossary.first("stop, bar") == ()


def test_a_tile_that_reads_another_value_than_commanded_explains_itself() -> None:
    """A generated room may be warm at c = 0: the control moves it from there."""
    video = VideoReading(control=0.0, label="6500 K", video="a.mp4", measured=0.0, absolute=2579.0, expected=0.0, note="")
    warm = step_of(video, "temperature", 6500.0)
    assert warm.reading == "+0 mired · 2579 K on its own"
    assert warm.note.startswith("2579 K where 6500 K is commanded: what a scene is at c = 0 is the generator's choice")
    assert step_of(video.model_copy(update={"absolute": 6300.0}), "temperature", 6500.0).note == ""
    assert step_of(video, "temperature", None).note == "", "an adapter without a unit law commands no value"


def test_verdict_comes_before_all_else(evaluation: Path, tmp_path: Path) -> None:
    write_report(ReportParts(title="t", evaluation=evaluation), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert text.index("the control works") < text.index('class="axis"') < text.index("Control accuracy")
    assert text.index("<h1>") < text.index("the control works")


def test_a_mosaic_is_the_videos_side_by_side(evaluation: Path, report: EvaluationReport) -> None:
    (stage,) = make_stages(report, evaluation)
    cell = stage.cells[0]
    assert stage.arms == ("decoupled", "joint") and len(stage.cells) == 6, "an arm that knows no control has no sweep to show"
    assert stage.labels[stage.start] == "6500 K" and stage.controls == ("c −1.00", "c +0.00", "c +1.00")
    page_THW3 = decode(base64.b64decode(cell.media.partition(",")[2]))
    sweep = next(one for one in report.sweeps if (one.arm, one.prompt) == (cell.arm, cell.prompt))
    for place, video in enumerate(sweep.videos):
        top, left = (place // cell.columns) * cell.height, (place % cell.columns) * cell.width
        shown = page_THW3[:, top : top + cell.height, left : left + cell.width].astype(int)
        assert np.abs(shown - decode(evaluation / video.video)).mean() < 6
        assert cell.steps[place].reading.startswith("+0 mired" if video.control == 0 else ("−" if video.control < 0 else "+"))


def test_large_videos_are_made_smaller_and_odd_sizes_even() -> None:
    page_THW3, columns, (width, height) = mosaic([np.zeros((3, 481, 833, 3), np.uint8)] * 5)
    assert (columns, width) == (3, 320) and height % 2 == 0 and page_THW3.shape == (3, 2 * height, 960, 3)
    long, _, (narrow, _) = mosaic([np.zeros((81, 96, 160, 3), np.uint8)] * 49)
    assert narrow < 160 and long.nbytes <= 48e6


def test_what_does_not_fit_is_left_out_and_said(evaluation: Path, report: EvaluationReport) -> None:
    (stage,) = make_stages(report, evaluation, media_bytes=1)
    assert len(stage.cells) == 1 and stage.left_out == 5


def test_every_number_of_the_tables_is_in_the_report(report: EvaluationReport) -> None:
    table = accuracy_table(report)
    assert len(table.rows) == len(report.accuracy) and all(len(row) == len(table.head) for row in table.rows)
    main = next(row for number, row in enumerate(table.rows) if number in table.main)
    own = next(one for one in report.accuracy if one.arm == "decoupled")
    assert f"{own.rho.value:.2f} [" in main[2] and "mired" in main[4]
    assert "knows no control" in table.note
    context = published_table(report.published)
    assert ("SSF", "shutter") in {row[:2] for row in context.rows} and "cannot be held against ours" in " ".join(
        context.note.split()
    )


def test_the_response_curve_is_the_report_s(report: EvaluationReport) -> None:
    figure = response_figure(report, "temperature")
    by_name = {trace["name"]: trace for trace in figure["data"]}
    own = next(one for one in report.accuracy if one.arm == "decoupled")
    assert by_name["decoupled"]["y"] == [point.median for point in own.curve]
    assert by_name["commanded"]["y"] == [point.expected for point in own.curve]
    assert figure["layout"]["xaxis"]["ticktext"] == [point.label for point in own.curve]
    json.dumps(figure, allow_nan=False)


def test_a_dataset_s_pyramid_and_labels_are_drawn(demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    written = write_report(ReportParts(title="data", dataset=demo_dataset.path), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert written.verdict == () and "not in this report: the evaluation" in text
    for axis in demo_dataset.plan.recipe.used_axes:
        assert f'id="plot-pyramid-{axis}"' in text and f'id="plot-labels-{axis}"' in text
        figure = pyramid_figure(demo_dataset.plan, axis)
        assert figure is not None
        drawn = sorted(control for trace in figure["data"] for control in trace["x"])
        assert drawn == sorted(clip.controls[axis] for clip in demo_dataset.plan.clips if axis in clip.axes)
    assert text.count('class="strip-row"') == len(demo_dataset.plan.recipe.used_axes)


def test_long_curves_are_thinned_and_say_so() -> None:
    steps = list(range(1, 50_001))
    figure = training_figure(Panel(title="x", curves={"loss": (steps, [1.0 / step for step in steps])}, empty=""))
    assert figure is not None
    (trace,) = figure["data"]
    assert len(trace["x"]) == len(trace["y"]) == 3000 and trace["name"] == "loss, 3000 of 50000"
    assert (trace["x"][0], trace["x"][-1]) == (1, 50_000) and trace["y"] == [1.0 / step for step in trace["x"]]


def test_the_command_writes_the_file_and_says_the_verdict(evaluation: Path, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("seed = 77\n")
    words = ["--evaluation", evaluation, "--run", run_folder, "--recipe", tmp_path / "recipe.toml", "--title", "Mine"]
    told = output(command, tmp_path / "r.html", *words)
    text = (tmp_path / "r.html").read_text()
    assert told.startswith("temperature: the control works") and " MB" in told
    assert "<h1>Mine</h1>" in text and "seed = 77" in text


def test_what_is_no_part_is_refused(evaluation: Path, tmp_path: Path) -> None:
    for parts, out, words in (
        (ReportParts(title="t"), "r.html", "needs something to tell of"),
        (ReportParts(title="t", evaluation=tmp_path), "r.html", f"has no {FILE}"),
        (ReportParts(title="t", training=tmp_path), "r.html", "has no metrics.jsonl"),
        (ReportParts(title="t", dataset=tmp_path), "r.html", "not a Stopdown dataset"),
        (ReportParts(title="t", evaluation=evaluation), "r.pdf", r"no \.html file"),
    ):
        with pytest.raises(InputError, match=words):
            write_report(parts, tmp_path / out)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / FILE).write_text('{"format": 1}')
    with pytest.raises(InputError, match="cannot be read"):
        write_report(ReportParts(title="t", evaluation=damaged), tmp_path / "r.html")
