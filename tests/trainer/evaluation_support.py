"""Videos whose blur, blur disc and cast are known exactly, laid out as an evaluation's, for the tests of evaluation and report.

Array legend: T frames, H rows, W columns, 3 channels (sRGB, uint8); drawn in linear light, encoded as generated ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from generator.media.video import decode, encode
from scenes.axes import AXES
from scenes.palette import to_bytes
from trainer.config.evaluate import EvaluateSettings
from trainer.control.laws import AxisControl, axis_control
from trainer.evaluation.arms import Arm, EvaluationPlan, PlannedSweep, make_evaluation_plan
from trainer.evaluation.published_numbers import PUBLISHED
from trainer.evaluation.results import EvaluationReport
from trainer.evaluation.score import Measured, measure
from trainer.evaluation.verdict import verdict
from trainer.generation.plan import PlannedVideo

Bytes = NDArray[np.uint8]
FPS = 16
FINE = 3  # samples a pixel, each way
SPEED_PX = 11.0  # a frame
DISC_PX = 4.0  # blur disc at c = 0
EVERY = tuple(axis_control(name) for name in AXES)
Draw = Callable[[str, str, float], Bytes]  # axis, prompt, control -> frames


class Thumbnail:
    """Features of a video that are its own mean colours on a 4 x 4 grid: enough to tell pictures apart."""

    name = "thumbnail"

    def video(self, frames_THW3: Bytes) -> NDArray[np.float64]:
        """Return the mean colours [48]."""
        count, height, width, _ = frames_THW3.shape
        cut = frames_THW3[:, : height // 4 * 4, : width // 4 * 4]
        grid = cut.reshape(count, 4, height // 4, 4, width // 4, 3).mean(axis=(0, 2, 4))
        return np.asarray(grid, dtype=np.float64).ravel() + 1.0


def rng_of(prompt: str) -> np.random.Generator:
    """Return the random numbers of a prompt's content, the same at every control."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big"))


@cache
def clip(axis: str, prompt: str, control: float) -> Bytes:
    """Return a clip that shows an axis's value at a control exactly, as it comes out of H.264."""
    drawn = {"shutter": crossing, "aperture": lights, "temperature": card}[axis](prompt, AXES[axis].default_law.value(control))
    return decode(encode(drawn, FPS, 12, "medium"))


def crossing(prompt: str, exposure_s: float, side: int = 84, frames: int = 5) -> Bytes:
    """Return a disc that crosses the picture, blurred along its motion by speed times exposure."""
    rng = rng_of(prompt)
    radius, blur = rng.uniform(11, 13), max(1e-3, SPEED_PX * FPS * exposure_s)
    y, x = (np.mgrid[: side * FINE, : side * FINE] + 0.5) / FINE - side / 2
    chord = np.sqrt(np.clip(radius**2 - (y - rng.uniform(-4, 4)) ** 2, 0.0, None))
    dark, light = rng.uniform(0.03, 0.1, 3), rng.uniform(0.4, 0.8, 3)
    linear = np.empty((frames, side, side, 3), dtype=np.float32)
    for frame in range(frames):
        away = x - SPEED_PX * (frame - (frames - 1) / 2)
        fine = np.clip(np.minimum(away + blur / 2, chord) - np.maximum(away - blur / 2, -chord), 0.0, None) / blur
        cover = fine.reshape(side, FINE, side, FINE).mean(axis=(1, 3))[..., None]
        linear[frame] = dark + cover * (light - dark)
    return to_bytes(linear)


def lights(prompt: str, f_number: float, side: int = 128, frames: int = 1) -> Bytes:
    """Return two round lights out of focus, whose blur discs are inversely proportional to the f-number."""
    rng = rng_of(prompt)
    disc_px = DISC_PX * AXES["aperture"].default_law.neutral / f_number
    y, x = (np.mgrid[: side * FINE, : side * FINE] + 0.5) / FINE
    half = math.ceil(disc_px * FINE / 2) + 1
    v, u = np.mgrid[-half : half + 1, -half : half + 1] / FINE
    kernel = np.clip((disc_px / 2 - np.hypot(u, v)) * FINE + 0.5, 0.0, 1.0)
    fine = sum(
        np.clip((rng.uniform(24, 30) / 2 - np.hypot(x - at_x, y - at_y)) * FINE + 0.5, 0.0, 1.0)
        for at_x, at_y in ((36.3, 40.1), (90.7, 86.9))
    )
    soft = np.clip(fftconvolve(fine, kernel / kernel.sum(), mode="same"), 0.0, 1.0)
    linear_HW = 0.04 + 0.6 * soft.reshape(side, FINE, side, FINE).mean(axis=(1, 3))
    return to_bytes(np.repeat(np.repeat(linear_HW[None, ..., None], 3, axis=-1), frames, axis=0).astype(np.float32))


