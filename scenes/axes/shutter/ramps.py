"""Motion-blurred edges in closed form, and the one blur length that many of them share.

Along the motion, an edge that is sharp in scene-linear light becomes a straight ramp as long as the blur. The object's side of
an edge is a polynomial (its shading), starting at the edge; blurred by a box (the shutter) and a Gaussian (lens, pixels,
codec), each of its terms has a closed form. Per edge its place and shading are free; blur length and Gaussian width are
common to all. Scanned at an angle `t` to the motion, the ramp of an edge that leans by `m` is `cos t - m sin t` times the
blur, so the leanings tell the angle, which is the third common unknown. Solved by Gauss-Newton with the per-edge unknowns
eliminated (variable projection; Golub & Pereyra, 1973).

Array legend: E edges, N samples of an edge, K shading terms, M local unknowns of an edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from scenes.arrays import Floats

TERMS = 3  # constant, slope and curvature of the shading
SIGMA_RANGE_PX = (0.15, 2.5)
LENGTH_MIN_PX = 0.05
HEIGHTS = (0.55, 1.8)  # plausible coverage right at an edge; a short ramp laid inside a long one has less


@dataclass(frozen=True, eq=False, kw_only=True)
class Edges:
    """Samples across edges: where (pixels along the motion), what (0 backdrop, about 1 object), how sure.

    `start_E` is the object's first end, `stop_E` its other end (infinite where the samples end before it);
    `lean_E` is how far the edge shifts along the scan line per pixel across it: it stretches the Gaussian and, where the scan
    line is not quite along the motion, the ramp.
    """

    x_EN: Floats
    y_EN: Floats
    weight_EN: Floats
    start_E: Floats
    stop_E: Floats
    lean_E: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Ramps:
    """A fit: blur length and its standard error (pixels), Gaussian width (pixels), angle from the scan lines to the motion.

    `edges` are the groups with their ends moved, `misfits` their root mean square misfit in luma.
    """

    length_px: float
    error_px: float
    sigma_px: float
    angle_rad: float
    edges: tuple[Edges, ...]
    misfits: tuple[Floats, ...]
    used: float  # the share of edges that agree with the common length and rise to about the object's colour


@dataclass(frozen=True, eq=False, kw_only=True)
class _Step:
    """One group's normal equations for (length, sigma, turn), and what is needed to move its edges."""

    normal_E33: Floats
    right_E3: Floats
    misfit_E: Floats
    height_E: Floats
    to_local_EM3: Floats
    local_EM: Floats


def _integrals(x_EN: Floats, sigma_EN: Floats) -> list[Floats]:
    """Return the Gaussian and its repeated integrals up to the one of x^(TERMS) / TERMS!, at x (pixels)."""
    z_EN = x_EN / sigma_EN
    found = [np.exp(-0.5 * z_EN * z_EN) / (sigma_EN * math.sqrt(2 * math.pi)), np.asarray(ndtr(z_EN))]
    variance_EN = sigma_EN * sigma_EN
    for order in range(1, TERMS + 1):
        found.append((x_EN * found[order] + variance_EN * found[order - 1]) / order)
    return found


def _blurred(x_EN: Floats, length_E1: Floats, sigma_E1: Floats) -> tuple[list[Floats], list[Floats], list[Floats], Floats]:
    """Return the blurred terms t^k / k! of an edge at 0, their slopes by length and by sigma, and the blurred impulse."""
    ahead, behind = (_integrals(x_EN + sign * length_E1 / 2, sigma_E1) for sign in (1.0, -1.0))
    terms = [(ahead[k + 2] - behind[k + 2]) / length_E1 for k in range(TERMS)]
    by_length = [(ahead[k + 1] + behind[k + 1]) / (2 * length_E1) - terms[k] / length_E1 for k in range(TERMS)]
    by_sigma = [sigma_E1 * (ahead[k] - behind[k]) / length_E1 for k in range(TERMS)]
    return terms, by_length, by_sigma, (ahead[1] - behind[1]) / length_E1


