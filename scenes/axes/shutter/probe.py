"""Reads motion blur from frames alone: what moves, how fast, and how long its blur is.

Array legend: T frames, H rows, W columns, 3 channels (sRGB bytes); F frames of a track, J scan lines; 2 picture coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scenes.arrays import Bytes, Floats
from scenes.axes.shutter.ramps import Edges, Ramps, fit_ramps
from scenes.axes.shutter.scanlines import LUMA_3, Outline, Profiles, Scan, cut, find_outline, read_profiles, sample_edges
from scenes.axes.shutter.tracking import GENERATED, Backdrop, Blob, Track, find_backdrop, find_blobs, find_tracks
from scenes.control_axis import Unread

SIGMA_PRIOR_PX = (0.45, 0.15)  # of a sharp picture: pixel, render filter, codec
LINES = (8, 40)  # scan lines per frame of a thing, fewest and most
LINES_PER_CLIP = 260
LINE_SPAN = 0.88  # of the thing's extent across the motion
MIN_USED = 0.5  # the share of edges that must agree
GOOD_MISFIT = 0.012  # luma in [0, 1]: below, a first fit needs no second start
CORNER_LOSS_PX = 0.12  # ramps are read this much short: pixels and codec round their corners (H.264 CRF 12, 2 to 45 px)
SIGMA_DOUBT_PX2 = 0.04  # how far the variance of the Gaussian is in doubt; it passes for a blur of its own
RAMP_GUESSES_PX = (4.0, 12.0, 36.0)
ANGLES = 180  # directions tried on a still
ALL_ROUND = 0.8  # least over greatest slope power: above, a thing is as soft one way as the other, and no motion made it so
SAME_PLACE = 0.35  # how far the same thing may lie off in another clip, in shares of its size
TURNS = 4  # times that the scan lines are turned on a still
STRAIGHT_RAD = 0.01


@dataclass(frozen=True, kw_only=True)
class BlurredThing:
    """One moving thing: place in the first frame, speed (pixels per frame, None on a still), blur and its error (pixels).

    `misfit` is the usual misfit of its edges in luma, `used` the share of edges that agree.
    """

    x_px: float
    y_px: float
    speed_px_per_frame: float | None
    length_px: float
    error_px: float
    misfit: float
    used: float


@dataclass(frozen=True, eq=False, kw_only=True)
class _Path:
    """What a thing does: blobs and centres per frame, and the unit direction of its motion."""

    blobs: tuple[Blob, ...]
    center_F2: Floats
    direction_2: Floats


Blurred = tuple[list[BlurredThing], Unread | None, str]  # what can be read, or why nothing can, and that in words


def read_motion_blur(frames_THW3: Bytes) -> Blurred:
    """Return the moving things whose blur can be read, and, where there is none, why not.

    Where nothing is tracked as in a rendering, a second look allows for what generated videos have: haze and uneven shapes.
    """
    backdrop = find_backdrop(frames_THW3)
    if backdrop is None:
        return [], Unread.HIDDEN, "the backdrop has texture and the frames are too few to see behind what moves"
    blobs_T = find_blobs(frames_THW3, backdrop)
    if len(frames_THW3) == 1 and any(blobs_T):
        return _read_still(frames_THW3, backdrop, blobs_T[0])
    tracks = _tracks(frames_THW3, backdrop, blobs_T)
    if not tracks and any(blobs_T):
        return [], Unread.NOT_MOVING, "nothing moves at an even speed"
    if not tracks:
        return [], Unread.NOT_SEEN, "nothing stands out from the backdrop inside the frame"
    things: list[BlurredThing] = []
    hidden = False
    lines = _lines(sum(len(track.blobs) for track in tracks))
    for track in tracks:
        speed = track.speed_px_per_frame
        scan = _scan(frames_THW3, backdrop, _path(track, track.blobs), lines)
        if backdrop.picture_HW3 is not None and scan.reach[1] - scan.reach[0] > 0.5 * len(frames_THW3) * speed:
            hidden = True  # it covers places for most of the clip: the median over time shows it, not what is behind it
            continue
        ramps = _fit(scan, longest_px=1.5 * speed)
        if ramps is not None:
            error_px = ramps.length_px * math.hypot(ramps.error_px / ramps.length_px, track.velocity_error / speed)
            things.append(_thing(track.center_at(0), speed, ramps, error_px))
    if hidden and not things:
        return [], Unread.HIDDEN, "the textured backdrop stays hidden behind what moves for most of the clip"
    if not things:
        return [], Unread.NO_EDGES, "the moving things have too little luma contrast or no readable edges"
    return things, None, ""


def compare_motion_blur(frames_THW3: Bytes, reference_THW3: Bytes) -> list[tuple[BlurredThing, BlurredThing]]:
    """Return moving things as both clips of one content show them, read along the same lines of the same frames.

    Tracks, directions and speeds are the reference's, and both fits start from the same guess: what a thing's shape does to
    a reading, it does to both. Empty where nothing is tracked or the clips are no videos of one size.
    """
    if frames_THW3.shape != reference_THW3.shape or len(frames_THW3) < 2:
        return []
    clips = (frames_THW3, reference_THW3)
    backdrops = [backdrop for backdrop in map(find_backdrop, clips) if backdrop is not None]
    if len(backdrops) < len(clips):
        return []
    tracks = _tracks(reference_THW3, backdrops[1], find_blobs(reference_THW3, backdrops[1]))
    others_T = find_blobs(frames_THW3, backdrops[0], GENERATED)
    lines = _lines(sum(len(track.blobs) for track in tracks)) if tracks else 0
    pairs: list[tuple[BlurredThing, BlurredThing]] = []
    for track in tracks:
        blobs = _in_both(track.blobs, others_T)
        if len(blobs) < 2:
            continue
        path = _path(track, blobs)
        scans = [_scan(clip, backdrop, path, lines) for clip, backdrop in zip(clips, backdrops, strict=True)]
        both = _fit_both(scans, longest_px=1.5 * track.speed_px_per_frame)
        if both is not None:
            one, other = (_thing(track.center_at(0), track.speed_px_per_frame, ramps, ramps.error_px) for ramps in both)
            pairs.append((one, other))
    return pairs


def _tracks(frames_THW3: Bytes, backdrop: Backdrop, blobs_T: list[list[Blob]]) -> list[Track]:
    """Return the tracks through blobs, or, where there are none as in a rendering, those that a second look finds."""
    min_travel_px = max(2.0, 0.01 * max(frames_THW3.shape[1:3]))
    tracks = find_tracks(blobs_T, min_travel_px)
    return tracks or find_tracks(find_blobs(frames_THW3, backdrop, GENERATED), min_travel_px, GENERATED)


def _in_both(blobs: tuple[Blob, ...], others_T: list[list[Blob]]) -> tuple[Blob, ...]:
    """Return blobs that another clip has too, at about their places, grown by the points it has there."""
    grown = []
    for blob in blobs:
        away = [(float(np.hypot(*(other.center_2 - blob.center_2))), other) for other in others_T[blob.frame]]
        distance, other = min(away, key=lambda pair: pair[0], default=(math.inf, blob))
        if distance < 1 + SAME_PLACE * math.sqrt(blob.area_px):
            grown.append(replace(blob, points_P2=np.concatenate([blob.points_P2, other.points_P2])))
    return tuple(grown)


def _path(track: Track, blobs: tuple[Blob, ...]) -> _Path:
    return _Path(
        blobs=blobs,
        center_F2=np.stack([track.center_at(blob.frame) for blob in blobs]),
        direction_2=track.velocity_2 / track.speed_px_per_frame,
    )


def _lines(frames: int) -> int:
    return int(np.clip(LINES_PER_CLIP // frames, *LINES))


def _thing(center_2: Floats, speed: float | None, ramps: Ramps, error_px: float) -> BlurredThing:
    length_px = ramps.length_px + CORNER_LOSS_PX
    doubt_px = 6.0 * SIGMA_DOUBT_PX2 / length_px  # a box has the variance length^2 / 12
    return BlurredThing(
        x_px=float(center_2[0]),
        y_px=float(center_2[1]),
        speed_px_per_frame=speed,
        length_px=length_px,
        error_px=math.hypot(error_px, doubt_px),
        misfit=float(np.median(np.concatenate(ramps.misfits))),
        used=ramps.used,
    )


def _scan(frames_THW3: Bytes, backdrop: Backdrop, path: _Path, lines: int) -> Scan:
    """Lay scan lines along the motion over a thing in every frame."""
    across_2 = np.array([-path.direction_2[1], path.direction_2[0]])
    relative = [blob.points_P2 - center_2 for blob, center_2 in zip(path.blobs, path.center_F2, strict=True)]
    along = [points_P2 @ path.direction_2 for points_P2 in relative]
    aside = [points_P2 @ across_2 for points_P2 in relative]
    low, high = (float(np.median([edge(offsets) for offsets in aside])) for edge in (np.min, np.max))
    middle, half = (low + high) / 2, (high - low) / 2 * LINE_SPAN
    patches = [
        cut(
            frames_THW3[blob.frame],
            (float(blob.points_P2[:, 0].min()), float(blob.points_P2[:, 0].max())),
            (float(blob.points_P2[:, 1].min()), float(blob.points_P2[:, 1].max())),
        )
        for blob in path.blobs
    ]
    return Scan(
        patches=tuple(patches),
        center_F2=path.center_F2,
        direction_2=path.direction_2,
        offset_J=np.linspace(middle - half, middle + half, lines),
        reach=(min(float(offsets.min()) for offsets in along), max(float(offsets.max()) for offsets in along)),
        backdrop=backdrop,
    )


def _fit(scan: Scan, longest_px: float, turn_spread: float = 1e-4) -> Ramps | None:
    """Fit the blur length from one first guess, and from others where that one does not explain the picture."""
    profiles = read_profiles(scan)
    best: Ramps | None = None
    for ramp_px in (None, *RAMP_GUESSES_PX):
        found = _fit_from(scan, profiles, ramp_px, longest_px, turn_spread)
        if found is not None and (best is None or _cost(found) < _cost(best)):
            best = found
        if best is not None and _cost(best) < GOOD_MISFIT:
            break
    return best


def _fit_both(scans: list[Scan], longest_px: float) -> list[Ramps] | None:
    """Fit the blur lengths of one thing in two clips from the first guess that explains both pictures best."""
    profiles = [read_profiles(scan) for scan in scans]
    best: list[Ramps] | None = None
    for ramp_px in (None, *RAMP_GUESSES_PX):
        tried = [_fit_from(scan, read, ramp_px, longest_px, 1e-4) for scan, read in zip(scans, profiles, strict=True)]
        found = [ramps for ramps in tried if ramps is not None]
        if len(found) == len(scans) and (best is None or sum(map(_cost, found)) < sum(map(_cost, best))):
            best = found
    return best


def _cost(ramps: Ramps) -> float:
    misfit = float(np.percentile(np.concatenate(ramps.misfits), 65.0))
    return misfit if ramps.used >= MIN_USED else 1.0 + misfit


def _fit_from(scan: Scan, profiles: Profiles, ramp_px: float | None, longest_px: float, turn_spread: float) -> Ramps | None:
    outline = find_outline(profiles, ramp_px)
    if outline is None:
        return None
    outline = replace(outline, length_px=float(np.clip(outline.length_px, 0.5, longest_px)))
    sigma_px = SIGMA_PRIOR_PX[0]
    ramps: Ramps | None = None
    for _ in range(2):
        groups, codes = sample_edges(scan, outline)
        kept = [(_readable(edges, code)) for edges, code in zip(groups, codes, strict=True)]
        groups, codes = tuple(one[0] for one in kept if len(one[1])), tuple(one[1] for one in kept if len(one[1]))
        if sum(len(code) for code in codes) < 4:
            return ramps
        ramps = fit_ramps(groups, outline.length_px, sigma_px, sigma_prior=SIGMA_PRIOR_PX, turn_spread=turn_spread)
        sigma_px = ramps.sigma_px
        outline = _updated(outline, ramps, codes, longest_px)
    return ramps


def _readable(edges: Edges, code: NDArray[np.intp]) -> tuple[Edges, NDArray[np.intp]]:
    """Leave out edges without contrast."""
    good_E = (edges.weight_EN > 0).any(axis=1)
    return Edges(**{name: getattr(edges, name)[good_E] for name in Edges.__dataclass_fields__}), code[good_E]


def _updated(outline: Outline, ramps: Ramps, codes: tuple[NDArray[np.intp], ...], longest_px: float) -> Outline:
    """Return the outline with the fitted ends and length."""
    start_FJ, stop_FJ = outline.start_FJ.copy(), outline.stop_FJ.copy()
    for edges, code in zip(ramps.edges, codes, strict=True):
        line_E, which_E = code // 3, code % 3
        start_FJ.flat[line_E[which_E != 1]] = edges.start_E[which_E != 1]
        stop_FJ.flat[line_E[which_E == 1]] = -edges.start_E[which_E == 1]
        stop_FJ.flat[line_E[which_E == 2]] = edges.stop_E[which_E == 2]
    length_px = float(np.clip(ramps.length_px, 0.5, longest_px))
    return replace(outline, start_FJ=start_FJ, stop_FJ=stop_FJ, length_px=length_px)


def _read_still(frames_1HW3: Bytes, backdrop: Backdrop, blobs: list[Blob]) -> Blurred:
    """Read the blur of what is softer one way than the other on a still, along the direction that its own edges tell.

    What is round and as soft all round (a light out of focus, a ball at rest) tells nothing of motion.
    """
    things: list[BlurredThing] = []
    slopes = [(blob, slope_powers(frames_1HW3[0], backdrop, blob)) for blob in blobs]
    leaning = [blob for blob, power_A in slopes if power_A.min() < ALL_ROUND * power_A.max()]
    if not leaning:
        return [], Unread.OTHER_SHAPE, "everything is as soft, or as sharp, one way as the other"
    lines = _lines(len(leaning))
    for blob in leaning:
        ramps = _fit_turning(frames_1HW3, backdrop, blob, lines)
        if ramps is not None:
            things.append(_thing(blob.center_2, None, ramps, ramps.error_px))
    return (things, None, "") if things else ([], Unread.NO_EDGES, "nothing has readable edges")


def _fit_turning(frames_1HW3: Bytes, backdrop: Backdrop, blob: Blob, lines: int) -> Ramps | None:
    """Fit from the softest direction, turning the scan lines to where the edges' leanings say the motion is."""
    direction_2 = softest_direction(frames_1HW3[0], backdrop, blob)
    longest_px = float(np.ptp(blob.points_P2, axis=0).max())
    best: Ramps | None = None
    for _ in range(TURNS):
        path = _Path(blobs=(blob,), center_F2=blob.center_2[None, :], direction_2=direction_2)
        ramps = _fit(_scan(frames_1HW3, backdrop, path, lines), longest_px, turn_spread=0.5)
        if ramps is None:
            break
        best = ramps
        if abs(ramps.angle_rad) < STRAIGHT_RAD:
            break
        cosine, sine = math.cos(ramps.angle_rad), math.sin(ramps.angle_rad)
        direction_2 = np.array([[cosine, -sine], [sine, cosine]]) @ direction_2
    return best


