"""The value of transport as a torch scalar whose gradient is the envelope's: nothing is unrolled.

The solver runs on detached tensors, so memory does not grow with its iterations; the backward pass is `gradients`.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ...backends.errors import BackendError
from ...backends.namespace import Array, device, is_torch
from ...backends.transfer import host_float
from .geometry import Dense, Geometry, PointCloud
from .gradients import gradients
from .result import TransportResult

R = TypeVar("R", bound=TransportResult)


def ot_value(
    cost: Array | Geometry,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: Any,
    solver: Callable[..., TransportResult] | None = None,
    **options: Any,
) -> Array:
    """``min <C, P> + reg KL(P | a b^T)`` as a 0-d torch tensor that can be differentiated once.

    Parameters
    ----------
    cost : tensor (n, m), Dense or PointCloud
        Its tensors may require grad: the matrix, or the points (`gradients` says which costs have a derivative by them).
    a, b : tensor (n,), (m,), optional
        Weights, which may require grad; default uniform. Their gradients hold for changes that keep the total mass, e.g.
        through ``torch.softmax``.
    reg : float or 0-d tensor
        Regularisation, which may require grad.
    solver : callable, optional
        Any solver of the balanced problem that is called as `sinkhorn`; by default `solve`.
    **options
        Of the solver, e.g. ``tol``.

    Returns
    -------
    tensor
        The value, 0-d, in the dtype and on the device of the cost.

    Raises
    ------
    BackendError, InputError
        As of the solver, and of inputs that are no torch tensors. A second derivative is a `BackendError` in the backward
        pass.

    Notes
    -----
    The error of the gradient is of the order of the solver's residual: choose ``tol`` for the gradient, not for the value,
    whose error is smaller.

    Examples
    --------
    >>> import torch
    >>> from xpsolve.solvers.ot import PointCloud
    >>> from xpsolve.solvers.ot.autograd import ot_value
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True)
    >>> ot_value(PointCloud(x, x.detach() + 3.0), reg=0.25).backward()
    >>> x.grad.round(decimals=2).tolist()
    [[-3.02], [-2.98]]
    """
    geometry = cost if isinstance(cost, Geometry) else Dense(cost)
    if not is_torch(geometry.xp):
        raise BackendError(
            "cost is no torch tensor; automatic differentiation is torch's, see gradients for other libraries"
        )
    from .solve import solve  # which stands on this module

    result = (solver or solve)(*detached(geometry, a, b), reg=number(reg), **options)
    value = with_gradient(result, geometry, a, b, reg).value
    # Without anything that requires grad it is still a tensor.
    if hasattr(value, "backward"):
        return value
    return geometry.xp.asarray(value, dtype=geometry.like.dtype, device=device(geometry.like))


def detached(cost: Array | Geometry, a: Array | None, b: Array | None) -> tuple[Any, Array | None, Array | None]:
    """The same problem on tensors without gradients; what is not a tensor, or needs none, is returned as it is."""
    geometry = cost if isinstance(cost, Geometry) else Dense(cost)
    if any(_requires_grad(t) for t in _tensors(geometry).values()):
        other = copy.copy(geometry)
        for name, tensor in _tensors(geometry).items():
            setattr(other, "C" if name == "cost" else name, tensor.detach())
        other.like = other.x if isinstance(other, PointCloud) else tensor
        geometry = other
    return geometry, bare(a), bare(b)


def with_gradient(
    result: R, cost: Array | Geometry, a: Array | None, b: Array | None, reg: Any = None, **relaxations: Any
) -> R:
    """The result with a ``value`` that torch can differentiate by those of the arguments that require grad.

    Parameters
    ----------
    result : TransportResult
        Of the `detached` arguments.
    cost, a, b, reg, **relaxations
        The arguments as the user gave them; the last are ``reg_a`` and ``reg_b`` of unbalanced transport.

    Returns
    -------
    TransportResult
        The same object where nothing requires grad, whatever the library; else a copy whose ``value`` is a 0-d tensor.
    """
    geometry = cost if isinstance(cost, Geometry) else None
    tensors = _tensors(geometry) if geometry is not None else {"cost": cost}
    given = tensors | {"a": a, "b": b, "reg": reg} | relaxations
    value = attached(result.value, result.f, lambda names: gradients(result, names), given)
    return result if value is result.value else replace(result, value=value)


def attached(
    value: Any, like: Array, found: Callable[[tuple[str, ...]], dict[str, Array]], given: dict[str, Any]
) -> Any:
    """``value`` as a 0-d tensor as ``like`` where something that is ``given`` requires grad; else as it is.

    ``found`` returns the gradients by some of the names of ``given``, in its backward pass.
    """
    wanted = {name: tensor for name, tensor in given.items() if _requires_grad(tensor)}
    return _attach(value, like, found, wanted) if wanted else value


def _tensors(geometry: Geometry) -> dict[str, Array]:
    """What a geometry is made of, by the names of `gradients`."""
    if isinstance(geometry, Dense):
        return {"cost": geometry.C}
    return {"x": geometry.x, "y": geometry.y} if isinstance(geometry, PointCloud) else {}


def _requires_grad(x: Any) -> bool:
    """Whether torch, if it is loaded at all, is to differentiate by ``x``."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor) and x.requires_grad and torch.is_grad_enabled()


def bare(x: Any) -> Any:
    """``x`` without a gradient."""
    return x.detach() if _requires_grad(x) else x


def number(reg: Any) -> Any:
    """A tensor as a float; anything else is the solver's to check."""
    return host_float(reg) if hasattr(reg, "detach") else reg


def _attach(
    value: Any, like: Array, found: Callable[[tuple[str, ...]], dict[str, Array]], wanted: dict[str, Any]
) -> Any:
    """A node of torch's graph with the value and its gradients by the tensors of ``wanted``."""
    import torch

    names = tuple(wanted)

    class Value(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.places = [(t.shape, t.dtype, t.device) for t in tensors]
            return torch.as_tensor(host_float(value), dtype=like.dtype, device=like.device)

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            # The gradients are numbers of the result; a second derivative would have to differentiate the plan.
            with torch.no_grad():
                needed = [name for name, need in zip(names, ctx.needs_input_grad, strict=True) if need]
                inner_of = found(tuple(needed))
            grads: list[Any] = []
            for name, (shape, dtype, place) in zip(names, ctx.places, strict=True):
                if name not in inner_of:
                    grads.append(None)
                    continue
                inner = inner_of[name].to(dtype=dtype, device=place).reshape(shape)
                grads.append(Once.apply(outer[0].to(dtype=dtype, device=place), inner, *wanted.values()))
            return tuple(grads)

    class Once(torch.autograd.Function):  # type: ignore[misc]
        """The product of the chain rule; the tensors make it a function of them, so that a second derivative is noticed."""

        @staticmethod
        def forward(ctx: Any, outer: Any, inner: Any, *tensors: Any) -> Any:
            return outer * inner

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            raise BackendError(
                "the value of transport was differentiated twice; second derivatives are not supported, see "
                "plan_vjp and potentials_vjp for those of the plan and of the potentials"
            )

    return Value.apply(*wanted.values())
