"""Recipes with a name: every choice of a network in one place, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from numbers import Integral, Real
from typing import Any

import numpy as np

from rankwise.linear.output_layer import check_method
from rankwise.training.convolutional_presets import (
    ACCEPTED,
    AUGMENTATIONS,
    CONVOLUTIONAL_PRESETS,
    DEFAULT_AUGMENTATION,
    OWN,
    refuse_foreign,
)
from rankwise.training.groups import SubnetPlan
from rankwise.training.precision import PRECISIONS
from rankwise.units.activations import ACTIVATIONS
from rankwise.units.multilinear import UNIT_KINDS
from rankwise.units.starts import SOURCES, WINDOW
from rankwise.varpro.functional import JACOBIANS
from rankwise.varpro.solvers import SOLVERS, Solver


@dataclass(frozen=True)
class Preset:
    """Every choice that makes a network; `QuadraticClassifier` takes what isn't given from here.

    Parameters
    ----------
    unit, activation, rank
        As in `varpro.make_units`.
    window, smooth
        As in `varpro.Start`.
    n_units : int
        Units of the whole network.
    n_subnets : int
        Sub-networks that share them.
    samples_per_subnet : int
        Mini-batch of a sub-network.
    solver, jacobian, max_iter, tol
        As in `VariableProjection`.
    subnet_ridge : float
        Ridge of a sub-network's own output layer, per sample.
    ridge : float or str
        Ridge of the glue: a number per sample, ``"gcv"`` or ``"loo"``.
    n_train : int or None
        Training images that the command line draws, where a source has more.
    """

    unit: str
    activation: str
    rank: int
    window: tuple[float, float] | None
    smooth: int
    n_units: int
    n_subnets: int
    samples_per_subnet: int
    solver: str | Solver
    jacobian: str
    max_iter: int
    tol: float
    subnet_ridge: float
    ridge: float | str
    n_train: int | None


PRESETS: dict[str, Preset] = {
    # Paper, Table 3 and section 6.1, with its Kaufman Jacobian (section 3). The paper solves the
    # output layer by a truncated pseudo-inverse; here a ridge is chosen on the training images.
    "pereyra": Preset(
        unit="symmetric",
        activation="tanh",
        rank=1,
        window=None,
        smooth=0,
        n_units=5200,
        n_subnets=104,
        samples_per_subnet=2000,
        solver="levenberg-marquardt",
        jacobian="kaufman",
        max_iter=15,
        tol=1e-4,
        subnet_ridge=0.0,
        ridge="gcv",
        n_train=50_000,
    ),
    # The same scheme and, from 52,000 images on, size, with units and a Jacobian that work better:
    # 50 units for every 500 images. Six iterations: beyond,
    # the sub-networks fit their 2000 samples more closely and the whole generalises worse
    # (``docs/results.md``, ablation, on validation images).
    "windowed": Preset(
        unit="bilinear",
        activation="tanh",
        rank=1,
        window=WINDOW,
        smooth=1,
        n_units=5200,
        n_subnets=104,
        samples_per_subnet=2000,
        solver="levenberg-marquardt",
        jacobian="golub-pereyra",
        max_iter=6,
        tol=1e-4,
        subnet_ridge=1e-4,
        ridge="gcv",
        n_train=None,
    ),
}

ALL_PRESETS = (*PRESETS, *CONVOLUTIONAL_PRESETS)
"""Names of sub-network presets, then of convolutional ones."""

DEFAULT = "small"
"""For images where none is named; `recommended` has the figures."""

_SHORTEST_SIDE = 4

GIVEN = (
    "unit",
    "activation",
    "rank",
    "window",
    "n_units",
    "n_subnets",
    "samples_per_subnet",
    "solver",
    "jacobian",
    "max_iter",
    "tol",
    "ridge",
    "start",
    "bias",
    "partition",
    "squash_inside",
    "subnet_rcond",
    "glue_rcond",
    "glue_method",
    "grow",
    "prune",
    "refine",
    "refine_solver",
    "augmentation",
    *OWN,
)
"""Choices of a preset that a user can give instead."""

REFINE_SOLVERS = ("adamw", "gauss-newton")
"""How all units are refined together: on mini-batches, or on all images at once."""


@dataclass(frozen=True)
class NetworkPlan:
    """What to train: one sub-network's plan, how many of them, the ridge of the glue.

    Parameters
    ----------
    subnet : SubnetPlan
    n_subnets : int
    ridge : float or str
    grow, prune : int
        Units that join behind the glue, and then units left out; none in the paper.
    refine : int
        Epochs of joint refinement behind that, or its steps; none in the paper.
    refine_solver : str
        One of `REFINE_SOLVERS`.
    augmentation : str
        Of the refinement on mini-batches; one of `convolutional_presets.AUGMENTATIONS`.
    glue_rcond, glue_method
        As in `linear.output_layer.solve_output_layer`.
    """

    subnet: SubnetPlan
    n_subnets: int
    ridge: float | str
    grow: int = 0
    prune: int = 0
    refine: int = 0
    refine_solver: str = "adamw"
    augmentation: str = DEFAULT_AUGMENTATION
    glue_rcond: float | None = None
    glue_method: str = "auto"


def recommended(given: Mapping[str, Any], image_shape: tuple[int, ...]) -> tuple[str | None, str]:
    """The preset that most people want for such images where none is named, and why.

    That is ``small``, of convolutional units. Correct in per cent, of one seed each, measured with
    ``windowed`` sized to the data, ``tiny`` and ``small``:

    ============  ======  ========  ====  =====
    data          images  windowed  tiny  small
    ============  ======  ========  ====  =====
    digits, 8×8      100      72.2  92.4   94.1
    digits, 8×8      300      89.6  98.3   99.0
    digits, 8×8     1000      96.2  98.6   99.0
    MNIST            100      54.4  85.2   91.5
    MNIST            300      68.7  95.3   96.7
    CIFAR-10        1000      27.9  50.4   52.4
    ============  ======  ========  ====  =====

    ``small`` is above both others in each of the six, so the number of images has no say. Other
    data sets, sides and seeds are
    not measured; ``benchmarks/default_model.py`` measures them. None, ``windowed`` sized to the
    data, where the samples aren't images, or a choice was given that only sub-networks have.

    Parameters
    ----------
    given : mapping
        As `plan_network` takes it.
    image_shape : tuple of int

    Returns
    -------
    preset : str or None
    reason : str
        One clause.
    """
    if len(image_shape) not in (2, 3) or min(image_shape[:2]) < _SHORTEST_SIDE:
        return None, f"samples of shape {'×'.join(map(str, image_shape))} are no images"
    own = sorted(set(given) - {*ACCEPTED})
    if given.get("activation") in ("tanh", "logistic"):
        own.append("activation")  # the paper's ask for the paper's units
    if own:
        return (
            None,
            f"{', '.join(own)} {'is' if len(own) == 1 else 'are'} given, which only they have",
        )
    return DEFAULT, "convolutional units did better on digits, MNIST and CIFAR-10, one seed each"


def check_given(name: str | None, given: Mapping[str, Any]) -> None:
    """Refuse what no images could make right, before any are read.

    Raises
    ------
    ValueError
        One sentence: what was given, what is accepted.
    """
    if name is not None and name not in ALL_PRESETS:
        raise ValueError(f"unknown preset {name!r}; accepted: {', '.join(ALL_PRESETS)}")
    if name in CONVOLUTIONAL_PRESETS:
        refuse_foreign(name, given)
    solver = given.get("solver")
    if isinstance(solver, Solver):
        both = [label for label in ("max_iter", "tol") if label in given]
        if both:
            raise ValueError(
                f"{' and '.join(both)} can't be given beside the solver {type(solver).__name__}, "
                "which brings its own; give it there, or a solver's name"
            )
    names = {
        "unit": UNIT_KINDS,
        "activation": tuple(ACTIVATIONS),
        **({} if isinstance(solver, Solver) else {"solver": SOLVERS}),
        "jacobian": JACOBIANS,
        "start": SOURCES,
        "refine_solver": REFINE_SOLVERS,
        "augmentation": AUGMENTATIONS,
        "precision": PRECISIONS,
    }
    for label in ("subnet_rcond", "glue_rcond"):
        value = given.get(label, 0.0)
        if not (_is_number(value) and 0 <= float(value) < 1):
            raise ValueError(f"rcond must be a share of the largest singular value, got {value!r}")
    for label, accepted in names.items():
        if label in given and given[label] not in accepted:
            raise ValueError(f"unknown {label} {given[label]!r}; accepted: {', '.join(accepted)}")
    for label in ("rank", "n_units", "n_subnets", "samples_per_subnet", "patience"):
        if label in given:
            whole_number(label, given[label])
    for label in ("max_iter", "grow", "refine"):
        if label in given:
            whole_number(label, given[label], least=0)
    prune = given.get("prune", 0)
    most = inf if isinstance(prune, Integral) else 1.0
    if not (_is_number(prune) and 0 <= float(prune) < most):
        raise ValueError(
            f"prune must be a whole number of units at least 0, or a share under 1, got {prune!r}"
        )
    if "refine_solver" in given and not given.get("refine"):
        raise ValueError(
            f"refine_solver {given['refine_solver']!r} needs refine, the number of its epochs or "
            "steps; none was given"
        )
    if name in PRESETS:
        refuse_own(f"preset {name!r}", given)
        refuse_augmentation(name, given)
    for label in ("bias", "partition", "squash_inside"):
        if not isinstance(given.get(label, False), (bool, np.bool_)):
            told = label.removesuffix("_inside")
            raise ValueError(f"{told} must be True or False, got {given[label]!r}")
    tol = given.get("tol", 0.0)
    if not (_is_number(tol) and 0 <= tol < inf):
        raise ValueError(f"tol must be a number at least 0, got {tol!r}")
    ridge = given.get("ridge", "gcv")
    chosen = isinstance(ridge, str) and ridge in ("gcv", "loo")
    if not chosen and not (_is_number(ridge) and 0 <= ridge < inf):
        raise ValueError(f"ridge must be a number at least 0, 'gcv' or 'loo', got {ridge!r}")
    check_method(given.get("glue_method", "auto"), ridge)
    newton = given.get("refine_solver") == "gauss-newton"
    asked = [k for k in ("grow", "prune") if given.get(k)] + newton * ["refine_solver"]
    if ridge == 0 and asked:
        raise ValueError(
            f"{' and '.join(asked)} need a ridge above 0, got ridge={ridge!r}; give a larger one, "
            "or 'gcv' or 'loo'"
        )
    window = given.get("window", False)
    fractions = isinstance(window, tuple | list) and len(window) == 2
    if window is not False and not (fractions and all(map(_is_number, window))):
        raise ValueError(f"window must be two fractions, False or None, got {window!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def refuse_own(name: str, given: Mapping[str, Any]) -> None:
    """Refuse what only convolutional presets have.

    Raises
    ------
    ValueError
    """
    own = [label for label in OWN if label in given]
    if own:
        raise ValueError(
            f"{' and '.join(own)} need{'s' if len(own) == 1 else ''} units that are trained "
            f"together, and {name} has sub-networks; presets "
            f"{', '.join(CONVOLUTIONAL_PRESETS)} are accepted"
        )


def refuse_augmentation(name: str, given: Mapping[str, Any]) -> None:
    """Refuse an augmentation where nothing is trained on batches.

    Raises
    ------
    ValueError
    """
    batches = given.get("refine") and given.get("refine_solver", "adamw") == "adamw"
    if "augmentation" in given and not batches:
        raise ValueError(
            f"augmentation {given['augmentation']!r} needs training on batches, and preset "
            f"{name!r} has none without refine; give refine epochs, or use preset "
            f"{', '.join(map(repr, CONVOLUTIONAL_PRESETS))}"
        )


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """A choice that is a whole number, also one that is given as a float.

    Raises
    ------
    ValueError
    """
    if not _is_number(value) or not float(value).is_integer() or float(value) < least:
        raise ValueError(f"{name} must be a whole number at least {least}, got {value!r}")
    return int(float(value))