def softest_direction(frame_HW3: Bytes, backdrop: Backdrop, blob: Blob) -> Floats:
    """Return the unit direction along which luma changes most gently."""
    angle_rad = int(np.argmin(slope_powers(frame_HW3, backdrop, blob))) * (math.pi / ANGLES)
    return np.array([math.cos(angle_rad), math.sin(angle_rad)])


def slope_powers(frame_HW3: Bytes, backdrop: Backdrop, blob: Blob) -> Floats:
    """Return the sum of the fourth power of luma's slope along each of `ANGLES` directions over half a turn `[A]`.

    Along a blur of length L no slope exceeds contrast / L, whatever the shape; the high power keeps long straight sides
    from outvoting short ones.
    """
    low_2, high_2 = blob.points_P2.min(axis=0), blob.points_P2.max(axis=0)
    patch = cut(frame_HW3, (float(low_2[0]), float(high_2[0])), (float(low_2[1]), float(high_2[1])))
    rows, columns = (np.asarray(index + 0.5, dtype=np.float64) for index in np.indices(patch.luma.shape))
    change = patch.luma - backdrop.at(columns + patch.left, rows + patch.top) @ LUMA_3
    by_y, by_x = np.gradient(change)
    angle_A = np.arange(ANGLES) * (math.pi / ANGLES)
    cosine_A, sine_A = np.cos(angle_A), np.sin(angle_A)
    power_A = np.zeros(ANGLES)
    for power in range(5):
        share = math.comb(4, power) * float((by_x**power * by_y ** (4 - power)).sum())
        power_A += share * cosine_A**power * sine_A ** (4 - power)
    return power_A
