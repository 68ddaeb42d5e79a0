"""The colour temperature axis: the cast of the light on the scene, by chromatic adaptation of scene-linear radiance.

The picture is rendered under 6500 K and adapted to the labelled temperature, whatever neutral a recipe chooses: 6500 K is where
the cast is nothing, `neutral` only where c = 0 lies. Array legend: T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from scenes.arrays import Bytes, Floats32
from scenes.axes.temperature.probe import cast_between, find_neutral
from scenes.camera import project
from scenes.control_axis import Detection, ErrorUnit, Measurement, Reading, UnitLaw, Unread
from scenes.errors import InputError
from scenes.spec import Optics, SceneSpec
from scenes.white import MAX_KELVIN, MIN_KELVIN, REFERENCE_KELVIN, adaptation_33, mired

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(k|kelvin|mired|mireds)?", re.IGNORECASE)
TOLERANCE_MIRED = 5.0
_LAW = UnitLaw(neutral=REFERENCE_KELVIN, ratio=1 / 3.25)
FULL_LEVELS = 3.0  # luminance levels that make a neutral beyond doubt


@dataclass(frozen=True)
class Temperature:
    """White balance cast of the rendered light, in kelvin; +1 is warmer."""

    name: str = "temperature"
    column: str = "temperature_k"
    default_law: UnitLaw = _LAW
    error_unit: ErrorUnit = "mired"
    tolerance: float = TOLERANCE_MIRED
    plural: str = "Kelvins"
    shown_by: frozenset[str] = frozenset()
    reads_neutral: bool = True
    caveat: str = ""
    effect_words: tuple[str, str] = ("cool bluish light", "warm orange light")

    def layout_law(self, fps: int) -> UnitLaw:
        """Return the default law: colours and lights are chosen for its casts."""
        return self.default_law

    def parse(self, text: str) -> float:
        """Parse `3200K`, `3200` or `312 mired` to kelvin; raises InputError outside 1000 to 40000 K."""
        match = _WRITTEN.fullmatch(text.strip())
        amount = float(match.group(1)) if match else 0.0
        if match is None or amount <= 0:
            raise InputError(f"temperature '{text}' is not a temperature; write it as 3200K, 3200 or 312 mired")
        kelvin = 1e6 / amount if (match.group(2) or "").lower().startswith("mired") else amount
        _check_kelvin(kelvin, f"temperature '{text}'")
        return kelvin

    def format(self, value: float) -> str:
        """Write kelvins as `3200 K`."""
        return f"{value:.0f} K"

    def check_law(self, law: UnitLaw, fps: int) -> None:
        """Raise InputError where c in [-1, 1] leaves the tabulated locus, 1000 to 40000 K."""
        for control in (-1.0, 0.0, 1.0):
            value = law.value(control)
            _check_kelvin(value, f"temperature law with neutral {law.neutral:g} and ratio {law.ratio:g} at c = {control:g}")

    def apply_optics(self, optics: Optics, value: float) -> Optics:
        """Return the optics unchanged: temperature acts on the image."""
        return optics

    def apply_image(self, linear_THW3: Floats32, value: float) -> Floats32:
        """Return scene-linear Rec.709 frames under `value` kelvin: float32, negative channels clipped.

        At 6500 K it is the same array. Raises InputError outside 1000 to 40000 K.
        """
        _check_kelvin(value, "temperature")
        if value == REFERENCE_KELVIN:
            return linear_THW3
        matrix_33 = adaptation_33(value).astype(np.float32)
        flat_N3 = np.ascontiguousarray(linear_THW3, dtype=np.float32).reshape(-1, 3)
        cast_N3 = flat_N3 @ matrix_33.T
        np.maximum(cast_N3, np.float32(0), out=cast_N3)
        return cast_N3.reshape(linear_THW3.shape)

    def probe(self, frames_THW3: Bytes, fps: float) -> Reading:
        """Read the kelvin of the light on what is neutral, absolute, from sRGB frames alone (`probe.find_neutral`)."""
        found = find_neutral(frames_THW3)
        if found is None:
            note = "nothing between black and clipped white looks like a neutral under any light from 1000 to 40000 K"
            return Reading(value=None, confidence=0.0, unread=Unread.NOT_SEEN, note=note)
        lead = 1.0 - min(1.0, found.rival_levels / found.levels)
        support = min(1.0, found.levels / FULL_LEVELS)
        sharp = 1.0 / (1.0 + (found.sigma_mired / 10.0) ** 2)
        confidence = float(np.clip(support * sharp * min(1.0, 0.25 + 1.5 * lead), 0.0, 1.0))
        note = "" if confidence >= 0.3 else "weak evidence: few luminances share this chromaticity, or another fits as well"
        x_px, y_px, size_px = found.place_px
        detections = (Detection(x_px=x_px, y_px=y_px, size_px=size_px),)
        return Reading(value=1e6 / found.mired, confidence=confidence, detections=detections, note=note)

    def distance(self, value: float, reference: float) -> float:
        """Return the distance from reference to value (kelvins) in mired, positive towards warmer."""
        return mired(value) - mired(reference)

    def relative(self, frames_THW3: Bytes, reference_THW3: Bytes, fps: float) -> float | None:
        """Return how many mired warmer the clip is than a reference of the same content, or None where they do not match.

        Frames are sRGB `[T, H, W, 3]`; raises InputError for two sizes.
        """
        if frames_THW3.shape[1:] != reference_THW3.shape[1:]:
            raise InputError(
                f"the clip is {frames_THW3.shape[2]}x{frames_THW3.shape[1]} and its reference "
                f"{reference_THW3.shape[2]}x{reference_THW3.shape[1]}; compare clips of one size"
            )
        count = min(len(frames_THW3), len(reference_THW3))
        return cast_between(frames_THW3[:count], reference_THW3[:count])

    def measure(self, reading: Reading, scene: SceneSpec, optics: Optics, value: float) -> Measurement:
        """Hold the blind kelvin against the label, in mired; not judged where the scene promises no neutral patch."""
        promised = bool(scene.with_role("patch"))
        if reading.value is None:
            return Measurement(
                labelled=value, measured=None, error=None, judged=promised, confidence=reading.confidence, note=reading.note
            )
        error = self.distance(reading.value, value)
        notes = [reading.note] if reading.note else []
        if not promised:
            notes.append(f"family '{scene.family}' promises no neutral patch")
        elif abs(error) > self.tolerance and not _on_patch(reading, scene):
            notes.append("the neutral was read away from the scene's neutral patches")
        return Measurement(
            labelled=value,
            measured=reading.value,
            error=error,
            judged=promised,
            confidence=reading.confidence,
            note="; ".join(notes),
        )


def _check_kelvin(kelvin: float, what: str) -> None:
    if not MIN_KELVIN <= kelvin <= MAX_KELVIN:
        raise InputError(
            f"{what} is {kelvin:.0f} K, outside the locus; choose {MIN_KELVIN:.0f} to {MAX_KELVIN:.0f} K (25 to 1000 mired)"
        )


def _on_patch(reading: Reading, scene: SceneSpec) -> bool:
    """Return whether a detection of the reading lies on a projected neutral patch in the first frame."""
    patches = scene.with_role("patch")
    centers_N2, depth_N = project(scene.camera, scene.shot, np.array([solid.motion.location_m for solid in patches]))
    focal_px = scene.camera.focal_length_mm / scene.camera.sensor_width_mm * scene.shot.width
    radius_N = np.array([max(solid.scale_m) for solid in patches]) * 0.75 * focal_px / depth_N
    for detection in reading.detections:
        away_N = np.hypot(centers_N2[:, 0] - detection.x_px, centers_N2[:, 1] - detection.y_px)
        if bool(np.any((depth_N > 0) & (away_N <= radius_N))):
            return True
    return False
