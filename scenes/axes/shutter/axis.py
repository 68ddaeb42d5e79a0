"""The `shutter` axis: exposure time in seconds, by true motion blur; its probe divides blur length by speed.

Closed form: blur length (pixels) = speed (pixels per second) * exposure (seconds). On a still the speed is not in the pixels,
so the probe gives blur lengths only, which need the closed-form speed, or a reference at c = 0, to become exposures.

Array legend: T frames, H rows, W columns, 3 channels (RGB).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
from numpy.typing import NDArray

from scenes.arrays import Bytes, Floats32
from scenes.axes.shutter.probe import BlurredThing, compare_motion_blur, read_motion_blur
from scenes.camera import project
from scenes.control_axis import Detection, ErrorUnit, Measurement, Reading, UnitLaw, Unread
from scenes.errors import InputError
from scenes.motion import location_at
from scenes.spec import Optics, SceneSpec

READABLE_PX = 1.1  # below, no blur can be told from a sharp edge
JUDGED_PX = 2.0  # expected blur from which the tolerance holds
# From here on single readings hold the tolerance (a cube rendered at 128 px: within 0.03 stop). At 2.2 and 2.5 px they were
# 0.19 and 0.10 stop short, in PNG frames 0.14 and 0.09: how wide a sharp edge is, is in doubt by as much as that blur adds.
SURE_PX = 3.0
MIN_USED = 0.3  # the share of edges that must agree on one blur
MAX_MISFIT = 0.04  # luma in [0, 1]: above, the edges are not motion-blurred ones
AGREE_STOPS = 0.35  # things of one clip share an exposure
FLOOR_ERROR = 0.02  # relative error that no number of edges beats
LAW = UnitLaw(neutral=1 / 80, ratio=5.0)
FORM = re.compile(
    r"\s*(?:(?P<over>\d+)\s*/\s*(?P<under>\d+(?:\.\d+)?)|(?P<number>\d*\.?\d+(?:e-?\d+)?))\s*(?P<unit>ms|s)?\s*", re.I
)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the closed form says of one moving solid: where it is in the first frame and how fast (pixels per second)."""

    x_px: float
    y_px: float
    speed_px_per_s: float
    reach_px: float


