"""Readings of sweeps: true renders are read in order and to scale, noise is not read at all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from blender_child import run_in_blender

from generator.io.checksummed_json import checksummed_line, parse_checksummed_line
from generator.media.video import decode, encode
from generator.recipe.render_settings import RenderSettings
from scenes.arrays import Bytes
from scenes.axes import AXES
from scenes.control_axis import UnitLaw, Unread
from scenes.errors import InputError
from scenes.families.base import draw_scene
from scenes.families.depth_row import DEPTH_ROW
from scenes.families.flyby import FLYBY
from scenes.families.tabletop import TABLETOP
from scenes.palette import to_bytes
from scenes.spec import Optics, SceneSpec, Shot
from trainer.control.laws import AxisControl, NoLaw, axis_control
from trainer.probing.cached import Prober
from trainer.probing.sweep import SweepReport, ValueReading, read_sweep

FPS = 16
SIDE, SAMPLES = 64, 16
FRAMES = {"shutter": 5, "aperture": 1, "temperature": 1}
CONTROLS = (-1.0, -0.5, 0.0, 0.5, 1.0)
NO_BLENDER = importlib.util.find_spec("bpy") is None
FAMILIES = {"shutter": FLYBY, "aperture": DEPTH_ROW, "temperature": TABLETOP}
LAWS = {
    "shutter": UnitLaw(neutral=1 / 32, ratio=2.0),  # at this size, shorter exposures leave no blur to read
    "aperture": UnitLaw(neutral=2.8, ratio=1 / 2),
    "temperature": AXES["temperature"].default_law,
}


def render(scenes: dict[str, str]) -> dict[str, list[Bytes]]:
    """Render a scene (JSON) of each axis at five values; runs where Blender is."""
    from generator.render.scene_renderer import SceneRenderer

    found: dict[str, list[Bytes]] = {}
    for axis, scene_json in scenes.items():
        renderer = SceneRenderer(SceneSpec.model_validate_json(scene_json), RenderSettings(samples=SAMPLES), 1)
        values = [LAWS[axis].value(control) for control in CONTROLS]
        linear = [renderer.frames(AXES[axis].apply_optics(Optics(), value)) for value in values]
        found[axis] = [to_bytes(AXES[axis].apply_image(one, value)) for one, value in zip(linear, values, strict=True)]
    return found


@pytest.fixture(scope="module")
def sweeps() -> dict[str, list[Bytes]]:
    """Return a rendered sweep of each axis, as it comes out of H.264."""
    scenes = {}
    for axis, law in LAWS.items():
        shot = Shot(width=SIDE, height=SIDE, fps=FPS, frames=FRAMES[axis])
        scenes[axis] = draw_scene(FAMILIES[axis], np.random.default_rng(4), shot, {axis: law}).model_dump_json()
    rendered = run_in_blender(render, scenes)
    return {axis: [decode(encode(clip, FPS, 12, "medium")) for clip in clips] for axis, clips in rendered.items()}


def control_of(axis: str) -> AxisControl:
    """Return the control of an axis under the law that it was rendered with."""
    return axis_control(axis, LAWS[axis])


@pytest.mark.skipif(NO_BLENDER, reason="renders true clips: needs the extra `render`")
@pytest.mark.parametrize("axis", list(LAWS))
def test_true_sweeps_are_read_in_order_and_to_scale(sweeps: dict[str, list[Bytes]], axis: str) -> None:
    report = read_sweep(control_of(axis), CONTROLS, sweeps[axis], FPS)
    assert report.readable >= 4, report
    assert report.rho == pytest.approx(1.0), report
    assert report.slope == pytest.approx(1.0, abs=0.2), report
    assert report.median_error is not None and report.median_error <= 3 * AXES[axis].tolerance, report
    distances = [AXES[axis].distance(LAWS[axis].value(c), LAWS[axis].value(0.0)) for c in CONTROLS]
    assert [reading.expected for reading in report.readings] == pytest.approx(distances)
    assert report.readings[2].is_reference and report.readings[2].error is None


@pytest.mark.skipif(NO_BLENDER, reason="renders true clips: needs the extra `render`")
def test_a_sweep_run_backwards_has_the_opposite_rank_and_slope(sweeps: dict[str, list[Bytes]]) -> None:
    report = read_sweep(control_of("temperature"), CONTROLS, sweeps["temperature"][::-1], FPS)
    assert report.rho == pytest.approx(-1.0) and report.slope is not None and report.slope < -0.5


@pytest.mark.skipif(NO_BLENDER, reason="renders true clips: needs the extra `render`")
def test_the_order_of_the_videos_does_not_matter_and_the_reference_may_come_from_outside(
    sweeps: dict[str, list[Bytes]],
) -> None:
    axis, videos = control_of("temperature"), sweeps["temperature"]
    whole = read_sweep(axis, CONTROLS, videos, FPS)
    shuffled = [3, 0, 4, 2, 1]
    assert read_sweep(axis, [CONTROLS[n] for n in shuffled], [videos[n] for n in shuffled], FPS) == whole
    ends = read_sweep(axis, [-1.0, 1.0], [videos[0], videos[4]], FPS, reference=videos[2])
    assert [r.measured for r in ends.readings] == [whole.readings[0].measured, whole.readings[4].measured]
    assert ends.rho is None and ends.slope is not None  # two readings have no rank to speak of


@pytest.mark.parametrize("axis", list(LAWS))
@pytest.mark.parametrize("frames", [1, 5])
def test_noise_is_unreadable_and_says_so(axis: str, frames: int) -> None:
    rng = np.random.default_rng(frames)
    videos = [rng.integers(0, 256, (frames, 96, 96, 3), dtype=np.uint8) for _ in CONTROLS]
    report = read_sweep(control_of(axis), CONTROLS, videos, FPS)
    others = [reading for reading in report.readings if not reading.is_reference]
    assert all(reading.measured is None for reading in others), report
    assert (
        all(reading.note for reading in others) and report.median_error is None and report.slope is None and report.rho is None
    )
    assert report.line().startswith(f"{axis}: {report.readable} of 5 read")


@pytest.mark.parametrize("axis", list(AXES))
def test_why_nothing_is_read_is_a_reason_that_is_kept(axis: str, tmp_path: Path) -> None:
    """Not words: and what an earlier version stored without a reason is read again."""
    black = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    said = AXES[axis].probe(black, 16.0)
    assert said.value is None and isinstance(said.unread, Unread) and said.note
    first = Prober(tmp_path / "r.jsonl", 16.0).read(axis, black, black)
    assert first.unread is said.unread and not first.sharp
    again = Prober(tmp_path / "r.jsonl", 16.0)
    assert list(again._known.values()) == [first]
    tree = parse_checksummed_line((tmp_path / "r.jsonl").read_bytes().strip())
    assert tree.pop("unread") == said.unread.name
    (tmp_path / "r.jsonl").write_bytes(checksummed_line({key: tree[key] for key in tree if key != "check"}) + b"\n")
    assert Prober(tmp_path / "r.jsonl", 16.0)._known == {}


def test_one_flat_colour_is_no_evidence_of_any_control() -> None:
    grey = np.full((3, 64, 64, 3), 128, dtype=np.uint8)
    for axis in ("shutter", "aperture"):
        report = read_sweep(control_of(axis), CONTROLS, [grey] * 5, FPS)
        assert report.readable == 0 and report.rho is None and report.median_error is None
    same = read_sweep(control_of("temperature"), CONTROLS, [grey] * 5, FPS)
    assert same.rho == 0.0 and same.slope == pytest.approx(0.0, abs=1e-3)  # nothing changed, which is a reading of its own


def test_a_control_without_units_has_a_rank_and_no_scale() -> None:
    axis = AxisControl(name="temperature", law=NoLaw())
    warm = [np.full((1, 64, 64, 3), 128, np.uint8) + np.array([step, 0, -step], np.uint8) for step in (0, 10, 20, 30)]
    report = read_sweep(axis, [0.0, 0.2, 0.5, 0.9], warm, FPS)
    assert report.rho == pytest.approx(1.0) and report.slope is None and report.median_error is None
    assert all(reading.value is None and reading.expected is None for reading in report.readings)


def test_what_is_no_sweep_is_refused() -> None:
    video = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    for controls, videos, words in (
        ([0.0, 1.0], [video], "are no sweep"),
        ([0.0, 0.0], [video, video], "are no sweep"),
        ([0.5, 1.0], [video, video], "has no video at c = 0"),
    ):
        with pytest.raises(InputError, match=words):
            read_sweep(control_of("shutter"), controls, videos, FPS)


def test_the_statistics_are_those_of_the_readings() -> None:
    def reading(control: float, measured: float | None) -> ValueReading:
        return ValueReading(control=control, value=1.0, expected=2 * control, measured=measured)

    readings = (reading(-1.0, -1.5), reading(0.0, 0.0), reading(0.5, None), reading(1.0, 2.2))
    assert [one.error for one in readings] == [pytest.approx(0.5), None, None, pytest.approx(0.2)]
    report = SweepReport(axis="shutter", unit="stop", readings=readings, rho=1.0, slope=0.9, median_error=0.35)
    assert report.line() == "shutter: 3 of 4 read, rho 1.00, slope 0.90, median error 0.35 stop"
