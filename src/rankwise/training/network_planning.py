"""What a preset of sub-networks trains for images of one shape, with what was given instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log
from numbers import Integral
from typing import Any

from rankwise.training.convolutional_presets import DEFAULT_AUGMENTATION
from rankwise.training.groups import SubnetPlan
from rankwise.training.presets import (
    PRESETS,
    NetworkPlan,
    Preset,
    check_given,
    refuse_augmentation,
    refuse_own,
    whole_number,
)
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start
from rankwise.varpro.solvers import Solver

UNITS_PER_SUBNET = 50
"""The paper's Table 3."""

_SAMPLES_PER_SIZE = 500
_MOST_SUBNETS = 40

_NO_PRESET_HAS = (
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
)


def plan_network(
    name: str | None,
    given: Mapping[str, Any],
    image_shape: tuple[int, ...],
    *,
    n_samples: int,
    dtype: str,
) -> NetworkPlan:
    """A preset with what was given instead, for images of one shape.

    Parameters
    ----------
    name : str or None
        Of a sub-network preset; None is ``windowed`` sized to the data.
    given : mapping
        Values for any of `presets.GIVEN`; ``window=False`` is the whole image.
    image_shape : tuple of int
    n_samples : int
        Training images, for the size.
    dtype : {"float32", "float64"}

    Raises
    ------
    ValueError
        If a name or a value isn't accepted; one sentence says what is.
    """
    check_given(name, given)
    name_or_default = "windowed" if name is None else name
    refuse_own(f"preset {name_or_default!r}", given)
    refuse_augmentation(name_or_default, given)
    preset = PRESETS[name_or_default]
    n_units, n_subnets = _sizes(name, given, preset, n_samples)
    counts = {"n_units": n_units, "n_subnets": n_subnets}
    for count in ("rank", "samples_per_subnet", "max_iter"):
        counts[count] = int(given.get(count, getattr(preset, count)))
    window = given.get("window", preset.window) or None
    own = {k: v for k, v in given.items() if k not in _NO_PRESET_HAS}
    grow = int(given.get("grow", 0))
    shares = {
        "window": window and tuple(map(float, window)),
        "tol": float(given.get("tol", preset.tol)),
    }
    chosen = replace(preset, **{**own, **counts, **shares})
    # A preset's budget counts its own solver's steps.
    own_solver = isinstance(chosen.solver, Solver)
    own_budget = not own_solver and (chosen.solver == preset.solver or "max_iter" in given)
    units = make_units(chosen.unit, image_shape, rank=chosen.rank, activation=chosen.activation)
    subnet = SubnetPlan(
        units=units,
        n_units=n_units // n_subnets,
        n_samples=chosen.samples_per_subnet,
        n_parts=n_subnets if given.get("partition") else 0,
        start=Start(
            window=chosen.window,
            smooth=chosen.smooth,
            source=given.get("start", "gaussian"),
            bias=bool(given.get("bias", True)),
        ),
        solver=chosen.solver,
        jacobian=chosen.jacobian,
        max_iterations=chosen.max_iter if own_budget else None,
        ftol=None if own_solver else chosen.tol,
        rcond=given.get("subnet_rcond"),
        squash=bool(given.get("squash_inside")),
        ridge=chosen.subnet_ridge,
        dtype=dtype,
    )
    return NetworkPlan(
        subnet,
        n_subnets,
        chosen.ridge,
        grow=grow,
        prune=_left_out(given.get("prune", 0), n_units + grow),
        refine=int(given.get("refine", 0)),
        refine_solver=given.get("refine_solver", "adamw"),
        augmentation=given.get("augmentation", DEFAULT_AUGMENTATION),
        glue_rcond=given.get("glue_rcond"),
        glue_method=given.get("glue_method", "auto"),
    )


def _sizes(
    name: str | None, given: Mapping[str, Any], preset: Preset, n_samples: int
) -> tuple[int, int]:
    """Units of the network and sub-networks that share them."""
    sized = {k: whole_number(k, given[k]) for k in ("n_units", "n_subnets") if k in given}
    own_size = name == "pereyra" and "n_subnets" not in sized
    if "n_subnets" in sized:
        n_subnets = sized["n_subnets"]
    elif own_size:
        n_subnets = preset.n_subnets
    elif "n_units" in sized:
        n_subnets = _divide(sized["n_units"])
    else:
        n_subnets = sized_to_data(n_samples, _MOST_SUBNETS if name is None else preset.n_subnets)
    n_units = sized.get("n_units", preset.n_units if own_size else UNITS_PER_SUBNET * n_subnets)
    if n_units % n_subnets:
        raise ValueError(
            f"n_units must be a multiple of n_subnets, got {n_units} units in {n_subnets}"
        )
    return n_units, n_subnets


def _left_out(prune: Any, n_units: int) -> int:
    """Units to leave out, given as a number or as a share."""
    count = int(prune) if isinstance(prune, Integral) else round(float(prune) * n_units)
    if count >= n_units:
        raise ValueError(
            f"prune must leave at least one unit; it asks for {count} of the {n_units} left out"
        )
    return count


def _divide(n_units: int) -> int:
    """Sub-networks for a number of units: the divisor that comes nearest to 50 units each."""
    divisors = [d for d in range(1, n_units + 1) if n_units % d == 0]
    return min(divisors, key=lambda d: abs(log(n_units / d / UNITS_PER_SUBNET)))


def sized_to_data(n_samples: int, most: int = _MOST_SUBNETS) -> int:
    """Sub-networks of 50 units for a data set of any size: one for 500 samples, at most 40.

    2000 units at the most: beyond, on MNIST, the glue costs more than the units bring
    (``docs/results.md``).
    """
    return max(1, min(most, round(n_samples / _SAMPLES_PER_SIZE)))
