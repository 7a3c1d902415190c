"""KeOps (extra ``keops``): one compiled formula per kernel and dimension, on NumPy, torch, and CuPy through DLPack.

The scale is folded into the points or passed as a parameter, never written into the formula, so that another bandwidth
does not compile again.
"""

from __future__ import annotations

import os
from typing import Any

from ...errors import InputError, MissingDependencyError
from ...namespace import Array, device, is_cupy, is_numpy, is_torch
from ..precision import centred
from ..problem import PairProblem
from .array_tiles import ArrayTiles
from .numpy_tiles import NumpyTiles

_METRICS = {
    "sqeuclidean": "SqDist(x,y)",
    "euclidean": "Sqrt(SqDist(x,y))",
    "cityblock": "Sum(Abs(x-y))",
    "dot": "(x|y)",
}
#: (kernel, logarithm of the kernel) as formulas of ``t``; a compact kernel's logarithm is left to other engines.
_PROFILES: dict[str, tuple[str, str | None]] = {
    "exp": ("Exp(-{t})", "(-{t})"),
    "matern32": ("((IntCst(1)+{t})*Exp(-{t}))", "(Log(IntCst(1)+{t})-{t})"),
    "matern52": (
        "((IntCst(1)+{t}+Elem(p,1)*Square({t}))*Exp(-{t}))",
        "(Log(IntCst(1)+{t}+Elem(p,1)*Square({t}))-{t})",
    ),
    "cauchy": ("Inv(IntCst(1)+{t})", "(-Log(IntCst(1)+{t}))"),
    "tophat": ("Step(IntCst(1)-{t})", None),
    "triangle": ("ReLU(IntCst(1)-{t})", None),
    "biweight": ("Square(ReLU(IntCst(1)-{t}))", None),
    "triweight": ("(ReLU(IntCst(1)-{t})*Square(ReLU(IntCst(1)-{t})))", None),
}


class KeOps:
    """Reductions by ``Genred`` along axis 1."""

    name = "keops"

    def __init__(self, problem: PairProblem) -> None:
        # KeOps prints at import unless told otherwise before it.
        os.environ.setdefault("KEOPS_VERBOSE", "0")
        xp = problem.xp
        try:
            if is_numpy(xp):
                from pykeops.numpy import Genred
            else:
                from pykeops.torch import Genred
        except ImportError as err:
            raise MissingDependencyError.for_extra("pykeops", "keops", "engine='keops'") from err
        if not (is_numpy(xp) or is_torch(xp) or is_cupy(xp)):
            raise InputError("engine 'keops' works on NumPy, torch and CuPy arrays; use engine='array'")
        if callable(problem.kernel.metric) or problem.exclude_self:
            raise InputError("engine 'keops' takes neither a callable metric nor exclude_self; use 'numpy' or 'array'")
        self.genred, self.problem, self.xp = Genred, problem, xp
        x, y = centred(problem)
        self.x, self.y = (xp.astype(p, problem.x.dtype, copy=False) for p in (x, y))
        # The scale, and a third, for KeOps holds such constants in float32 whatever the dtype of the data.
        numbers = [problem.kernel.scale, 1.0 / 3.0]
        self.parameters = xp.asarray(numbers, dtype=problem.x.dtype, device=device(problem.x))
        self.t = f"(Elem(p,0)*{_METRICS[problem.kernel.metric]})"

    def _reduce(self, formula: str, reduction: str, columns: dict[str, Array], **options: Any) -> Array:
        d = self.problem.shape[2]
        aliases = [f"x = Vi({d})", f"y = Vj({d})", "p = Pm(2)"]
        aliases += [f"{name} = Vj({c.shape[1]})" for name, c in columns.items()]
        arrays = [self.x, self.y, self.parameters, *columns.values()]
        if is_cupy(self.xp):
            import cupy
            import torch

            # KeOps launches on the legacy stream: what CuPy has queued must be done first.
            cupy.cuda.get_current_stream().synchronize()
            arrays = [torch.from_dlpack(cupy.ascontiguousarray(a)) for a in arrays]
        elif is_numpy(self.xp):
            import numpy as np

            arrays = [np.ascontiguousarray(a) for a in arrays]
        else:
            arrays = [a.contiguous() for a in arrays]
        routine = self.genred(formula, aliases, reduction_op=reduction, axis=1, **options)
        out = routine(*arrays, backend="auto")
        if is_cupy(self.xp):
            import cupy

            out = cupy.from_dlpack(out)
        return out

    def _log_kernel(self) -> str:
        log = _PROFILES[self.problem.kernel.profile][1]
        if log is None:
            raise InputError("engine 'keops' has no logarithm of a compact kernel; use engine='numpy' or 'array'")
        return log.format(t=self.t)

    def sum(self, v: Array) -> Array:
        """See `Engine.sum`."""
        return self._reduce(f"{_PROFILES[self.problem.kernel.profile][0].format(t=self.t)}*v", "Sum", {"v": v})

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        """See `Engine.logsumexp`."""
        del guess  # KeOps keeps its own running maximum
        return self._reduce(f"b+{self._log_kernel()}", "LogSumExp", {"b": b[:, None]})[:, 0]

    def softmax_sum(self, b: Array, v: Array) -> tuple[Array, Array]:
        """See `Engine.softmax_sum`."""
        columns = {"b": b[:, None], "v": v}
        values = self._reduce(f"b+{self._log_kernel()}", "SumSoftMaxWeight", columns, formula2="v")
        logs = self.logsumexp(b)
        # A row without any mass is 0/0 there.
        return self.xp.where(self.xp.isfinite(logs)[:, None], values, 0.0), logs

    def nearest(self, k: int) -> tuple[Array, Array]:
        """See `Engine.nearest`; KeOps returns indices as floats, so the tiles answer this one."""
        return (NumpyTiles if is_numpy(self.xp) else ArrayTiles)(self.problem).nearest(k)
