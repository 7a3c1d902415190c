"""Krylov spaces shared by several vectors."""

from .block_cg import block_cg
from .enlarged_cg import enlarged_cg
from .regularization_path import PathResult, regularization_path

__all__ = ["PathResult", "block_cg", "enlarged_cg", "regularization_path"]
