"""Writes the report: reads its parts, draws its figures, fills the template."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from generator.io.atomic import write_atomic
from generator.verify.findings import axis_reports, stored_measurements
from generator.versions.working.working_folder import WorkingFolder
from generator.web.gallery import environment, in_order
from generator.web.gallery_pictures import webp
from generator.web.glossary import Glossary
from scenes.axes import AXES
from scenes.errors import InputError
from trainer.evaluation.results import EvaluationReport
from trainer.report.parts import Loaded, ReportParts, load_parts
from trainer.report.plots import (
    Figure,
    drift_figure,
    labels_figure,
    leakage_figure,
    pyramid_figure,
    response_figure,
    training_figure,
)
from trainer.report.report_glossary import WORDS
from trainer.report.sweeps import MEDIA_BYTES, SweepStage, make_stages
from trainer.report.tables import Table, accuracy_table, drift_table, kept_table, published_table, words_table
from trainer.training.callbacks.curves import panels

MOST_BYTES = 30_000_000  # of the file
STRIP_PX = 128
# The parts of the template that a page may leave out, and what stands for them.
ABSENT: dict[str, Any] = {
    **dict.fromkeys(("notes", "absent", "stages", "plots", "tables", "training", "dataset", "strips", "facts"), ()),
    "following": (),
    **dict.fromkeys(("leakage", "context", "drift", "recipe", "command")),
    "responses": {},
    "main_arm": "",
}


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What was written: where, how large, and the verdict that stands first."""

    path: Path
    size_bytes: int
    verdict: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure with its name, a caption and the words that stand for it where it cannot be seen."""

    name: str
    figure: Figure
    title: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A row of small pictures with their labels: one scene of the dataset, or one sweep."""

    title: str
    caption: str
    pictures: tuple[tuple[str, str], ...]  # data: URI, label


def write_report(parts: ReportParts, out: Path) -> WrittenReport:
    """Write a report as one HTML file that needs nothing else; parts that are None are left out, and the report says so.

    Videos are shown as long as the file stays below 30 MB. Raises InputError for an `out` that is no .html file and for parts
    that cannot be read.
    """
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out} is no .html file; give a file name like report.html")
    loaded = load_parts(parts)
    media_bytes = MEDIA_BYTES
    while True:
        data = _render(loaded, media_bytes).encode()
        if len(data) <= MOST_BYTES or media_bytes == 0:
            break
        media_bytes = media_bytes // 2 if media_bytes > 1_000_000 else 0
    write_atomic(out, data)
    return WrittenReport(path=out, size_bytes=len(data), verdict=loaded.evaluation.verdict if loaded.evaluation else ())


def _render(loaded: Loaded, media_bytes: int) -> str:
    parts, report = loaded.parts, loaded.evaluation
    stages: tuple[SweepStage, ...] = ()
    if report is not None and parts.evaluation is not None:
        stages = make_stages(report, parts.evaluation, media_bytes=media_bytes)
    return fill(
        title=parts.title,
        verdict=report.verdict if report else (),
        notes=report.notes if report else (),
        absent=loaded.absent,
        facts=_facts(loaded),
        stages=stages,
        responses={} if report is None else {axis: response_plot(report, axis) for axis in report.axes},
        leakage=None if report is None else leakage_plot(report),
        tables=[] if report is None else _tables(report),
        context=None if report is None else published_table(report.published),
        drift=drift_plot(report),
        training=training_plots(loaded),
        dataset=dataset_plots(loaded.dataset),
        strips=[] if loaded.dataset is None else strips(loaded.dataset),
        recipe=parts.recipe,
        command=parts.command or (None if report is None else _evaluated_by(loaded)),
        following=() if report is None else next_commands(report),
        times=parts.stages,
        main_arm=report.main_arm if report else "",
    )