@dataclass(frozen=True)
class Shutter:
    """Exposure time, neutral 1/80 s, five times longer at c = +1: 1/400 s to 1/16 s."""

    name: str = "shutter"
    column: str = "shutter_exposure_s"
    default_law: UnitLaw = LAW
    error_unit: ErrorUnit = "stop"
    tolerance: float = 0.10
    plural: str = "Exposure times"
    shown_by: frozenset[str] = frozenset()
    reads_neutral: bool = False
    caveat: str = "shutter: blur below about 2 px reads too long, so that the curve flattens where little moves fast enough"
    effect_words: tuple[str, str] = ("short exposure, frozen motion", "long exposure, motion blur")

    def layout_law(self, fps: int) -> UnitLaw:
        """Return the default law or, where the frame interval is shorter than its longest exposure, the one that fills it."""
        if fps * self.default_law.value(1.0) <= 1.0:
            return self.default_law
        return UnitLaw(neutral=1.0 / fps / self.default_law.ratio, ratio=self.default_law.ratio)

    def parse(self, text: str) -> float:
        """Parse an exposure time (`1/50`, `0.02`, `20ms`, `1/50s`) to seconds; raises InputError."""
        match = FORM.fullmatch(text)
        value = 0.0
        if match is not None:
            if match["over"] is not None:
                value = float(match["over"]) / float(match["under"]) if float(match["under"]) > 0 else 0.0
            else:
                value = float(match["number"])
            value *= 0.001 if (match["unit"] or "s").lower() == "ms" else 1.0
        if not 0.0 < value < math.inf:
            raise InputError(
                f"exposure '{text}' is not a time above 0; write seconds as a fraction or a number, such as 1/50, 0.02 or 20ms"
            )
        return value

    def format(self, value: float) -> str:
        """Write an exposure time (seconds) as photographers do: `1/50`, from half a second on `0.5s`."""
        if value >= 0.4:
            return f"{value:.3g}s"
        whole = round(1 / value)
        if abs(whole * value - 1) < 0.004:
            return f"1/{whole}"
        return f"1/{1 / value:.4g}"

    def check_law(self, law: UnitLaw, fps: int) -> None:
        """Raise InputError if an exposure for c in [-1, 1] is not above 0 or is longer than the frame interval."""
        if not (law.neutral > 0 and math.isfinite(law.neutral)):
            raise InputError(f"shutter neutral {law.neutral:g} s is not an exposure; give a time above 0 s, such as 1/80")
        if not (law.ratio > 0 and math.isfinite(law.ratio) and law.ratio != 1.0):
            raise InputError(f"shutter ratio {law.ratio:g} makes no range of exposures; give a number above 0 other than 1")
        longest_s = max(law.value(-1.0), law.value(1.0))
        if longest_s > (1.0 + 1e-8) / fps:  # a neutral written as 1/60 is kept to nine digits
            raise InputError(
                f"shutter reaches an exposure of {self.format(longest_s)} ({longest_s:.5g} s), beyond the frame interval; at "
                f"{fps} fps at most {Fraction(1, fps)} s is possible; lower neutral or ratio, or the frame rate"
            )

    def apply_optics(self, optics: Optics, value: float) -> Optics:
        """Return the optics with the exposure time (seconds) set."""
        return optics.model_copy(update={"exposure_s": value})

    def apply_image(self, linear_THW3: Floats32, value: float) -> Floats32:
        """Return the same frames: the shutter acts on the camera."""
        return linear_THW3

    def probe(self, frames_THW3: Bytes, fps: float) -> Reading:
        """Read the exposure time (seconds) from sRGB frames `[T, H, W, 3]`; a still has blur lengths (detections) only."""
        things, unread, note = read_motion_blur(frames_THW3)
        if not things:
            return Reading(value=None, confidence=0.0, unread=unread, note=note)
        good = [thing for thing in things if _is_read(thing)]
        detections = tuple(Detection(x_px=thing.x_px, y_px=thing.y_px, size_px=thing.length_px) for thing in good)
        if not good:
            sharp = min(things, key=lambda thing: thing.misfit)
            if sharp.misfit < MAX_MISFIT:
                unread, why = Unread.TOO_SHARP, f"edges are sharp to {READABLE_PX:g} px"
            else:
                unread, why = Unread.OTHER_SHAPE, "edges do not look motion-blurred"
            return Reading(value=None, confidence=0.0, unread=unread, note=f"no blur to read: {why}")
        relative = np.array([math.hypot(thing.error_px / thing.length_px, FLOOR_ERROR) for thing in good])
        if good[0].speed_px_per_frame is None:
            confidence, note = _confidence(relative), "a still shows no speed"
            return Reading(value=None, confidence=confidence, detections=detections, unread=Unread.NO_SCALE, note=note)
        frames = np.log2([thing.length_px / cast(float, thing.speed_px_per_frame) for thing in good])
        stops, agree = _pooled(frames, relative)
        confidence = _confidence(relative[agree]) * float(agree.mean())
        return Reading(value=float(2.0**stops / fps), confidence=confidence, detections=detections)

    def distance(self, value: float, reference: float) -> float:
        """Return the distance in stops from a reference exposure, positive towards the longer one."""
        return math.log2(value / reference)

    def relative(self, frames_THW3: Bytes, reference_THW3: Bytes, fps: float) -> float | None:
        """Read the distance in stops from a clip of the same content at c = 0, or None if either cannot be read.

        Things that both clips show are compared one by one, along the same lines. Where there are none, the readings of the
        clips are; and on stills, blurs at the same place: the speed is the same.
        """
        pairs = [pair for pair in compare_motion_blur(frames_THW3, reference_THW3) if all(map(_is_read, pair))]
        if pairs:
            errors = [math.hypot(*(thing.error_px / thing.length_px for thing in pair), FLOOR_ERROR) for pair in pairs]
            ratios = np.log2([thing.length_px / other.length_px for thing, other in pairs])
            return _pooled(ratios, np.array(errors))[0]
        reading, reference = self.probe(frames_THW3, fps), self.probe(reference_THW3, fps)
        if reading.value is not None and reference.value is not None:
            return self.distance(reading.value, reference.value)
        height, width = frames_THW3.shape[1:3]
        near_px = 0.1 * max(height, width)
        stops = [
            math.log2(detection.size_px / other.size_px)
            for detection in reading.detections
            for other in reference.detections
            if math.hypot(detection.x_px - other.x_px, detection.y_px - other.y_px) < near_px
        ]
        return float(np.median(stops)) if stops else None

    def measure(self, reading: Reading, scene: SceneSpec, optics: Optics, value: float) -> Measurement:
        """Hold a blind reading against `speed * exposure` of the scene's moving solids; judged from 2 px of blur on."""
        expected = expected_motion(scene)
        longest_px = max((one.speed_px_per_s * value for one in expected), default=0.0)
        measured = reading.value if reading.value is not None else _from_detections(reading.detections, expected, value)
        note = reading.note
        if longest_px < JUDGED_PX:
            note = f"expected blur of {longest_px:.2g} px is below {JUDGED_PX:g} px"
        elif measured is None and reading.detections:
            note = "no blur was found where the scene has a moving solid"
        return Measurement(
            labelled=value,
            measured=measured,
            error=None if measured is None else self.distance(measured, value),
            judged=longest_px >= JUDGED_PX,
            confidence=reading.confidence,
            note=note if measured is None or longest_px < JUDGED_PX else "",
        )


