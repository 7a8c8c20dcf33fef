"""Variable projection: units, functional, solvers, output layer, sub-networks, bootstrapping."""

from __future__ import annotations

from rankwise.varpro.growing import choose_units
from rankwise.varpro.problem import Basis, FunctionBasis, SeparableProblem, UnitBasis
from rankwise.varpro.projection import FitResult, VariableProjection
from rankwise.varpro.pruning import Pruned, prune
from rankwise.varpro.starts import Start, random_units
from rankwise.varpro.units import UNIT_KINDS, Units, make_units

__all__ = [
    "UNIT_KINDS",
    "Basis",
    "FitResult",
    "FunctionBasis",
    "Pruned",
    "SeparableProblem",
    "Start",
    "UnitBasis",
    "Units",
    "VariableProjection",
    "choose_units",
    "make_units",
    "prune",
    "random_units",
]