def _columns(edges: Edges, guess_3: Floats) -> tuple[list[Floats], tuple[list[Floats], ...], list[Floats]]:
    """Return the shading terms, their slopes by (length, sigma, turn), and the blurred impulses at the ends."""
    length_px, sigma_px, turn = guess_3
    share_E1 = np.clip(1.0 + turn * edges.lean_E, 0.1, 4.0)[:, None]
    slant_E1 = np.sqrt(1.0 + edges.lean_E**2)[:, None]
    length_E1 = np.maximum(length_px * share_E1, LENGTH_MIN_PX)
    terms, by_length, by_sigma, impulse = _blurred(edges.x_EN - edges.start_E[:, None], length_E1, sigma_px * slant_E1)
    impulses = [impulse]
    if np.isfinite(edges.stop_E).all():
        width_E1 = (edges.stop_E - edges.start_E)[:, None]
        far = _blurred(edges.x_EN - edges.stop_E[:, None], length_E1, sigma_px * slant_E1)
        for found, beyond in zip((terms, by_length, by_sigma), far[:3], strict=True):
            for k in reversed(range(TERMS)):  # the polynomial about `start`, re-expanded about `stop`, ends there
                found[k] = found[k] - sum(width_E1 ** (k - j) / math.factorial(k - j) * beyond[j] for j in range(k + 1))
        impulses.append(far[3])
    by_turn = [slope * (length_px * edges.lean_E)[:, None] for slope in by_length]
    by_length = [slope * share_E1 for slope in by_length]
    by_sigma = [slope * slant_E1 for slope in by_sigma]
    return terms, (by_length, by_sigma, by_turn), impulses


def _solve(matrix_EMM: Floats, right_EMQ: Floats) -> Floats:
    scale_EM = 1.0 / np.sqrt(np.maximum(np.einsum("emm->em", matrix_EMM), 1e-12))
    scaled = matrix_EMM * scale_EM[:, :, None] * scale_EM[:, None, :] + 1e-7 * np.eye(matrix_EMM.shape[1])
    return np.asarray(np.linalg.solve(scaled, right_EMQ * scale_EM[:, :, None]) * scale_EM[:, :, None])


def _step(edges: Edges, guess_3: Floats) -> _Step:
    """Linearise about the present values and eliminate every edge's own unknowns."""
    terms, by_common, impulses = _columns(edges, guess_3)
    root_EN = np.sqrt(edges.weight_EN)
    y_EN = edges.y_EN * root_EN
    terms_ENK = np.stack(terms, axis=-1) * root_EN[..., None]
    across = terms_ENK.transpose(0, 2, 1)
    shading_EK = _solve(across @ terms_ENK, across @ y_EN[..., None])[..., 0]
    residual_EN = y_EN - (terms_ENK @ shading_EK[..., None])[..., 0]
    slopes = [sum(shading_EK[:, k, None] * slope[k] for k in range(TERMS)) for slope in by_common]
    common_EN3 = np.stack(slopes, axis=-1) * root_EN[..., None]
    ends = [-shading_EK[:, :1] * impulses[0]]
    if len(impulses) > 1:
        width_E = edges.stop_E - edges.start_E
        height_E = sum(shading_EK[:, k] * width_E**k / math.factorial(k) for k in range(TERMS))
        ends.append(np.asarray(height_E)[:, None] * impulses[1])
    local_ENM = np.concatenate([terms_ENK, np.stack(ends, axis=-1) * root_EN[..., None]], axis=-1)
    across = local_ENM.transpose(0, 2, 1)
    rights = np.concatenate([across @ common_EN3, across @ residual_EN[..., None]], axis=-1)
    solved = _solve(across @ local_ENM, rights)
    rest_EN3 = common_EN3 - local_ENM @ solved[..., :3]
    rest_EN = residual_EN - (local_ENM @ solved[..., 3:])[..., 0]
    count_E = np.maximum((edges.weight_EN > 0).sum(axis=1) - local_ENM.shape[2], 1)
    return _Step(
        normal_E33=rest_EN3.transpose(0, 2, 1) @ rest_EN3,
        right_E3=(rest_EN3.transpose(0, 2, 1) @ rest_EN[..., None])[..., 0],
        misfit_E=np.sqrt((residual_EN**2).sum(axis=1) / count_E),
        height_E=shading_EK[:, 0],
        to_local_EM3=solved[:, TERMS:, :3],
        local_EM=solved[:, TERMS:, 3],
    )


