"""White of a colour temperature, and the adaptation of a picture from one white to another: pure maths.

The locus is the Planckian one over its whole range. The usual pair, Planckian below 4000 K and CIE daylight above, jumps by
0.005 in v where they meet, and CIE daylight ends at 25000 K and 4000 K; Planck's law is defined at every temperature, which
is also how a *colour temperature* is defined. Every cast is adapted from 6500 K *on this locus*, so the small offset of
daylight from it never shows: at 6500 K the adaptation is the identity.

Legend: N kelvins or colours, K wavelengths; kelvin is absolute temperature, mired is 1e6 / kelvin.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from scenes.arrays import Floats

REFERENCE_KELVIN = 6500.0
MIN_KELVIN = 1000.0
MAX_KELVIN = 40000.0

# Chebyshev coefficients of x and of y over mired in [25, 1000], fitted to colour-science's Planckian radiators under the
# CIE 1931 2 degree observer; the fit is within 2e-7 of them (tests/scenes/test_temperature.py holds it). Stored because
# importing colour-science costs a second in every worker.
_PLANCKIAN_XY = (
    (
        *(4.8377389e-01, 2.0954251e-01, -4.1340588e-02, -4.1478516e-03, 7.3973321e-03, -2.9197779e-03, 3.0833587e-04),
        *(2.5990725e-04, -1.5744322e-04, 4.0509513e-05, -3.4695319e-06, -8.4873456e-08, -5.4982312e-07, 4.8997222e-08),
        *(4.4533333e-07, -4.4736552e-07, 2.2226086e-07, -5.9592829e-08, -1.1865018e-08),
    ),
    (
        *(3.5095705e-01, 3.6219466e-02, -6.0691830e-02, 1.8288690e-02, 2.6541827e-03, -4.4898972e-03, 1.8294699e-03),
        *(-2.4962929e-04, -1.2279331e-04, 8.9748675e-05, -3.1917666e-05, 1.0023272e-05, -4.4018266e-06, 1.9046524e-06),
        *(-2.0113957e-07, -5.0579017e-07, 5.0570382e-07, -2.6668707e-07, 9.1411675e-08),
    ),
)

# ITU-R BT.709-6, item 1.3 and 1.4: linear RGB to XYZ, D65.
_RGB_TO_XYZ = np.array(
    [
        [0.41239080, 0.35758434, 0.18048079],
        [0.21263901, 0.71516868, 0.07219232],
        [0.01933082, 0.11919478, 0.95053215],
    ]
)
# Lam (1985), "Metamerism and colour constancy", the Bradford cone responses, without its blue non-linearity.
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

LUMINANCE_3: Floats = _RGB_TO_XYZ[1] / _RGB_TO_XYZ[1].sum()


def mired(kelvin: float) -> float:
    """Return the reciprocal megakelvin of a temperature; equal steps look about equally large."""
    return 1e6 / kelvin


def planckian_xy(kelvin: ArrayLike) -> Floats:
    """Return CIE 1931 chromaticities `[..., 2]` of black bodies at kelvins in [1000, 40000].

    Source: Planck's law through colour-science 0.4.6 (`sd_blackbody`), tabulated.
    """
    scaled = np.clip((1e6 / np.asarray(kelvin, dtype=np.float64) - 512.5) / 487.5, -1.0, 1.0)
    coefficients = np.array(_PLANCKIAN_XY)
    basis = np.cos(np.arccos(scaled)[..., None] * np.arange(coefficients.shape[1]))
    return np.asarray(basis @ coefficients.T)


def white_xyz(kelvin: float) -> Floats:
    """Return the XYZ `[3]` of luminance 1 of a black body."""
    x, y = planckian_xy(kelvin)
    return np.array([x / y, 1.0, (1.0 - x - y) / y])


@lru_cache(maxsize=4096)
def _adaptation(kelvin: float) -> Floats:
    if kelvin == REFERENCE_KELVIN:
        return _frozen(np.eye(3))
    gains_3 = (_BRADFORD @ white_xyz(kelvin)) / (_BRADFORD @ white_xyz(REFERENCE_KELVIN))
    xyz_33 = np.linalg.solve(_BRADFORD, gains_3[:, None] * _BRADFORD)
    rgb_33 = np.linalg.solve(_RGB_TO_XYZ, xyz_33 @ _RGB_TO_XYZ)
    return _frozen(rgb_33 / (LUMINANCE_3 @ rgb_33.sum(axis=1)))


def _frozen(array: Floats) -> Floats:
    array.flags.writeable = False
    return array


def adaptation_33(kelvin: float) -> Floats:
    """Return the matrix on linear Rec.709 that turns a picture under 6500 K into one under `kelvin` (read-only).

    Linear Bradford adaptation; scaled so that a neutral keeps its luminance and brightness does not tell the temperature.
    Exactly the identity at 6500 K. Below about 1900 K neutrals leave the Rec.709 gamut (negative blue).
    """
    return _adaptation(float(kelvin))


def neutral_rgb(kelvin: float) -> Floats:
    """Return the linear Rec.709 `[3]` of a neutral of luminance 1 under a cast."""
    return np.asarray(adaptation_33(kelvin).sum(axis=1))


def peak_gain(kelvin: float) -> float:
    """Return the largest channel of a neutral of luminance 1 under a cast: what keeps white from clipping."""
    return float(neutral_rgb(kelvin).max())
