"""Distances between sets of features (DESIGN section 5): SSF, SS-FD, DVS.

Source: the fast evaluation of arXiv 2511.17844. SSF is the mean cosine of paired features, SS-FD the Fréchet distance between
two sets, DVS the ratio of the traces of their covariances.

Shapes: N videos, D features; row n of both sets comes from the same prompt, noise and time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from scenes.arrays import Floats
from scenes.errors import InputError

MIN_SAMPLES = 8  # below, a covariance is guesswork however it is shrunk


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """The mean [D] and the shrunk covariance [D, D] of a set of features; `shrinkage` is the weight of the sphere in it."""

    mean_D: Floats
    covariance_DD: Floats
    shrinkage: float


def paired_similarity(ours_ND: Floats, theirs_ND: Floats) -> float:
    """Return SSF, the mean cosine between rows; raises InputError for sets of other shapes and for rows of zeros."""
    _check(ours_ND, theirs_ND, 1)
    if ours_ND.shape != theirs_ND.shape:
        raise InputError(f"{len(ours_ND)} and {len(theirs_ND)} videos are no pairs; give the same prompts and seeds to both")
    lengths_N = np.linalg.norm(ours_ND, axis=1) * np.linalg.norm(theirs_ND, axis=1)
    if not lengths_N.all():
        raise InputError("a video has features of length zero; its cosine is undefined")
    return float(np.mean((ours_ND * theirs_ND).sum(axis=1) / lengths_N))


def frechet_distance(ours_ND: Floats, theirs_ND: Floats) -> float:
    """Return SS-FD, the squared Fréchet distance between the Gaussians fitted to two sets.

    Both covariances are shrunk towards a sphere (`fit_gaussian`), so that it is defined for fewer videos than features.
    Raises InputError for fewer than `MIN_SAMPLES` videos in a set.
    """
    _check(ours_ND, theirs_ND, MIN_SAMPLES)
    return gaussian_distance(fit_gaussian(ours_ND), fit_gaussian(theirs_ND))


def gaussian_distance(ours: Gaussian, theirs: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) of two Gaussians (Dowson and Landau, 1982)."""
    root_DD = _root(ours.covariance_DD)
    cross_D = eigh(root_DD @ theirs.covariance_DD @ root_DD, eigvals_only=True)
    overlap = np.sqrt(np.clip(cross_D, 0.0, None)).sum()
    apart = np.square(ours.mean_D - theirs.mean_D).sum()
    spread = np.trace(ours.covariance_DD) + np.trace(theirs.covariance_DD) - 2.0 * overlap
    return float(max(apart + spread, 0.0))


def variance_ratio(ours_ND: Floats, theirs_ND: Floats) -> float:
    """Return DVS, the trace of our covariance over theirs; raises InputError for sets of fewer than 2 and without spread."""
    _check(ours_ND, theirs_ND, 2)
    theirs = float(np.var(theirs_ND, axis=0, ddof=1).sum())
    if theirs == 0.0:
        raise InputError("the reference videos are all alike; a ratio of variances is undefined; give several prompts")
    return float(np.var(ours_ND, axis=0, ddof=1).sum()) / theirs


def fit_gaussian(features_ND: Floats) -> Gaussian:
    """Return the Gaussian of a set, its covariance shrunk by the oracle-approximating weight (Chen et al., 2010, eq. 23)."""
    count, width = features_ND.shape
    centred_ND = features_ND - features_ND.mean(axis=0)
    sample_DD = centred_ND.T @ centred_ND / (count - 1)
    trace, square = float(np.trace(sample_DD)), float(np.square(sample_DD).sum())
    above = (1.0 - 2.0 / width) * square + trace**2
    below = (count + 1.0 - 2.0 / width) * (square - trace**2 / width)
    shrinkage = 1.0 if below <= 0.0 else min(1.0, above / below)
    sphere_DD = np.eye(width) * trace / width
    return Gaussian(
        mean_D=features_ND.mean(axis=0),
        covariance_DD=(1.0 - shrinkage) * sample_DD + shrinkage * sphere_DD,
        shrinkage=shrinkage,
    )


def _root(symmetric_DD: Floats) -> Floats:
    values_D, vectors_DD = eigh(symmetric_DD)
    return (vectors_DD * np.sqrt(np.clip(values_D, 0.0, None))) @ vectors_DD.T


def _check(ours_ND: Floats, theirs_ND: Floats, least: int) -> None:
    for features_ND in (ours_ND, theirs_ND):
        if features_ND.ndim != 2 or not np.isfinite(features_ND).all():
            raise InputError(f"features of shape {list(features_ND.shape)} are not finite rows, one per video")
        if len(features_ND) < least:
            raise InputError(f"{len(features_ND)} videos are too few for this distance; give at least {least}")
    if ours_ND.shape[1] != theirs_ND.shape[1]:
        raise InputError(f"features of {ours_ND.shape[1]} and {theirs_ND.shape[1]} numbers come from different extractors")
