"""Variable projection: the functional, separable problems, solvers, and fits of any basis."""

from __future__ import annotations

from rankwise.varpro.model_basis import ModelBasis
from rankwise.varpro.models import FunctionModel, SeparableModel
from rankwise.varpro.problem import Basis, FunctionBasis, SeparableProblem
from rankwise.varpro.projection import CurveFit, FitResult, VariableProjection

__all__ = [
    "Basis",
    "CurveFit",
    "FitResult",
    "FunctionBasis",
    "FunctionModel",
    "ModelBasis",
    "SeparableModel",
    "SeparableProblem",
    "VariableProjection",
]
