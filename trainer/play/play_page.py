"""The page: prompt, a slider and a box in units per axis, the video, and what the probes read in it.

What the box of an axis says is what is generated; its slider writes into the box. Importing this imports Gradio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import jinja2

from generator.web.gallery_pictures import data_uri
from scenes.errors import InputError, StopdownError
from trainer.control.laws import AxisControl
from trainer.control.modes import Mode, check_mode, default_mode
from trainer.generation.plan import MOST_SEED
from trainer.play.form import SWEEP_COUNTS, Form, control_of, finite, slider_ends, trained, whole
from trainer.play.play_session import Heard, Session, Shown
from trainer.probing.single import HEADINGS

TITLE = "Stopdown"
MOST_STEPS = 1000
STEP = 0.01  # of a slider, in c: a fortieth of a stop of shutter
ONE_AT_A_TIME = "pipeline"  # a pipeline makes one request's videos at a time
Fields = dict[str, Any]  # a field's name -> its component
Given = Mapping[Any, Any]  # component -> its value, as Gradio hands them on


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where answers go, in the order in which they are returned."""

    video: Any
    words: Any
    readings: Any
    record: Any

    def all(self) -> list[Any]:
        """Return the components in order."""
        return [self.video, self.words, self.readings, self.record]


def build_page(session: Session) -> gr.Blocks:
    """Return the page of a session, not yet served. Endpoints: `/generate`, `/sweep`, `/AXIS_in_units`, `/AXIS_slider`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=None) as page:
        gr.HTML(_rendered("play_head.html.j2", title=TITLE, facts=_facts(session)), elem_classes="head")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                fields, sliders = _fields(session)
                generate = gr.Button("Generate", variant="primary")
                sweep, swept, count = _sweep_fields(session.axes)
            with gr.Column(scale=1, min_width=320):
                outputs = _outputs()
        inputs = {*fields.values()}
        _answers(generate, "generate", inputs, outputs, _single(session, fields))
        if sweep is not None:
            _answers(sweep, "sweep", inputs | {swept, count}, outputs, _sweep(session, fields, swept, count))
        for axis in session.axes:
            _couple(axis, sliders[axis.name], fields[axis.name], outputs.words)
    return page


def theme() -> gr.themes.Base:
    """Return the looks, with the machine's own fonts: none is fetched."""
    own = {"font": ["system-ui", "Segoe UI", "sans-serif"], "font_mono": ["ui-monospace", "Consolas", "monospace"]}
    return gr.themes.Default(primary_hue="indigo", neutral_hue="slate", **own)


def css() -> str:
    """Return the page's own style sheet."""
    return _rendered("play.css")


def _facts(session: Session) -> str:
    sampling, loading = session.sampling, session.loading
    return (
        f"{session.adapter.name}, trained {session.adapter.card.step} steps  ·  on {loading.backbone} "
        f"({loading.dtype}, {loading.device})  ·  {sampling.width} × {sampling.height}, {sampling.frames} frames at "
        f"{session.fps} fps"
    )


def _fields(session: Session) -> tuple[Fields, Fields]:
    """Return the form's components, whose order is that of the endpoints' arguments, and the sliders by axis."""
    modes = [mode.value for mode in Mode if _possible(session, mode)]
    sliders: Fields = {}
    fields: Fields = {"prompt": gr.Textbox(label="Prompt", lines=2, placeholder="Describe what the video shows")}
    for axis in session.axes:
        fields[axis.name], sliders[axis.name] = _axis_fields(axis)
    with gr.Row():
        default = default_mode(session.adapter.card.config).value
        fields["mode"] = gr.Dropdown(modes, value=default, label="Mode", min_width=140)
        fields["seed"] = gr.Number(0, label="Seed", min_width=80)
        fields["strength"] = gr.Slider(0.0, 2.0, value=1.0, step=0.05, label="Strength", buttons=[], min_width=180)
    with gr.Accordion("More", open=False):
        fields["negative"] = gr.Textbox(label="Negative prompt")
        fields["steps"] = gr.Number(session.sampling.steps, label="Denoising steps")
        fields["guidance"] = gr.Number(session.sampling.guidance, label="Guidance")
    if session.axes:
        fields["compare"] = gr.Checkbox(
            False,
            label="Compare with c = 0",
            info="Also makes and shows each axis's neutral video, and reads the distance.",
        )
    return fields, sliders


def _axis_fields(axis: AxisControl) -> tuple[Any, Any]:
    """Return an axis's box and its slider."""
    low, high = slider_ends(axis)
    with gr.Row(equal_height=True, elem_classes="axis"):
        with gr.Column(scale=3, min_width=240), gr.Group():
            words = {"label": f"{axis.name} (c)", "info": f"trained {trained(axis)}"}
            slider = gr.Slider(low, high, value=0.0, step=STEP, buttons=[], **words)
            gr.HTML(_scale(axis, low, high), padding=True)
        box = gr.Textbox(axis.format(0.0), label=axis.name, info="in units", scale=1, min_width=110, max_lines=1)
    return box, slider


