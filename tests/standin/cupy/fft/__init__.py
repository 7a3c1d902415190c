"""``cupy.fft`` of CuPy 13: the same names as NumPy's."""

import numpy as np

from .._array import on_device

__all__ = [name for name in np.fft.__all__ if callable(getattr(np.fft, name))]

globals().update({name: on_device(getattr(np.fft, name)) for name in __all__})