def fill(
    *,
    title: str,
    verdict: Sequence[str] = (),
    times: Sequence[tuple[str, float]] = (),
    **given: Any,
) -> str:
    """Return a page of the report's template; parts that are not given are left out. `times` are names and seconds."""
    shared = environment()
    shared.loader = jinja2.ChoiceLoader([jinja2.PackageLoader("trainer", "templates"), shared.loader or jinja2.DictLoader({})])
    return shared.get_template("report.html.j2").render(
        **{**ABSENT, **given},
        title=title,
        verdict=[_split(line) for line in verdict],
        times=[(name, _seconds(seconds)) for name, seconds in times],
        plotly=Markup(plotly_source()),
        glossary=Glossary(WORDS),
    )


def plotly_source() -> str:
    """Return Plotly's own script, to be put into the page; raises InputError where the package is missing."""
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise InputError("plotly is not installed, and the report draws with it; pip install 'stopdown[train]'") from None


def response_plot(report: EvaluationReport, axis: str) -> Plot:
    """Return the response curve of an axis."""
    main = next(one for one in report.accuracy if (one.axis, one.arm) == (axis, report.main_arm))
    read = "; ".join(
        f"{point.label} read {point.median:.2f}"
        for point in main.curve
        if point.median is not None and point.expected is not None
    )
    return Plot(
        name=f"response-{axis}",
        figure=response_figure(report, axis),
        title=f"{axis}: measured against commanded",
        words=f"Median distance from c = 0 in {main.unit}, {report.main_arm}: {read or 'nothing could be read'}.",
    )


def leakage_plot(report: EvaluationReport) -> Plot | None:
    """Return the heat map of leakage in the main arm."""
    figure = leakage_figure(report.leakage, report.main_arm)
    if figure is None:
        return None
    words = (
        "How the axis that is read follows a sweep of another, as a share of what its own control gives; the aim is 100 % on "
        "the diagonal and nothing beside it."
    )
    return Plot(name="leakage", figure=figure, title="Leakage between axes", words=words)


def drift_plot(report: EvaluationReport | None) -> Plot | None:
    """Return SS-FD over training steps, where it was measured."""
    if report is None or report.drift is None:
        return None
    rate = report.drift.per_1000_steps
    told = "one step only, so there is no rate" if rate is None else f"{rate:.3g} per 1000 steps"
    words = (
        f"SS-FD of {report.drift.mode} against the clean backbone over training: {told}. Features: {report.drift.extractor}."
    )
    return Plot(name="drift", figure=drift_figure(report.drift), title="Drift over training", words=words)


def training_plots(loaded: Loaded) -> list[Plot]:
    """Return the curves of the training run that are not empty."""
    found = []
    for number, panel in enumerate(panels(loaded.events) if loaded.events else ()):
        figure = training_figure(panel)
        if figure is not None:
            found.append(Plot(name=f"training-{number}", figure=figure, title=panel.title, words=panel.title))
    return found


def dataset_plots(dataset: WorkingFolder | None) -> list[tuple[str, Plot | None, Plot | None, str]]:
    """Return, for each axis of a dataset, its pyramid, measured against labelled values, and what `verify` would say."""
    if dataset is None:
        return []
    measurements = stored_measurements(dataset)
    found = []
    for one in axis_reports(dataset.plan, measurements):
        pyramid, labels = pyramid_figure(dataset.plan, one.axis), labels_figure(one.axis, measurements)
        median = "none" if one.median_error is None else f"{one.median_error:.3g} {one.unit}"
        told = f"{one.judged} of {one.clips} clips judged, median error {median} (bar {one.median_bar:g})"
        told += f"; {one.unproven}" if one.unproven else ""
        found.append(
            (
                one.axis,
                None
                if pyramid is None
                else Plot(
                    name=f"pyramid-{one.axis}", figure=pyramid, title=f"{one.axis}: values drawn", words="One dot a clip."
                ),
                None
                if labels is None
                else Plot(name=f"labels-{one.axis}", figure=labels, title=f"{one.axis}: measured and labelled", words=told),
                told,
            )
        )
    return found


