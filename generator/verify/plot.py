"""Measured against labelled: one panel per axis in physical units (logarithmic but for additive laws), errors beneath it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from scipy.optimize import brentq

from generator.verify.findings import AxisReport, ClipMeasurement, VerifyReport
from scenes.axes import AXES, UnitLaw
from scenes.axes.ticks import scale_values

PAPER, INK, FAINT, GRID, BAND = "#faf8f4", "#1f1d1a", "#8b857a", "#e4dfd5", "#d9a441"
LAYER_INKS = ("#c8553d", "#1f5f73", "#6b8f3a", "#7a4f8c", "#a67c1e", "#3d6fb5", "#8f3a55", "#3a8f83")
PANEL_INCHES = 4.6
LEAST_INCHES = 8.0  # what title and legend need


def plot_report(report: VerifyReport, path: Path) -> None:
    """Write the plot as PNG (or what the suffix says): a tolerance band, the line of truth, one colour per layer."""
    layers = sorted({entry.layer for entry in report.measurements}, reverse=True)
    inks = {layer: LAYER_INKS[position % len(LAYER_INKS)] for position, layer in enumerate(layers)}
    count = max(1, len(report.axes))
    width_inches = max(LEAST_INCHES, PANEL_INCHES * count + 0.4)
    figure = Figure(figsize=(width_inches, 6.6), dpi=150, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, count, squeeze=False, height_ratios=(3.2, 1.0), sharex="col")
    for column, axis in enumerate(report.axes):
        entries = [entry for entry in report.measurements if entry.axis == axis.axis and entry.measured is not None]
        upper, lower = grid[0][column], grid[1][column]
        for panel in (upper, lower):
            _dress(panel)
        _draw_panel(upper, axis, entries, inks)
        _draw_errors(lower, axis, entries, inks)
    verdict = "verified" if report.passed else "not verified"
    figure.suptitle(
        f"{report.name}   ·   {report.clips} clips, {report.scenes} scenes   ·   {verdict}",
        color=INK,
        size=13,
        x=0.008,
        ha="left",
    )
    figure.legend(
        handles=_legend(inks), loc="outside lower center", ncols=len(inks) + 3, frameon=False, labelcolor=INK, fontsize=9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


def _dress(panel: Axes) -> None:
    panel.set_facecolor(PAPER)
    panel.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _draw_panel(panel: Axes, axis: AxisReport, entries: Sequence[ClipMeasurement], inks: dict[int, str]) -> None:
    panel.annotate(axis.axis, (0, 1), (0, 34), "axes fraction", "offset points", color=INK, fontsize=14, family="DejaVu Serif")
    if not entries:
        said = "accepted without proof" if axis.accepted_without_proof else "no clip could be read"
        panel.text(0.5, 0.5, said, transform=panel.transAxes, ha="center", color=FAINT)
        return
    values = [value for entry in entries for value in (entry.labelled, entry.measured) if value is not None]
    additive = AXES[axis.axis].default_law.additive
    low, high = _limits(min(values), max(values), additive=additive)
    truth = np.linspace(low, high, 80) if additive else np.geomspace(low, high, 80)
    edges = [
        [value_at_distance(axis.axis, reference, bar) for reference in truth] for bar in (-axis.median_bar, axis.median_bar)
    ]
    panel.fill_between(truth, edges[0], edges[1], color=BAND, alpha=0.28, linewidth=0)
    panel.plot(truth, truth, color=INK, linewidth=0.8)
    for entry in entries:
        _dot(panel, entry, entry.measured, inks)
    scale_name = "linear" if additive else "log"
    panel.set(xscale=scale_name, yscale=scale_name, xlim=(low, high), ylim=(low, high))
    panel.set_ylabel("measured", color=FAINT, fontsize=9)
    ticks = scale_values(axis.axis, low, high)
    for scale in (panel.xaxis, panel.yaxis):
        scale.set_major_locator(FixedLocator(ticks))
        scale.set_major_formatter(FuncFormatter(lambda value, _: AXES[axis.axis].format(value)))
        scale.set_minor_locator(NullLocator())
        scale.set_minor_formatter(NullFormatter())
    panel.grid(color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)


def _limits(low: float, high: float, *, additive: bool) -> tuple[float, float]:
    """Return the ends of a panel around its least and greatest value."""
    if additive:
        margin = 0.06 * (high - low) or 1.0
        return low - margin, high + margin
    factor = max((high / low) ** 0.06, 1.05)
    return low / factor, high * factor


def _draw_errors(panel: Axes, axis: AxisReport, entries: Sequence[ClipMeasurement], inks: dict[int, str]) -> None:
    panel.axhspan(-axis.median_bar, axis.median_bar, color=BAND, alpha=0.28, linewidth=0)
    panel.axhline(0.0, color=INK, linewidth=0.8)
    largest = max([abs(entry.error) for entry in entries if entry.error is not None], default=0.0)
    reach = 1.15 * max(largest, 1.6 * axis.median_bar)
    panel.set_ylim(-reach, reach)
    for entry in entries:
        _dot(panel, entry, entry.error, inks)
    panel.set_ylabel(f"error, {axis.unit}", color=FAINT, fontsize=9)
    panel.set_xlabel("labelled", color=FAINT, fontsize=9)
    panel.tick_params(axis="x", rotation=35)


def _dot(panel: Axes, entry: ClipMeasurement, height: float | None, inks: dict[int, str]) -> None:
    if height is None:
        return
    ink = inks[entry.layer]
    face = ink if entry.judged else "none"
    panel.plot(
        [entry.labelled], [height], "o", ms=4.6, mfc=face, mec=ink, mew=0.9, alpha=0.9 if entry.judged else 0.6, clip_on=False
    )


def _summary(axis: AxisReport) -> str:
    if axis.median_error is None or axis.worst_error is None:
        return f"none of {axis.clips} clips judged{', accepted without proof' if axis.accepted_without_proof else ''}"
    rank = "" if axis.lowest_rank is None else f", rank ≥ {math.floor(axis.lowest_rank * 1000 + 1e-6) / 1000:.3f}"
    return (
        f"median error {axis.median_error:.3f} {axis.unit} (bar {axis.median_bar:g}), worst {axis.worst_error:.3f}"
        f"\n{axis.judged} of {axis.clips} clips judged{rank}"
    )


def _legend(inks: dict[int, str]) -> list[Line2D]:
    dots = [Line2D([], [], ls="", marker="o", ms=5, color=ink, label=f"layer {layer}") for layer, ink in inks.items()]
    hollow = Line2D([], [], ls="", marker="o", ms=5, mfc="none", mec=FAINT, label="effect too small to judge")
    band = Line2D([], [], lw=7, color=BAND, alpha=0.35, label="bar on the median")
    return [*dots, hollow, band]


def value_at_distance(axis: str, reference: float, distance: float) -> float:
    """Return the physical value that lies `distance` (error unit, positive: stronger) from a reference."""
    law = AXES[axis].default_law
    if not law.additive:
        law = UnitLaw(neutral=reference, ratio=math.e)
    place = law.control(reference)

    def away(control: float) -> float:
        return AXES[axis].distance(law.value(control), reference) - distance

    reach = 0.1
    while away(place - reach) * away(place + reach) > 0 and reach < 20:
        reach *= 1.5
    return law.value(float(brentq(away, place - reach, place + reach)))