def _moved(edges: Edges, step: _Step, change_3: Floats, reach_px: float) -> Edges:
    move_EM = np.clip(step.local_EM - step.to_local_EM3 @ change_3, -reach_px, reach_px)
    start_E = edges.start_E + move_EM[:, 0]
    if move_EM.shape[1] == 1:
        return replace(edges, start_E=start_E)
    return replace(edges, start_E=start_E, stop_E=np.maximum(edges.stop_E + move_EM[:, 1], start_E + 0.5))


def fit_ramps(
    groups: tuple[Edges, ...],
    length_px: float,
    sigma_px: float,
    *,
    sigma_prior: tuple[float, float],
    turn_spread: float = 1e-4,
    rounds: int = 8,
) -> Ramps:
    """Fit the common blur length (pixels) from a first guess.

    `sigma_prior` is mean and spread of the Gaussian width (pixels); `turn_spread` is that of the tangent of the angle between
    scan lines and motion, about 0. Edges whose misfit is far above the usual are weighted down. The standard error counts
    neighbouring samples as one.
    """
    guess_3 = np.array([length_px, sigma_px, 0.0])
    mean_3 = np.array([0.0, sigma_prior[0], 0.0])
    stiffness_3 = np.array([1e-9, sigma_prior[1] ** -2, turn_spread**-2])
    for _ in range(rounds):
        steps = [_step(edges, guess_3) for edges in groups]
        misfit = np.concatenate([step.misfit_E for step in steps])
        usual = float(np.median(misfit)) + 1e-5
        trust = 1.0 / (1.0 + (misfit / (2.0 * usual)) ** 4)
        noise = 4.0 * usual**2  # neighbouring samples share their noise
        normal_33 = np.einsum("e,eij->ij", trust, np.concatenate([step.normal_E33 for step in steps])) / noise
        right_3 = trust @ np.concatenate([step.right_E3 for step in steps]) / noise
        normal_33 = normal_33 + np.diag(stiffness_3)
        change_3 = np.linalg.solve(normal_33, right_3 + stiffness_3 * (mean_3 - guess_3))
        length_px = float(guess_3[0])
        change_3 = np.clip(change_3, [-0.5 * length_px, -0.2, -0.3], [max(0.5, 0.7 * length_px), 0.2, 0.3])
        reach = max(0.3, 0.35 * length_px)
        groups = tuple(_moved(edges, step, change_3, reach) for edges, step in zip(groups, steps, strict=True))
        guess_3 = np.clip(guess_3 + change_3, [LENGTH_MIN_PX, SIGMA_RANGE_PX[0], -2.0], [math.inf, SIGMA_RANGE_PX[1], 2.0])
        if abs(change_3[0]) < 1e-3 * length_px and abs(change_3[1]) < 2e-3 and abs(change_3[2]) < 2e-3:
            break
    height = np.concatenate([step.height_E for step in steps])
    return Ramps(
        length_px=float(guess_3[0]),
        error_px=float(math.sqrt(max(np.linalg.inv(normal_33)[0, 0], 0.0))),
        sigma_px=float(guess_3[1]),
        angle_rad=-math.atan(float(guess_3[2])),
        edges=groups,
        misfits=tuple(step.misfit_E for step in steps),
        used=float(((trust > 0.5) & (height > HEIGHTS[0]) & (height < HEIGHTS[1])).mean()),
    )
