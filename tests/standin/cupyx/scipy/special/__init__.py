"""``cupyx.scipy.special`` of CuPy 13."""

import scipy.special
from cupy._array import on_device

erf = on_device(scipy.special.erf)
gammaln = on_device(scipy.special.gammaln)