def strips(dataset: WorkingFolder) -> list[Strip]:
    """Return, for each axis of a dataset, the scene with the most values, as pictures of its clips' middle frames."""
    found = []
    for axis in dataset.plan.recipe.used_axes:
        scenes = [scene for scene in dataset.plan.scenes if axis in dataset.plan.clip_by_id[scene.clip_ids[0]].axes]
        if not scenes:
            continue
        clips = in_order(dataset.plan, max(scenes, key=lambda scene: len(scene.clip_ids)))
        pictures = []
        for clip in clips:
            frames_THW3 = dataset.frames(clip.clip_id)
            pictures.append((webp(frames_THW3[len(frames_THW3) // 2], STRIP_PX, 80), AXES[axis].format(clip.values[axis])))
        found.append(Strip(title=f"{axis}: one scene", caption=clips[0].caption, pictures=tuple(pictures)))
    return found


def next_commands(report: EvaluationReport) -> tuple[str, ...]:
    """Return what to run to see the adapter at work: a sweep of its first axis, and the page with sliders."""
    curve = next((one.curve for one in report.accuracy if one.arm == report.main_arm), ())
    ends = [point.label.replace(" ", "") for point in curve if point.value is not None and abs(abs(point.control) - 1) < 1e-9]
    axis = report.axes[0]
    swept = [f"--{axis}", f"{ends[0]}..{ends[-1]}:5"] if len(ends) > 1 else ["--control=-1..1:5"]
    prompt = report.prompts[axis][0]
    size = ["--width", report.sampling["width"], "--height", report.sampling["height"], "--frames", report.sampling["frames"]]
    guidance = report.sampling.get("control_guidance", 1.0)
    pushed = [] if guidance == 1 else ["--control-guidance", f"{guidance:g}"]
    words = ["stopdown", "generate", "--adapter", report.adapter, "--prompt", prompt, *swept, *size, *pushed]
    play = ["stopdown", "play", report.adapter, "--size", f"{report.sampling['width']}x{report.sampling['height']}"]
    return tuple(shlex.join(map(str, line)) for line in (words, [*play, "--frames", report.sampling["frames"]]))


def _evaluated_by(loaded: Loaded) -> str | None:
    """Return the command that writes this page again from what is there."""
    parts = loaded.parts
    given = {"--evaluation": parts.evaluation, "--run": parts.training, "--dataset": parts.dataset}
    words = [word for option, path in given.items() if path is not None for word in (option, str(path))]
    return shlex.join(["stopdown", "report", "report.html", *words])


def _facts(loaded: Loaded) -> list[tuple[str, str]]:
    """Return what was run, by name."""
    found = list(loaded.parts.facts.items())
    report = loaded.evaluation
    if report is not None:
        sampling = report.sampling
        found += [
            ("adapter", report.adapter),
            ("trained", f"{report.adapter_step} steps"),
            ("dataset version", (report.dataset_version or "none recorded")[:12]),
            ("backbone", Path(report.backbone).name),
            ("picture", f"{sampling['width']} × {sampling['height']}"),
            ("frames", f"{sampling['frames']} at {report.settings['fps']} fps"),
            ("steps", f"{sampling['steps']}, guidance {sampling['guidance']:g}"),
            ("control guidance", f"{sampling.get('control_guidance', 1.0):g}"),
            ("prompts", f"{max(len(prompts) for prompts in report.prompts.values())} ({report.prompts_from})"),
            ("seeds", f"{report.settings['seeds']} from {report.settings['seed']}"),
            ("features", ", ".join(report.extractors)),
            ("evaluated in", _seconds(report.wall_s)),
            ("made with", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
        ]
    if loaded.dataset is not None:
        plan = loaded.dataset.plan
        found += [("dataset", f"{plan.name}: {len(plan.clips)} clips, {len(plan.scenes)} scenes, seed {plan.seed}")]
    if loaded.events:
        found.append(("training run", f"{max(event.step for event in loaded.events)} steps"))
    return found


def _tables(report: EvaluationReport) -> list[Table]:
    every = [accuracy_table(report), drift_table(report), kept_table(report), words_table(report)]
    return [table for table in every if table.rows]


def _split(line: str) -> dict[str, str]:
    """Return a line of the verdict as its subject and the rest."""
    subject, colon, rest = line.partition(": ")
    return {"subject": subject if colon else "", "rest": rest if colon else line}


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
