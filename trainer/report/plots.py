"""The figures of a report, as Plotly's plain trees; colours are put in by the page, which knows light from dark.

A trace's `meta` names its ink: an index of the page's palette, or "truth" and "faint".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generator.recipe.plan import Plan
from generator.verify.findings import ClipMeasurement
from scenes.axes import AXES
from scenes.axes.ticks import scale_values
from trainer.evaluation.results import Drift, EvaluationReport, Leakage
from trainer.training.callbacks.curves import Panel, smoothed

Figure = dict[str, Any]
MOST_POINTS = 3000  # of a trace; more make a file of tens of megabytes and no other picture


def response_figure(report: EvaluationReport, axis: str) -> Figure:
    """Return the measured distance from c = 0 over the control, every arm's median and the main arm's band."""
    arms = [one for one in report.accuracy if one.axis == axis]
    main = next(one for one in arms if one.arm == report.main_arm)
    controls = [point.control for point in main.curve]
    data: list[Figure] = []
    if all(point.expected is not None for point in main.curve):
        data.append(_line(controls, [p.expected for p in main.curve], "commanded", "truth", mode="lines", dash="dot"))
    band = [point for point in main.curve if point.low is not None]
    edge = {
        "x": [p.control for p in (*band, *reversed(band))],
        "y": [*(p.high for p in band), *(p.low for p in reversed(band))],
    }
    data.append(
        {
            "type": "scatter",
            **edge,
            "fill": "toself",
            "mode": "none",
            "name": "80 % of videos",
            "meta": {"ink": 0, "band": True},
        }
        | {"hoverinfo": "skip"}
    )
    for number, one in enumerate([main, *(arm for arm in arms if arm is not main)]):
        places, medians = [p.control for p in one.curve], [p.median for p in one.curve]
        data.append(_line(places, medians, one.arm, number, [p.label for p in one.curve]))
    ticks = {"tickvals": controls, "ticktext": [point.label for point in main.curve], "title": {"text": "commanded"}}
    unit = "stops" if main.unit == "stop" else main.unit
    return _figure(data, {"xaxis": ticks, "yaxis": {"title": {"text": f"measured, {unit} from c = 0"}}})


def leakage_figure(entries: Sequence[Leakage], arm: str) -> Figure | None:
    """Return the heat map of how much sweeping one axis moves the others, as a share of their range; None without any."""
    own = [entry for entry in entries if entry.arm == arm]
    if not own:
        return None
    swept, read = list(dict.fromkeys(e.swept for e in own)), list(dict.fromkeys(e.read for e in own))
    by_pair = {(entry.swept, entry.read): entry for entry in own}
    shares = [[by_pair[s, r].share for r in read] for s in swept]
    words = [[_share_words(by_pair[s, r]) for r in read] for s in swept]
    trace = {
        "type": "heatmap",
        "x": read,
        "y": swept,
        "z": [[None if share is None else abs(share) for share in row] for row in shares],
        "text": words,
        "texttemplate": "%{text}",
        "hovertemplate": "%{y} swept, %{x} read: %{text}<extra></extra>",
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
        "meta": {"ink": "heat"},
    }
    plain = {"showgrid": False, "zeroline": False, "showline": False}
    upper = {"title": {"text": "read"}, "side": "top", **plain}
    side = {"title": {"text": "swept"}, "autorange": "reversed", **plain}
    size = {"height": 110 + 60 * len(swept), "margin": {"l": 52, "r": 16, "t": 54, "b": 10}}
    return _figure([trace], {"xaxis": upper, "yaxis": side, **size})


def training_figure(panel: Panel) -> Figure | None:
    """Return one plot of a training run's curves; None where it has none."""
    drawn = {label: points for label, points in panel.curves.items() if points[0]}
    if not drawn:
        return None
    data: list[Figure] = []
    for number, (label, (steps, values)) in enumerate(drawn.items()):
        if panel.title == "training loss":
            data.append(_line(steps, values, label, "faint", mode="lines"))
            data.append(_line(steps, smoothed(values), f"{label}, smoothed", number, mode="lines"))
        else:
            data.append(_line(steps, values, label, number))
    return _figure(data, {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": ""}}})


def drift_figure(drift: Drift) -> Figure:
    """Return SS-FD over training steps."""
    points = drift.points
    line = _line([point.step for point in points], [point.ss_fd for point in points], drift.mode, 0)
    return _figure([line], {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "SS-FD"}, "rangemode": "tozero"}})


