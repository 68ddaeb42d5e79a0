"""The page and the text of a comparison: the claims first, then every arm at every fidelity, with published numbers beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from generator.io.atomic import write_atomic
from generator.media.video import decode
from generator.web.gallery_pictures import webp
from scenes.errors import InputError
from trainer.comparison.seed_means import METRICS, ComparisonReport, SeedMean
from trainer.evaluation.arms import ADAPTER_ONLY
from trainer.evaluation.results import SweepReading, read_report
from trainer.report.page import MOST_BYTES, Plot, Strip, fill
from trainer.report.plots import Figure
from trainer.report.tables import Table, published_table

START, END = "<!-- comparison: start -->", "<!-- comparison: end -->"  # between them a page is filled in
STRIP_PX = 128
LABELLED = ("decoupled", "joint", "text prompting")  # of many points in one place, those that are looked for
STRIP_ARMS = ("decoupled", "joint", "lora_only", ADAPTER_ONLY)


@dataclass(frozen=True, kw_only=True)
class ComparisonPage:
    """What a comparison's page shows beside its numbers."""

    folder: Path  # of the comparison, in which each cell has its own
    recipe: str | None = None
    command: str | None = None


def write_comparison(report: ComparisonReport, page: ComparisonPage, out: Path) -> int:
    """Write a comparison as one HTML file that needs nothing else; returns its bytes.

    Raises InputError for an `out` that is no .html file.
    """
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out} is no .html file; give a file name like report.html")
    for strips in (comparison_strips(report, page.folder), []):
        data = fill(
            title=f"{report.name}: {' against '.join(report.fidelities)}",
            verdict=report.verdict,
            notes=report.notes,
            plots=[map_plot(report, axis) for axis in report.axes],
            tables=comparison_tables(report),
            context=published_table(report.published),
            strips=strips,
            facts=_facts(report),
            times=[(cell.name, cell.wall_s) for cell in report.cells],
            command=page.command,
            recipe=page.recipe,
        ).encode()
        if len(data) <= MOST_BYTES:
            break
    write_atomic(out, data)
    return len(data)


def comparison_tables(report: ComparisonReport) -> list[Table]:
    """Return the claims, then control accuracy, distance from the backbone and what a sweep keeps."""
    return [claims_table(report), accuracy_table(report), drift_table(report), kept_table(report)]


def claims_table(report: ComparisonReport) -> Table:
    """Return every claim at every fidelity, with the difference that decides it."""
    return Table(
        title="What was and was not reproduced",
        note="A claim is reproduced where the whole interval of its difference lies above 0, taken seed by seed; not "
        f"reproduced where it lies below; else undecided. Intervals are Student's, 95 %, over {len(report.seeds)} seeds of "
        "training and noise; the data are the same for all seeds.",
        head=("claim", "with", "axis", "outcome", "numbers"),
        rows=tuple(
            (
                f"{one.name}: {one.claim}",
                one.fidelity,
                one.axis if METRICS[one.metric].by_axis else "all",
                one.outcome,
                one.words,
            )
            for one in report.judgements
        ),
        main=frozenset(at for at, one in enumerate(report.judgements) if one.outcome == "reproduced"),
    )


def accuracy_table(report: ComparisonReport) -> Table:
    """Return control accuracy by axis, fidelity and arm."""
    rows, main = _rows(report, ("rho", "slope", "error", "read"), with_axis=True)
    return Table(
        title="Control accuracy",
        note="Means over seeds of each run's median over prompts, with no fit; measured per commanded is 1 when true. An arm "
        "without control has the same video at every value.",
        head=("axis", "data", "arm", "ρ", "measured per commanded", "median error", "read"),
        rows=rows,
        main=main,
    )


def drift_table(report: ComparisonReport) -> Table:
    """Return how far each arm moves the clean backbone in one denoising step."""
    rows, main = _rows(report, ("ssf", "ss_fd"), with_axis=False)
    return Table(
        title="Distance from the clean backbone",
        note=f"After one denoising step from the same noise; features: {report.extractor or 'none'}. The noise floor is the "
        "backbone from other noise.",
        head=("data", "arm", "SSF", "SS-FD"),
        rows=rows,
        main=main,
    )


def kept_table(report: ComparisonReport) -> Table:
    """Return how alike the videos of a sweep stay."""
    rows, main = _rows(report, ("cosine", "outside"), with_axis=True)
    return Table(
        title="What a sweep keeps",
        note="Cosine of features to the video at c = 0, and the difference of what stands still after gain and small shifts, "
        "in 8-bit levels. A control that does nothing keeps everything.",
        head=("axis", "data", "arm", "cosine to c = 0", "difference outside the effect"),
        rows=rows,
        main=main,
    )


def map_plot(report: ComparisonReport, axis: str) -> Plot:
    """Return control against distance from the backbone: an arm a point at each fidelity, with the seeds' intervals."""
    data: list[Figure] = []
    for ink, fidelity in enumerate(report.fidelities):
        shown = []
        for arm in report.arms:
            across, up = (report.number(fidelity, arm, axis, name) for name in ("ss_fd", "slope"))
            if across.value is not None and up.value is not None:
                shown.append((arm, across, up))
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": fidelity,
                "x": [across.value for _, across, _ in shown],
                "y": [up.value for _, _, up in shown],
                "error_x": _bars([across for _, across, _ in shown]),
                "error_y": _bars([up for _, _, up in shown]),
                "text": [arm if arm in LABELLED else "" for arm, _, _ in shown],
                "textposition": "top right",
                "customdata": [arm for arm, _, _ in shown],
                "hovertemplate": "%{customdata}: SS-FD %{x:.3g}, slope %{y:.3g}<extra>%{fullData.name}</extra>",
                "marker": {"size": 9},
                "line": {"width": 2},
                "meta": {"ink": ink},
            }
        )
    layout = {
        "xaxis": {"title": {"text": "SS-FD from the clean backbone"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "measured per commanded"}},
        "hovermode": "closest",
    }
    words = f"Control of {axis} against distance from the backbone, by data and arm; up and to the left is better."
    return Plot(name=f"map-{axis}", figure={"data": data, "layout": layout}, title=f"{axis}: control and drift", words=words)


