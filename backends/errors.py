"""Errors and warnings raised by every family: what was found, what was expected, the name of the argument."""

from __future__ import annotations

from typing import Any


class XpsolveError(Exception):
    """Base of every error that xpsolve raises on purpose."""


class InputError(XpsolveError, ValueError):
    """An argument has the wrong shape or value (NaN, negative weight, non-positive regularisation ...)."""


class BackendError(XpsolveError, TypeError):
    """An argument is not an array we can compute with, or arrays of several libraries or devices were mixed."""


class MissingDependencyError(XpsolveError, ImportError):
    """An optional package is needed and not installed; the message names the extra that brings it."""

    @classmethod
    def for_extra(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """Error for an absent ``package``, provided by ``pip install "xpsolve[extra]"``."""
        return cls(f'{purpose} needs the package {package!r}; install it with: pip install "xpsolve[{extra}]"')


class ConvergenceError(XpsolveError, ArithmeticError):
    """Raised by ``Result.raise_for_status`` when a run did not converge; the run is in ``.result``."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class BreakdownError(ConvergenceError):
    """A factorisation or recurrence met a number it cannot continue from."""


class ConvergenceWarning(UserWarning):
    """A solver returned without reaching its tolerance."""