def card(prompt: str, kelvin: float, side: int = 64, frames: int = 3) -> Bytes:
    """Return grey squares on a coloured ground under light of a colour temperature."""
    rng = rng_of(prompt)
    linear = np.empty((frames, side, side, 3), dtype=np.float32)
    linear[:] = rng.uniform(0.05, 0.4, 3)
    for number, grey in enumerate((0.05, 0.1, 0.2, 0.3, 0.45, 0.6)):
        top, left = 12 + 20 * (number // 3), 4 + 20 * (number % 3)
        linear[:, top : top + 16, left : left + 16] = grey
    return to_bytes(AXES["temperature"].apply_image(linear, kelvin))


def synthetic(
    folder: Path,
    axes: Sequence[str],
    prompts: int,
    *,
    controls: str = "-1.5..1.5:7",
    draw: Draw = clip,
    modes: tuple[str, ...] = ("decoupled",),
) -> tuple[EvaluationPlan, Measured]:
    """Lay out an evaluation's videos in a folder, drawn instead of generated, and measure them."""
    settings = EvaluateSettings(controls=controls, prompts=("x",), modes=modes, text_baseline=False, features=("tiny",))
    chosen = tuple(axis_control(name) for name in axes)
    arms = [Arm(name=mode, mode=mode, adapter=Path("adapter"), folder="videos") for mode in modes]
    words = {axis.name: [f"{axis.name} {number}" for number in range(prompts)] for axis in chosen}
    plan = make_evaluation_plan(chosen, {Path("adapter"): EVERY}, arms, words, settings)
    for sweep in plan.sweeps:
        for control, video in zip(sweep.controls, sweep.videos, strict=True):
            write(folder, sweep, video, draw(sweep.axis.name, sweep.prompt, control if sweep.arm.controlled else 0.0))
    return plan, measure(plan.sweeps, EVERY, folder, FPS, [Thumbnail()], lambda _words: None)


def write(folder: Path, sweep: PlannedSweep, video: PlannedVideo, frames_THW3: Bytes) -> None:
    """Write a video where an evaluation has it; the frames are written as they are, encoded once more."""
    path = folder / sweep.arm.folder / f"{video.name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(frames_THW3, FPS, 6, "medium"))


def report_of(plan: EvaluationPlan, measured: Measured, axes: Sequence[AxisControl]) -> EvaluationReport:
    """Return the report of drawn sweeps, as `evaluate` would write it."""
    names = tuple(axis.name for axis in axes)
    arms = tuple(dict.fromkeys(sweep.arm.name for sweep in plan.sweeps))
    prompts: Mapping[str, tuple[str, ...]] = {
        name: tuple(dict.fromkeys(sweep.prompt for sweep in plan.sweeps if sweep.axis.name == name)) for name in names
    }
    settings = EvaluateSettings(prompts=("x",), features=("tiny",), fep=False)
    return EvaluationReport(
        adapter="runs/drawn/adapter",
        adapter_step=500,
        dataset_version="b" * 64,
        backbone="tiny",
        axes=names,
        laws={axis.name: axis.law.model_dump(mode="json") for axis in axes},
        arms=arms,
        main_arm="decoupled",
        settings=settings.model_dump(mode="json"),
        sampling={"width": 96, "height": 96, "frames": 5, "steps": 20, "guidance": 5.0, "text_tokens": 64},
        prompts=dict(prompts),
        prompts_from="drawings",
        extractors=("thumbnail",),
        probes_version=1,
        accuracy=measured.accuracy,
        leakage=measured.leakage,
        consistency=measured.consistency,
        fep=(),
        drift=None,
        svp=measured.svp,
        flicker=measured.flicker,
        sweeps=measured.sweeps,
        published=PUBLISHED,
        notes=("drawn, not <generated>",),
        verdict=verdict(measured.accuracy, measured.leakage, (), "decoupled"),
        versions={"stopdown": "0"},
        wall_s=12.0,
    )
