"""Variable projection: the functional, separable problems, solvers, and fits of any basis."""

from __future__ import annotations

from rankwise.varpro.problem import Basis, FunctionBasis, SeparableProblem
from rankwise.varpro.projection import FitResult, VariableProjection

__all__ = ["Basis", "FitResult", "FunctionBasis", "SeparableProblem", "VariableProjection"]
