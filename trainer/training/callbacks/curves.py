"""The curves of a run, drawn from its metric log: as a picture beside it, and in the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from generator.io.atomic import write_atomic
from generator.verify.plot import FAINT, GRID, INK, LAYER_INKS, PAPER
from scenes.axes import AXES
from scenes.errors import InputError
from trainer.training.callbacks.metrics import Event, Kind, read_events
from trainer.training.callbacks.progress_bar import Smoothed

Points = tuple[list[int], list[float]]  # steps, values
SMOOTHING = 0.98
NAME = "loss curves"


def series(events: Sequence[Event], kind: Kind, name: str) -> Points:
    """Return the steps and values of one curve; where it could not be measured it has no point."""
    found = [(event.step, event.values[name]) for event in events if event.kind == kind and event.values.get(name) is not None]
    return [step for step, _ in found], [float(value) for _, value in found if value is not None]


def smoothed(values: Sequence[float], decay: float = SMOOTHING) -> list[float]:
    """Return the running exponential mean of a curve."""
    mean = Smoothed(decay)
    return [mean.add(value) for value in values]


def names_of(events: Sequence[Event], kind: Kind, wanted: Callable[[str], bool]) -> list[str]:
    """Return the names of values of a kind that are wanted, in the order in which they appear."""
    return [name for name in dict.fromkeys(n for e in events if e.kind == kind for n in e.values) if wanted(name)]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the picture's plots: its title and its curves by label."""

    title: str
    curves: dict[str, Points]
    empty: str
    level: float | None = None  # a value that means nothing was learned


def panels(events: Sequence[Event]) -> tuple[Panel, ...]:
    """Return the plots of a run: training loss, loss on held-out scenes, control gap, and what the probes say."""

    def curves(kind: Kind, wanted: Callable[[str], bool]) -> dict[str, Points]:
        return {name: series(events, kind, name) for name in names_of(events, kind, wanted)}

    return (
        Panel(title="training loss", curves={"loss": series(events, "train", "loss")}, empty="no step was made"),
        Panel(
            title="loss on held-out scenes",
            curves=curves("validation", lambda name: name == "loss" or (name.startswith("loss/") and name.count("/") == 1)),
            empty="no validation",
        ),
        Panel(
            title="control gap: loss at c = 0 less loss at the true c",
            curves=curves("validation", lambda name: name.startswith("gap")),
            empty="no validation of a control",
            level=0.0,
        ),
        Panel(
            title="rank correlation of control and probe in the previews",
            curves=curves("preview", lambda name: name.endswith("/rho")),
            empty="no preview that a probe could read",
            level=0.0,
        ),
    )


def draw_curves(events: Sequence[Event], *paths: Path, title: str) -> None:
    """Write the curves as PNG or SVG, by the file names' endings; raises InputError for another one."""
    for path in paths:
        if path.suffix not in (".png", ".svg"):
            raise InputError(f"{path} is no picture that curves can be drawn to; give a name that ends in .png or .svg")
    with rc_context({"svg.hashsalt": "stopdown"}):
        figure = Figure(figsize=(11, 7.5), dpi=120, facecolor=PAPER, layout="constrained")
        FigureCanvasAgg(figure)
        for panel, plot in zip(panels(events), figure.subplots(2, 2).flat, strict=True):
            _draw(plot, panel)
        figure.suptitle(title, color=INK, size=13, x=0.008, ha="left")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once for all files: it costs more than the drawing
        for path in paths:
            file = io.BytesIO()
            metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(file, format=path.suffix[1:], facecolor=PAPER, metadata=metadata)
            write_atomic(path, file.getvalue())


class CurveDrawer:
    """The sink that draws the curves of a run's metric log after every validation and preview, and at the end."""

    def __init__(self, log: Path, title: str) -> None:
        self.log = log
        self.title = title
        self._stale = True  # whether the log says more than the pictures

    def open(self, step: int, steps: int) -> None:
        """Nothing is to be drawn yet."""

    def write(self, event: Event) -> None:
        """Draw when something rare was measured."""
        self._stale = True
        if event.kind != "train":
            self.draw()

    def close(self) -> None:
        """Draw the whole run, where it is not drawn yet."""
        if self._stale:
            self.draw()

    def draw(self) -> None:
        """Write `loss curves.png` and `.svg` beside the log."""
        events = read_events(self.log)
        draw_curves(events, *(self.log.with_name(NAME + suffix) for suffix in (".png", ".svg")), title=self.title)
        self._stale = False


def _draw(plot: Axes, panel: Panel) -> None:
    plot.set_facecolor(PAPER)
    plot.set_title(panel.title, color=INK, fontsize=10, loc="left")
    plot.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3)
    for side, spine in plot.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
    drawn = {label: points for label, points in panel.curves.items() if points[0]}
    if not drawn:
        plot.text(0.5, 0.5, panel.empty, transform=plot.transAxes, ha="center", color=FAINT)
        plot.set(xticks=[], yticks=[])
        return
    plot.grid(color=GRID, linewidth=0.6)
    if panel.level is not None:
        plot.axhline(panel.level, color=FAINT, linewidth=0.8)
    for label, (steps, values) in drawn.items():
        ink = _ink(label)
        if panel.title == "training loss":
            plot.plot(steps, values, color=ink, alpha=0.25, linewidth=0.7)
            plot.plot(steps, smoothed(values), color=ink, linewidth=1.4, label=f"{label}, smoothed")
        else:
            plot.plot(steps, values, color=ink, linewidth=1.2, marker="o", ms=3, label=label)
    plot.set_xlabel("step", color=FAINT, fontsize=9)
    plot.legend(frameon=False, labelcolor=INK, fontsize=8)


def _ink(label: str) -> str:
    """Return the colour of a curve: one per axis, the same in every plot, and one for what is over all axes."""
    position = next((place for place, axis in enumerate(AXES, start=1) if axis in label.split("/")), 0)
    return LAYER_INKS[position % len(LAYER_INKS)]