def _is_read(thing: BlurredThing) -> bool:
    sure = thing.length_px >= READABLE_PX and thing.error_px < 0.5 * thing.length_px
    return sure and thing.misfit < MAX_MISFIT and thing.used >= MIN_USED


def _confidence(relative_K: NDArray[np.float64]) -> float:
    """Return 1 for a small standard error (relative), 0.5 at a tenth of a stop and less beyond."""
    pooled = 1.0 / math.sqrt(float((relative_K**-2.0).sum()))
    return float(1.0 / (1.0 + (pooled / 0.07) ** 2))


def _pooled(stops_K: NDArray[np.float64], relative_K: NDArray[np.float64]) -> tuple[float, NDArray[np.bool_]]:
    """Return the weighted mean of the things that agree with the surest ones, and which agree."""
    weight_K = relative_K**-2.0
    order = np.argsort(stops_K)
    passed = np.cumsum(weight_K[order]) / weight_K.sum()
    middle = stops_K[order[int(np.searchsorted(passed, 0.5))]]
    agree = np.abs(stops_K - middle) < AGREE_STOPS
    return float((weight_K * stops_K)[agree].sum() / weight_K[agree].sum()), agree


def expected_motion(scene: SceneSpec) -> list[Expected]:
    """Return, per moving solid, its place in the first frame and its speed in the picture, in closed form."""
    found: list[Expected] = []
    for solid in scene.solids:
        if not any(solid.motion.velocity_m_per_s):
            continue
        step_s = 0.5 / scene.shot.fps
        points = np.stack([location_at(solid.motion, time_s) for time_s in (-step_s, 0.0, step_s)])
        pixels, depth = project(scene.camera, scene.shot, points)
        if not (depth > 0).all():
            continue
        speed = float(np.hypot(*(pixels[2] - pixels[0]))) / (2 * step_s)
        reach = max(solid.scale_m) * scene.camera.focal_length_mm / scene.camera.sensor_width_mm * scene.shot.width / depth[1]
        found.append(Expected(x_px=float(pixels[1, 0]), y_px=float(pixels[1, 1]), speed_px_per_s=speed, reach_px=float(reach)))
    return found


def _from_detections(detections: tuple[Detection, ...], expected: list[Expected], value: float) -> float | None:
    """Return the exposure (seconds) that the detections at the solids' places say, by the median; longer blurs first."""
    pairs: list[tuple[float, float]] = []
    for one in expected:
        if one.speed_px_per_s <= 0 or not detections:
            continue
        away = [math.hypot(detection.x_px - one.x_px, detection.y_px - one.y_px) for detection in detections]
        nearest = int(np.argmin(away))
        if away[nearest] < max(4.0, 0.5 * one.reach_px):
            pairs.append((one.speed_px_per_s * value, detections[nearest].size_px / one.speed_px_per_s))
    judged = [measured for blur_px, measured in pairs if blur_px >= JUDGED_PX]
    chosen = judged or [measured for _, measured in pairs]
    return float(2.0 ** np.median(np.log2(chosen))) if chosen else None