def comparison_strips(report: ComparisonReport, folder: Path) -> list[Strip]:
    """Return sweeps of one prompt in several arms at every fidelity, of the first seed, as their middle frames."""
    strips = []
    for cell in (one for one in report.cells if one.seed == report.seeds[0]):
        place = folder / cell.name / "evaluation"
        found = read_report(place)
        for axis in report.axes:
            prompt = found.prompts[axis][0]
            for sweep in found.sweeps:
                arm = ADAPTER_ONLY if cell.trained == ADAPTER_ONLY and sweep.arm == "control_only" else sweep.arm
                if (sweep.axis, sweep.prompt) == (axis, prompt) and arm in STRIP_ARMS and _moves(sweep):
                    title = f"{axis}: {cell.fidelity}, {arm}"
                    strips.append(Strip(title=title, caption=prompt, pictures=_pictures(sweep, place)))
    return strips


def comparison_text(report: ComparisonReport) -> str:
    """Return the comparison as Markdown."""
    cells = report.cells
    wall_min = sum(cell.wall_s for cell in cells) / 60
    lines = [*(f"- {line}" for line in report.verdict), ""]
    for table in [*comparison_tables(report), published_table(report.published)]:
        lines += [f"### {table.title}", "", *_markdown(table), "", table.note.strip(), ""]
    lines += [
        f"{len(cells)} runs, {wall_min:.0f} minutes of work; {report.prompts} prompts an axis; "
        f"{', '.join(f'{name} {version}' for name, version in report.versions.items())}.",
        *(f"{note[:1].upper()}{note[1:]}." for note in report.notes),
        "",
    ]
    return "\n".join(lines)


def fill_markdown(path: Path, report: ComparisonReport) -> None:
    """Put a comparison's results into a Markdown page, between its lines START and END; make the page if there is none.

    Raises InputError for a page without these lines.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {report.name}\n\n{START}\n{END}\n"
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise InputError(f"{path} has no place for results; put the lines {START} and {END} into it")
    write_atomic(path, f"{before}{START}\n\n{comparison_text(report)}\n{END}{after}".encode())


def mean_words(one: SeedMean, digits: int = 3) -> str:
    """Return a mean with its interval in brackets; `none` where nothing was measured."""
    if one.value is None:
        return "none"
    middle = f"{one.value:.{digits}g}"
    return middle if one.low is None or one.high is None else f"{middle} [{one.low:.{digits}g}, {one.high:.{digits}g}]"


def _rows(
    report: ComparisonReport, metrics: Sequence[str], *, with_axis: bool
) -> tuple[tuple[tuple[str, ...], ...], frozenset[int]]:
    rows: list[tuple[str, ...]] = []
    main: list[int] = []
    for axis in report.axes if with_axis else report.axes[:1]:
        for fidelity in report.fidelities:
            for arm in report.arms:
                numbers = {name: report.number(fidelity, arm, axis, name) for name in metrics}
                if all(one.value is None for one in numbers.values()):
                    continue
                if arm == "decoupled":
                    main.append(len(rows))
                words = [_words(name, one, report.units[axis]) for name, one in numbers.items()]
                rows.append((*((axis,) if with_axis else ()), fidelity, arm, *words))
    return tuple(rows), frozenset(main)


def _words(metric: str, one: SeedMean, unit: str) -> str:
    if one.value is None:
        return "none"
    if metric == "read":
        return f"{100 * one.value:.0f} %"
    words = mean_words(one, 5 if metric in ("ssf", "cosine") else 3)
    return f"{words} {unit}" if metric == "error" else words


def _bars(numbers: Sequence[SeedMean]) -> Mapping[str, object]:
    half = [0.0 if one.high is None or one.value is None else one.high - one.value for one in numbers]
    return {"type": "data", "array": half, "thickness": 1, "width": 3}


def _moves(sweep: SweepReading) -> bool:
    return len({video.video for video in sweep.videos}) > 1


def _pictures(sweep: SweepReading, place: Path) -> tuple[tuple[str, str], ...]:
    found = []
    for video in sweep.videos:
        frames_THW3 = decode(place / video.video)
        middle_HW3 = np.ascontiguousarray(frames_THW3[len(frames_THW3) // 2])
        found.append((webp(middle_HW3, STRIP_PX, 82), video.label))
    return tuple(found)


def _facts(report: ComparisonReport) -> list[tuple[str, str]]:
    return [
        ("data", ", ".join(report.fidelities)),
        ("seeds", ", ".join(map(str, report.seeds))),
        ("backbone", Path(report.backbone).name),
        ("prompts", str(report.prompts)),
        ("controls", str(report.settings["controls"])),
        ("features", report.extractor or "none"),
        ("runs", ", ".join(cell.name for cell in report.cells)),
        ("made with", ", ".join(f"{name} {version}" for name, version in report.versions.items())),
    ]


def _markdown(table: Table) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (table.head, ["---"] * len(table.head), *table.rows)]