def labels_figure(axis: str, entries: Sequence[ClipMeasurement]) -> Figure | None:
    """Return measured against labelled values of a dataset on the axis's own scale, a colour for each layer; None if unread."""
    read = [entry for entry in entries if entry.axis == axis and entry.measured is not None]
    if not read:
        return None
    values = [value for entry in read for value in (entry.labelled, entry.measured) if value is not None]
    low, high = min(values), max(values)
    data = [_line([low, high], [low, high], "truth", "truth", mode="lines", dash="dot")]
    for number, layer in enumerate(sorted({entry.layer for entry in read}, reverse=True)):
        own = [entry for entry in read if entry.layer == layer]
        words = [f"{AXES[axis].format(entry.labelled)}, measured {AXES[axis].format(entry.measured or 0.0)}" for entry in own]
        data.append(
            _line([e.labelled for e in own], [e.measured for e in own], f"layer {layer}", number, words, mode="markers")
        )
    ticks = scale_values(axis, low, high)
    kind = "linear" if AXES[axis].default_law.additive else "log"
    scale = {"type": kind, "tickvals": ticks, "ticktext": [AXES[axis].format(value) for value in ticks]}
    return _figure(data, {"xaxis": {**scale, "title": {"text": "labelled"}}, "yaxis": {**scale, "title": {"text": "measured"}}})


def pyramid_figure(plan: Plan, axis: str) -> Figure | None:
    """Return the drawn control values of a dataset's axis: a band for each layer, a line for each scene; None without any."""
    clips = [clip for clip in plan.clips if axis in clip.axes]
    if not clips:
        return None
    law = plan.recipe.law(axis)
    data = []
    for number, layer in enumerate(sorted({clip.layer for clip in clips}, reverse=True)):
        own = [clip for clip in clips if clip.layer == layer]
        scenes = {scene: place for place, scene in enumerate(dict.fromkeys(clip.scene_id for clip in own))}
        height = [-number + 0.7 * ((scenes[clip.scene_id] + 0.5) / len(scenes) - 0.5) for clip in own]
        words = [f"{AXES[axis].format(clip.values[axis])}, {clip.scene_id}" for clip in own]
        data.append(_line([clip.controls[axis] for clip in own], height, f"{layer} values", number, words, mode="markers"))
    layers = sorted({clip.layer for clip in clips}, reverse=True)
    ends = (-1.0, -0.5, 0.0, 0.5, 1.0)
    return _figure(
        data,
        {
            "xaxis": {
                "tickvals": list(ends),
                "ticktext": [AXES[axis].format(law.value(end)) for end in ends],
                "range": [-1.1, 1.1],
            },
            "yaxis": {
                "tickvals": [-number for number in range(len(layers))],
                "ticktext": [str(layer) for layer in layers],
                "title": {"text": "values per scene"},
                "zeroline": False,
            },
            "showlegend": False,
        },
    )


def thinned(count: int, most: int = MOST_POINTS) -> list[int]:
    """Return at most `most` places of `count`, evenly spread, first and last among them."""
    return list(range(count)) if count <= most else [round(at * (count - 1) / (most - 1)) for at in range(most)]


def _share_words(entry: Leakage) -> str:
    return "not read" if entry.share is None else f"{100 * entry.share:.0f} %"


def _line(
    x: Sequence[Any],
    y: Sequence[Any],
    name: str,
    ink: int | str,
    words: Sequence[str] | None = None,
    *,
    mode: str = "lines+markers",
    dash: str = "solid",
) -> Figure:
    kept = thinned(len(x))
    shown = name if len(kept) == len(x) else f"{name}, {len(kept)} of {len(x)}"
    trace: Figure = {"type": "scatter", "x": [x[at] for at in kept], "y": [y[at] for at in kept], "name": shown, "mode": mode}
    trace["meta"] = {"ink": ink}
    trace["line"], trace["marker"] = {"dash": dash, "width": 2}, {"size": 6}
    if words is not None:
        trace |= {"text": [words[at] for at in kept], "hovertemplate": "%{text}: %{y:.3g}<extra>%{fullData.name}</extra>"}
    return trace


def _figure(data: list[Figure], layout: Figure) -> Figure:
    return {"data": data, "layout": layout}
