"""The aperture axis: f-number, set on the camera as a thin lens, read from the blur discs of what is out of focus.

Array legend: T frames, H rows, W columns, 3 channels (RGB).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scenes.arrays import Bytes, Floats32
from scenes.axes.aperture.blur_ratio import pool, relative_stops
from scenes.axes.aperture.probe import MAX_RESIDUAL, find_spots
from scenes.camera import circle_of_confusion_px, focal_px, project
from scenes.control_axis import Detection, ErrorUnit, Measurement, Reading, UnitLaw, Unread
from scenes.errors import InputError
from scenes.spec import Optics, SceneSpec

DEFAULT_LAW = UnitLaw(neutral=5.6, ratio=1 / 4)
LEAST_JUDGED_PX = 2.0
LEAST_READ_PX = 0.5  # a disc below this cannot be told from none
ENOUGH_MARKS = 4
WRITTEN = re.compile(r"\s*(?:[fFƒ]\s*/?)?\s*(\d+(?:\.\d*)?|\.\d+)\s*")


@dataclass(frozen=True, kw_only=True)
class ExpectedDisc:
    """What the closed form says of one highlight: where it is seen, how wide it is, how wide its blur disc (pixels)."""

    x_px: float
    y_px: float
    outline_px: float
    disc_px: float


@dataclass(frozen=True)
class Aperture:
    """Control over the f-number; one stop is a factor of sqrt(2), and wider is stronger."""

    name: str = "aperture"
    column: str = "aperture_f_number"
    default_law: UnitLaw = DEFAULT_LAW
    error_unit: ErrorUnit = "stop"
    tolerance: float = 0.15
    plural: str = "F-numbers"
    shown_by: frozenset[str] = frozenset()
    reads_neutral: bool = False
    caveat: str = ""
    effect_words: tuple[str, str] = ("everything in focus from front to back", "shallow focus with a soft background")

    def layout_law(self, fps: int) -> UnitLaw:
        """Return the default law: scenes are laid out for discs at its widest aperture."""
        return self.default_law

    def parse(self, text: str) -> float:
        """Parse an f-number: `f/2.8`, `f2.8` or `2.8`; raises InputError."""
        match = WRITTEN.fullmatch(text)
        value = float(match.group(1)) if match else 0.0
        if not (0 < value < math.inf):
            raise InputError(f"aperture '{text}' is not an f-number above 0; write it like f/2.8 or 2.8")
        return value

    def format(self, value: float) -> str:
        """Write an f-number as `f/2.8`."""
        return f"f/{value:.3g}"

    def check_law(self, law: UnitLaw, fps: int) -> None:
        """Raise InputError unless every f-number for c in [-1, 1] is positive and finite."""
        if not (0 < law.neutral < math.inf):
            raise InputError(f"aperture: neutral f-number {law.neutral:g} is impossible; give one above 0, like 5.6")
        if not (0 < law.ratio < math.inf) or law.ratio == 1.0:
            raise InputError(f"aperture: ratio {law.ratio:g} is impossible; give one above 0 other than 1, like 0.25")
        ends = (law.value(-1.0), law.value(1.0))
        if not all(0 < end < math.inf for end in ends):
            raise InputError(
                f"aperture: neutral {law.neutral:g} and ratio {law.ratio:g} reach f/{ends[0]:g} and f/{ends[1]:g}; "
                "both must be above 0 and finite, choose a ratio nearer 1"
            )

    def apply_optics(self, optics: Optics, value: float) -> Optics:
        """Return the optics with this f-number."""
        return optics.model_copy(update={"f_number": value})

    def apply_image(self, linear_THW3: Floats32, value: float) -> Floats32:
        """Return the frames as they are: the aperture acts in the lens."""
        return linear_THW3

    def probe(self, frames_THW3: Bytes, fps: float) -> Reading:
        """Read blur-disc diameters (pixels) from sRGB frames alone; the f-number itself is not in them."""
        spots = find_spots(frames_THW3)
        soft = [spot for spot in spots if spot.blur_px >= LEAST_READ_PX]
        if not soft:
            reason = f"all {len(spots)} round bright spots look sharp" if spots else "no round bright spot stands out"
            unread = Unread.IN_FOCUS if spots else Unread.NOT_SEEN
            return Reading(value=None, confidence=0.0, unread=unread, note=f"{reason}: no blur disc to measure")
        misfit = float(np.median([spot.residual for spot in soft]))
        confidence = min(1.0, len(soft) / ENOUGH_MARKS) * (1.0 - 0.5 * misfit / MAX_RESIDUAL)
        detections = tuple(Detection(x_px=spot.x_px, y_px=spot.y_px, size_px=spot.blur_px) for spot in soft)
        return Reading(value=None, confidence=confidence, detections=detections, unread=Unread.NO_SCALE)

    def distance(self, value: float, reference: float) -> float:
        """Return how many stops wider a f-number is than the reference."""
        return 2.0 * math.log2(reference / value)

    def relative(self, frames_THW3: Bytes, reference_THW3: Bytes, fps: float) -> float | None:
        """Read how many stops wider the aperture is than in a clip of the same content at c = 0; None if unreadable."""
        return relative_stops(frames_THW3, reference_THW3)

    def measure(self, reading: Reading, scene: SceneSpec, optics: Optics, value: float) -> Measurement:
        """Hold a blind reading against the thin lens: each disc found at a highlight says value * expected / measured."""
        expected = expected_discs(scene, value)
        large = [disc for disc in expected if disc.disc_px >= LEAST_JUDGED_PX]
        pairs = matched(large or expected, reading.detections)
        if not pairs:
            widest = max((disc.disc_px for disc in expected), default=0.0)
            found = f"{len(reading.detections)} discs, none at any of {len(expected)} highlights"
            note = reading.note or f"{found} (widest expected {widest:.1f} px)"
            return Measurement(labelled=value, measured=None, error=None, judged=bool(large), confidence=0.0, note=note)
        logs = np.array([math.log(disc.disc_px / detection.size_px) for disc, detection in pairs])
        measured = value * math.exp(pool(logs, np.array([disc.disc_px for disc, _ in pairs])))
        note = "" if large else f"every expected disc is below {LEAST_JUDGED_PX:g} px"
        return Measurement(
            labelled=value,
            measured=measured,
            error=self.distance(measured, value),
            judged=bool(large),
            confidence=reading.confidence,
            note=note,
        )


def expected_discs(scene: SceneSpec, f_number: float) -> tuple[ExpectedDisc, ...]:
    """Return where each highlight of a scene is seen in the first frame and how wide its blur disc is (pixels)."""
    focal = focal_px(scene.camera, scene.shot)
    discs = []
    for solid in scene.with_role("highlight"):
        pixels_12, depth_1 = project(scene.camera, scene.shot, np.array([solid.motion.location_m]))
        depth = float(depth_1[0])
        discs.append(
            ExpectedDisc(
                x_px=float(pixels_12[0, 0]),
                y_px=float(pixels_12[0, 1]),
                outline_px=focal * solid.scale_m[0] / depth,
                disc_px=circle_of_confusion_px(scene.camera, scene.shot, f_number, depth),
            )
        )
    return tuple(discs)


def matched(expected: Sequence[ExpectedDisc], detections: Sequence[Detection]) -> list[tuple[ExpectedDisc, Detection]]:
    """Return each expected disc that has a detection at its place, with the nearest one."""
    pairs = []
    for disc in expected:
        reach = max(2.0, 0.2 * max(disc.outline_px, disc.disc_px))
        near = [
            (math.hypot(detection.x_px - disc.x_px, detection.y_px - disc.y_px), detection.size_px, detection)
            for detection in detections
        ]
        distance, _, detection = min(near, key=lambda item: item[:2], default=(math.inf, 0.0, None))
        if detection is not None and distance <= reach and disc.disc_px > 0:
            pairs.append((disc, detection))
    return pairs
