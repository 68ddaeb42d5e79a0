"""Motion-blurred edges in closed form, and the one blur length that many of them share.

Along the motion, an edge that is sharp in scene-linear light becomes a straight ramp as long as the blur. The object's side of
an edge is a polynomial (its shading), starting at the edge; blurred by a box (the shutter) and a Gaussian (lens, pixels,
codec), each of its terms has a closed form. Per edge its place and shading are free; blur length and Gaussian width are
common to all. Solved by Gauss-Newton with the per-edge unknowns eliminated (variable projection; Golub & Pereyra, 1973).

Array legend: E edges, N samples of an edge, K shading terms, M local unknowns of an edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

TERMS = 3  # constant, slope and curvature of the shading
SIGMA_RANGE_PX = (0.15, 2.5)
LENGTH_MIN_PX = 0.05


@dataclass(frozen=True, eq=False, kw_only=True)
class Edges:
    """Samples across edges: where (pixels along the motion), what (0 backdrop, about 1 object), how sure.

    `start_E` is the object's first end, `stop_E` its other end (infinite where the samples end before it);
    `slant_E` is how much the scan line stretches the Gaussian (1 / cosine of its angle to the edge's normal) and
    `share_E` the part of the motion that crosses the edge along the scan line (1 along the motion).
    """

    x_EN: Floats
    y_EN: Floats
    weight_EN: Floats
    start_E: Floats
    stop_E: Floats
    slant_E: Floats
    share_E: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Ramps:
    """A fit: blur length and its standard error (pixels), Gaussian width (pixels), the edges as moved, misfit per edge."""

    length_px: float
    error_px: float
    sigma_px: float
    edges: tuple[Edges, ...]
    misfits: tuple[Floats, ...]
    used: float  # the share of edges that agree with the common length


@dataclass(frozen=True, eq=False, kw_only=True)
class _Step:
    """One group's normal equations for (length, sigma), and what is needed to move its edges."""

    normal_E22: Floats
    right_E2: Floats
    misfit_E: Floats
    to_local_EM2: Floats
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


def _columns(edges: Edges, length_px: float, sigma_px: float) -> tuple[list[Floats], list[Floats], list[Floats], list[Floats]]:
    """Return the shading terms, their slopes by length and by sigma, and the blurred impulses at the ends."""
    length_E1 = np.maximum(length_px * edges.share_E, LENGTH_MIN_PX)[:, None]
    sigma_E1 = (sigma_px * edges.slant_E)[:, None]
    terms, by_length, by_sigma, impulse = _blurred(edges.x_EN - edges.start_E[:, None], length_E1, sigma_E1)
    impulses = [impulse]
    if np.isfinite(edges.stop_E).all():
        width_E1 = (edges.stop_E - edges.start_E)[:, None]
        far = _blurred(edges.x_EN - edges.stop_E[:, None], length_E1, sigma_E1)
        for found, beyond in zip((terms, by_length, by_sigma), far[:3], strict=True):
            for k in reversed(range(TERMS)):  # the polynomial about `start`, re-expanded about `stop`, ends there
                found[k] = found[k] - sum(width_E1 ** (k - j) / math.factorial(k - j) * beyond[j] for j in range(k + 1))
        impulses.append(far[3])
    by_length = [slope * edges.share_E[:, None] for slope in by_length]
    by_sigma = [slope * edges.slant_E[:, None] for slope in by_sigma]
    return terms, by_length, by_sigma, impulses


def _solve(matrix_EMM: Floats, right_EMQ: Floats) -> Floats:
    scale_EM = 1.0 / np.sqrt(np.maximum(np.einsum("emm->em", matrix_EMM), 1e-12))
    scaled = matrix_EMM * scale_EM[:, :, None] * scale_EM[:, None, :] + 1e-7 * np.eye(matrix_EMM.shape[1])
    return np.asarray(np.linalg.solve(scaled, right_EMQ * scale_EM[:, :, None]) * scale_EM[:, :, None])


def _step(edges: Edges, length_px: float, sigma_px: float) -> _Step:
    """Linearise about the present values and eliminate every edge's own unknowns."""
    terms, by_length, by_sigma, impulses = _columns(edges, length_px, sigma_px)
    root_EN = np.sqrt(edges.weight_EN)
    y_EN = edges.y_EN * root_EN
    terms_ENK = np.stack(terms, axis=-1) * root_EN[..., None]
    across = terms_ENK.transpose(0, 2, 1)
    shading_EK = _solve(across @ terms_ENK, across @ y_EN[..., None])[..., 0]
    residual_EN = y_EN - (terms_ENK @ shading_EK[..., None])[..., 0]
    slopes = [sum(shading_EK[:, k, None] * slope[k] for k in range(TERMS)) for slope in (by_length, by_sigma)]
    common_EN2 = np.stack(slopes, axis=-1) * root_EN[..., None]
    ends = [-shading_EK[:, :1] * impulses[0]]
    if len(impulses) > 1:
        width_E = edges.stop_E - edges.start_E
        height_E = sum(shading_EK[:, k] * width_E**k / math.factorial(k) for k in range(TERMS))
        ends.append(np.asarray(height_E)[:, None] * impulses[1])
    local_ENM = np.concatenate([terms_ENK, np.stack(ends, axis=-1) * root_EN[..., None]], axis=-1)
    across = local_ENM.transpose(0, 2, 1)
    rights = np.concatenate([across @ common_EN2, across @ residual_EN[..., None]], axis=-1)
    solved = _solve(across @ local_ENM, rights)
    rest_EN2 = common_EN2 - local_ENM @ solved[..., :2]
    rest_EN = residual_EN - (local_ENM @ solved[..., 2:])[..., 0]
    count_E = np.maximum((edges.weight_EN > 0).sum(axis=1) - local_ENM.shape[2], 1)
    return _Step(
        normal_E22=rest_EN2.transpose(0, 2, 1) @ rest_EN2,
        right_E2=(rest_EN2.transpose(0, 2, 1) @ rest_EN[..., None])[..., 0],
        misfit_E=np.sqrt((residual_EN**2).sum(axis=1) / count_E),
        to_local_EM2=solved[:, TERMS:, :2],
        local_EM=solved[:, TERMS:, 2],
    )


def _moved(edges: Edges, step: _Step, change_2: Floats, reach_px: float) -> Edges:
    move_EM = np.clip(step.local_EM - step.to_local_EM2 @ change_2, -reach_px, reach_px)
    start_E = edges.start_E + move_EM[:, 0]
    if move_EM.shape[1] == 1:
        return replace(edges, start_E=start_E)
    return replace(edges, start_E=start_E, stop_E=np.maximum(edges.stop_E + move_EM[:, 1], start_E + 0.5))


def fit_ramps(
    groups: tuple[Edges, ...], length_px: float, sigma_px: float, *, prior: tuple[float, float], rounds: int = 8
) -> Ramps:
    """Fit the common blur length (pixels) from a first guess; `prior` is mean and spread of the Gaussian width (pixels).

    Edges whose misfit is far above the usual are weighted down. The standard error counts neighbouring samples as one.
    """
    for _ in range(rounds):
        steps = [_step(edges, length_px, sigma_px) for edges in groups]
        misfit = np.concatenate([step.misfit_E for step in steps])
        usual = float(np.median(misfit)) + 1e-5
        trust = 1.0 / (1.0 + (misfit / (2.0 * usual)) ** 4)
        normal_22 = np.einsum("e,eij->ij", trust, np.concatenate([step.normal_E22 for step in steps]))
        right_2 = trust @ np.concatenate([step.right_E2 for step in steps])
        noise = 4.0 * usual**2  # neighbouring samples share their noise
        normal_22 = normal_22 / noise + np.diag([1e-9, prior[1] ** -2])
        right_2 = right_2 / noise + np.array([0.0, (prior[0] - sigma_px) / prior[1] ** 2])
        change_2 = np.linalg.solve(normal_22, right_2)
        reach = max(0.3, 0.35 * length_px)
        change_2[0] = np.clip(change_2[0], -0.5 * length_px, max(0.5, 0.7 * length_px))
        change_2[1] = np.clip(change_2[1], -0.2, 0.2)
        groups = tuple(_moved(edges, step, change_2, reach) for edges, step in zip(groups, steps, strict=True))
        length_px = max(LENGTH_MIN_PX, length_px + float(change_2[0]))
        sigma_px = float(np.clip(sigma_px + change_2[1], *SIGMA_RANGE_PX))
        if abs(change_2[0]) < 1e-3 * length_px and abs(change_2[1]) < 2e-3:
            break
    return Ramps(
        length_px=length_px,
        error_px=float(math.sqrt(max(np.linalg.inv(normal_22)[0, 0], 0.0))),
        sigma_px=sigma_px,
        edges=groups,
        misfits=tuple(step.misfit_E for step in steps),
        used=float((trust > 0.5).mean()),
    )