def _sweep_fields(axes: Sequence[AxisControl]) -> tuple[Any, Any, Any]:
    """Return the button, the axis and the number of a sweep; nothing where the adapter controls nothing."""
    if not axes:
        return None, None, None
    with gr.Row(equal_height=True):
        names = [axis.name for axis in axes]
        swept = gr.Dropdown(names, value=names[0], label="Sweep", min_width=110)
        count = gr.Dropdown(list(SWEEP_COUNTS), value=SWEEP_COUNTS[1], label="Values", min_width=80)
        button = gr.Button("Sweep, same noise", min_width=150)
    return button, swept, count


def _outputs() -> Outputs:
    video = gr.Video(
        label="Video", interactive=False, autoplay=True, loop=True, height=420, buttons=["download"], elem_classes="video"
    )
    words = gr.Textbox(label="Status", interactive=False, max_lines=4)
    readings = gr.HTML(apply_default_css=False)
    with gr.Accordion("Record", open=False):
        record = gr.JSON(show_label=False)
    return Outputs(video=video, words=words, readings=readings, record=record)


def _answers(button: Any, name: str, inputs: set[Any], outputs: Outputs, answer: Callable[[Given, Heard], Shown]) -> None:
    """Let a button show what `answer` returns; what a person can cause becomes one line, and the page stays as it was."""

    def run(given: Given, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008 - how Gradio hands it on
        try:
            shown = answer(given, lambda done, every: progress((done, every), unit="steps"))
        except StopdownError as error:
            return [gr.skip(), str(error), gr.skip(), gr.skip()]
        return [str(shown.video), shown.words, _table(shown), shown.record]

    button.click(run, inputs, outputs.all(), api_name=name, concurrency_limit=1, concurrency_id=ONE_AT_A_TIME)


def _couple(axis: AxisControl, slider: Any, box: Any, words: Any) -> None:
    """Let the slider of an axis write into its box, and the box move the slider."""
    low, high = slider_ends(axis)

    def in_units(control: float) -> str:
        return axis.format(min(max(finite(axis.name, control), low), high))

    def to_slider(written: str) -> list[Any]:
        try:
            control = control_of(axis, written)
        except StopdownError as error:
            return [gr.skip(), str(error)]
        return [min(max(control, low), high), ""]

    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
    slider.input(in_units, slider, box, api_name=f"{axis.name}_in_units", **quick)
    gr.on([box.submit, box.blur], to_slider, box, [slider, words], api_name=f"{axis.name}_slider", **quick)


def _single(session: Session, fields: Fields) -> Callable[[Given, Heard], Shown]:
    def answer(given: Given, heard: Heard) -> Shown:
        compare = "compare" in fields and bool(given[fields["compare"]])
        return session.single(_form(session, fields, given), compare=compare, heard=heard)

    return answer


def _sweep(session: Session, fields: Fields, swept: Any, count: Any) -> Callable[[Given, Heard], Shown]:
    def answer(given: Given, heard: Heard) -> Shown:
        values = whole("the number of values", given[count], SWEEP_COUNTS[0], SWEEP_COUNTS[-1])
        return session.sweep(_form(session, fields, given), str(given[swept]), values, heard=heard)

    return answer


def _form(session: Session, fields: Fields, given: Given) -> Form:
    """Return what the page asks for; raises InputError for the first field that cannot be."""
    found = {name: given[component] for name, component in fields.items()}
    if not str(found["prompt"] or "").strip():
        raise InputError("the prompt is empty; write what the video shows")
    return Form(
        prompt=str(found["prompt"]),
        negative=str(found["negative"] or ""),
        seed=whole("seed", found["seed"], 0, MOST_SEED - 1),
        mode=str(found["mode"]),
        strength=finite("strength", found["strength"]),
        steps=whole("steps", found["steps"], 1, MOST_STEPS),
        guidance=finite("guidance", found["guidance"]),
        controls={axis.name: control_of(axis, str(found[axis.name] or "")) for axis in session.axes},
    )


def _possible(session: Session, mode: Mode) -> bool:
    try:
        check_mode(mode, session.adapter.card.config)
    except InputError:
        return False
    return True


def _scale(axis: AxisControl, low: float, high: float) -> str:
    def percent(control: float) -> float:
        return round(100.0 * (control - low) / (high - low), 2)

    marks = [{"left": percent(control), "text": axis.format(control)} for control in (-1.0, 0.0, 1.0)]
    width = round(percent(1.0) - percent(-1.0), 2)
    return _rendered("play_scale.html.j2", left=percent(-1.0), width=width, marks=marks)


def _table(shown: Shown) -> str:
    rows = [{"cells": reading.cells(), "note": reading.note} for reading in shown.readings]
    beside = [{"label": label, "source": data_uri("video/mp4", path.read_bytes())} for label, path in shown.beside]
    free = any(reading.value is not None for reading in shown.readings)
    return _rendered("play_readings.html.j2", headings=HEADINGS, rows=rows, beside=beside, free=free)


def _rendered(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values)


def _templates() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.PackageLoader("trainer", "templates"), autoescape=True)
