"""Names for the arrays that all three packages pass around; shapes are told by the suffixes of the variables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]  # pictures as they are shown and stored, sRGB
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]  # pictures in linear light
