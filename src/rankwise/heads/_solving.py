"""How `VarProHead` gathers its statistics and solves its layer: ridge, loss, temperature."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from operator import add
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from rankwise.cluster import Fold
from rankwise.heads._input import Source
from rankwise.heads._logistic import LogisticChoices, solve_logistic
from rankwise.heads.feature_blocks import ArrayBlocks, Block, summed
from rankwise.heads.removal import SampleDigest
from rankwise.linear.class_logistic import LogisticLayer, left_out_outputs
from rankwise.linear.class_ridge import (
    HeadSolution,
    RidgeFamily,
    fit_temperature,
    modelled_temperature,
)
from rankwise.linear.design import design
from rankwise.linear.statistics import ClassStatistics, block_statistics, like, to_numpy
from rankwise.linear.wide import wide_design

CALIBRATION_SAMPLES = 5000
"""Samples, evenly spaced, whose left-out outputs the temperature is fitted on, at most."""

_MANY_PRODUCTS = 2e11
"""Products of all ridges, classes and samples, about ten seconds', from which a few ridges do."""

_ROUGH_SAMPLES = 20_000
_NEAR = 3


class HeadSolving(ABC):
    """The part of `VarProHead` between samples and a solution."""

    alpha: float | str
    alphas: Sequence[float] | None
    fit_intercept: bool
    standardise: bool
    class_weight: Mapping[Any, float] | str | None
    rank: int | None
    loss: str
    max_passes: int
    n_features_in_: int
    classes_: np.ndarray
    _seen: tuple[int, float]
    _statistics: ClassStatistics | None = None
    _samples: Block | None = None

    @abstractmethod
    def _solution(self) -> HeadSolution:
        """The layer that was solved."""

    @abstractmethod
    def _progress(self, description: str) -> Any:
        """A bar over samples, as a context."""

    @property
    def statistics_(self) -> ClassStatistics:
        """What is kept of the samples, of fewer than features made when it is first asked for."""
        if self._statistics is None:
            if self._samples is None:
                raise AttributeError("this VarProHead isn't fitted yet; call fit or partial_fit")
            by_class = self.class_weight is not None
            self._statistics = block_statistics(*self._samples, by_class=by_class)
        return self._statistics

    def _family(self) -> RidgeFamily:
        choices: dict[str, Any] = {
            "class_weight": self.class_weight,
            "fit_intercept": self.fit_intercept,
            "standardise": self.standardise,
        }
        few = self._samples is not None and len(self._samples.labels) < self.n_features_in_
        if few and self._samples is not None:
            x, labels, weights = self._samples
            problem = wide_design(x, self._codes(labels), weights, self.classes_, **choices)
        else:
            problem = design(self.statistics_, **choices)
        ridge = np.inf if isinstance(self.alpha, str) else float(self.alpha)
        rank = None if self.rank is None else int(self.rank)
        return RidgeFamily(problem, rank, ridge=ridge)

    def _solve(self, source: Source | None) -> HeadSolution:
        """Solve from the statistics and, where there are any to look at again, the samples."""
        again = source if source is not None and source.repeatable else None
        if self.loss == "logistic" and again is not None:
            return self._solve_logistic(again)
        family = self._family()
        chosen_by, ridge = "given", self.alpha
        criterion: list[tuple[float, float]] = []
        sample: list[Block] = []
        if isinstance(ridge, str):
            ridges = list(family.path() if self.alphas is None else self.alphas)
            if ridge == "loo" and again is not None:
                chosen_by = "loo"
                criterion, sample = self._leave_one_out_errors(family, again, ridges)
            else:
                chosen_by, criterion = "gcv", family.gcv_errors(ridges)
            ridge = _least(criterion)
        ridge = float(ridge)
        if not sample and isinstance(again, ArrayBlocks):
            block = again.sample(self._stride())
            sample = [block._replace(features=family.rotate(block.features))]
        if any(block.weights.any() for block in sample):
            temperature = self._temperature(family, sample, ridge)
        else:
            temperature = modelled_temperature(self.statistics_, family, ridge)
        coef, intercept, rank, condition = family.solve(ridge)
        return HeadSolution(
            coef, intercept, ridge, rank, condition, chosen_by, criterion, temperature
        )

    def _solve_from_statistics(
        self, chosen_by: str, criterion: list[tuple[float, float]]
    ) -> HeadSolution:
        """With the ridge of a criterion that was gathered elsewhere; no look at the samples."""
        family, ridge = self._family(), _least(criterion)
        temperature = modelled_temperature(self.statistics_, family, ridge)
        coef, intercept, rank, condition = family.solve(ridge)
        return HeadSolution(
            coef, intercept, ridge, rank, condition, chosen_by, criterion, temperature
        )

    def _stride(self) -> int:
        return -(-self._seen[0] // CALIBRATION_SAMPLES)

    # -- the squared loss ----------------------------------------------------------------------

    def _leave_one_out_errors(
        self, family: RidgeFamily, source: Source, ridges: list[float]
    ) -> tuple[list[tuple[float, float]], list[Block]]:
        """Mean squared left-out error of each ridge, and evenly spaced samples, rotated.

        Where all ridges would cost too much, as with a thousand classes, every so-manieth sample
        says which ones are near the least error, and all samples those ones' errors.
        """
        cost = float(self._seen[0]) * len(family.values) * len(self.classes_) * len(ridges)
        if cost <= _MANY_PRODUCTS or len(ridges) <= _NEAR:
            return self._errors_of(family, source, ridges)
        ordered = sorted(ridges)
        stride = max(1, self._seen[0] // _ROUGH_SAMPLES)
        rough, _ = self._errors_of(family, source, ordered, stride)
        at = int(np.argmin([e for _, e in rough]))
        found: dict[float, float] = {}
        while True:
            # The two beside the least one so far, so that it is known to be the least of them.
            near = [r for r in ordered[max(at - 1, 0) : at + 2] if r not in found]
            errors, sample = self._errors_of(family, source, near)
            found.update(errors)
            best = ordered.index(min(found, key=lambda ridge: found[ridge]))
            if best == at:
                return sorted(found.items()), sample
            at = best

    def _errors_of(
        self, family: RidgeFamily, source: Source, ridges: list[float], stride: int = 1
    ) -> tuple[list[tuple[float, float]], list[Block]]:
        known = self._rotated_samples(family) if stride == 1 else None
        looked = _LeftOut(family, self.classes_, tuple(ridges), stride, self._stride(), known)
        with self._progress("leave one out") as advance:
            squares, weight, sample = summed(source, _left_out, _both, looked, advance)
        if stride == 1:
            self._check_the_same(weight)
        errors = [(float(m), float(s / weight)) for m, s in zip(ridges, squares, strict=True)]
        return errors, sample

    def _rotated_samples(self, family: RidgeFamily) -> np.ndarray | None:
        """The samples in the family's directions, where it was made of them."""
        if self._samples is None:
            return None
        codes = self._codes(self._samples.labels)
        return family.rotated_rows(self._samples.weights * family.design.class_factors[codes])

    def _temperature(self, family: RidgeFamily, sample: list[Block], ridge: float) -> float:
        codes = [self._codes(b.labels) for b in sample]
        outputs = [
            family.left_out_outputs(b.features, c, b.weights, ridge)
            for b, c in zip(sample, codes, strict=True)
        ]
        return _temperature_of(family, sample, codes, outputs)

    # -- the logistic loss ---------------------------------------------------------------------

    def _solve_logistic(self, source: Source) -> HeadSolution:
        chosen = isinstance(self.alpha, str)
        given = self.alphas if chosen else [self.alpha]
        with self._progress("logistic loss") as advance:
            found = solve_logistic(
                source,
                self._samples,
                self._statistics if self._samples is None else None,
                self.classes_,
                self._codes,
                LogisticChoices(
                    None if given is None else tuple(float(r) for r in given),
                    self.class_weight,
                    self.fit_intercept,
                    self.standardise,
                    None if self.rank is None else int(self.rank),
                    int(self.max_passes),
                ),
                most_held=CALIBRATION_SAMPLES,
                advance=advance,
            )
        if not found.converged:
            warnings.warn(
                f"the logistic loss hasn't reached its minimum in {self.max_passes} passes; the "
                "layer is the best so far; give more max_passes or a larger alpha",
                ConvergenceWarning,
                stacklevel=4,
            )
        temperature = 1.0
        if len(found.held_codes):
            temperature = fit_temperature(found.held_outputs, found.held_codes, found.held_weights)
        return HeadSolution(
            found.coef,
            found.intercept,
            found.ridge,
            None,
            None,
            "cross-validation" if chosen else "given",
            found.criterion if chosen else [],
            temperature,
            loss="logistic",
            curvature=found.curvature,
            n_passes=found.n_passes,
        )

    # -- samples -------------------------------------------------------------------------------

    def _left_out(self, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """Left-out outputs, and the samples' classes as positions."""
        check_is_fitted(self)
        family, solved = self._family(), self._solution()
        layer = _layer_of(solved, family) if solved.loss == "logistic" else None
        outputs, codes = [], []
        for block in source:
            codes.append(self._codes(block.labels))
            rotated = family.rotate(block.features)
            if layer is None:
                found = family.left_out_outputs(rotated, codes[-1], block.weights, solved.ridge)
            else:
                found = left_out_outputs(family, layer, to_numpy(rotated), codes[-1], block.weights)
            outputs.append(found)
        return np.concatenate(outputs), np.concatenate(codes)

    def _gathered(self, source: Source, seen: SampleDigest | None = None) -> ClassStatistics:
        by_class = self.class_weight is not None
        with self._progress("statistics") as advance:
            if seen is None:
                total = summed(source, _statistics_of, add, by_class, advance)
            else:
                fold = Fold(add)
                for block in source:
                    fold.push(_statistics_of(by_class, block, 0))
                    seen.add(to_numpy(block.features), block.labels, block.weights)
                    advance(len(block.labels))
                total = fold.total()
        if total is None:
            raise ValueError("the iterable holds no samples")
        return total

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        """Positions of labels in `classes_`."""
        return _codes_of(self.classes_, labels)

    def _check_known(self, statistics: ClassStatistics, known: np.ndarray) -> None:
        unknown = np.setdiff1d(statistics.classes, known)
        if len(unknown):
            raise ValueError(
                f"label {unknown[0]} isn't among the classes of the first call "
                f"({', '.join(map(str, known[:10]))}); merge adds heads of other classes"
            )

    def _check_the_same(self, weight: float) -> None:
        if not np.isclose(weight, self._seen[1]):
            raise ValueError(
                f"the iterable gave samples of weight {self._seen[1]:g} the first "
                f"time and {weight:g} the second; alpha='gcv' or a number reads it once"
            )


def _statistics_of(by_class: bool, block: Block, first: int) -> ClassStatistics:
    return block_statistics(block.features, block.labels, block.weights, by_class=by_class)


class _LeftOut(NamedTuple):
    """What a second look at the samples is about."""

    family: RidgeFamily
    classes: np.ndarray
    ridges: tuple[float, ...]
    stride: int
    spacing: int
    known: np.ndarray | None


def _left_out(look: _LeftOut, block: Block, first: int) -> tuple[np.ndarray, float, list[Block]]:
    """Of a block: squared left-out errors of each ridge, weight, and evenly spaced samples."""
    family = look.family
    if look.stride > 1:
        block, first = _every(block, look.stride, first), -(-first // look.stride)
    codes = _codes_of(look.classes, block.labels)
    if look.known is None:
        rotated = family.rotate(block.features)
    else:
        rotated = look.known[first : first + len(codes)]
    squares = family.left_out_squares(rotated, codes, block.weights, look.ridges)
    some = _every(block._replace(features=rotated), look.spacing, first)
    return squares, float(block.weights.sum()), [some]


def _both(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _every(block: Block, stride: int, first: int) -> Block:
    """Every so-manieth sample, counted over all blocks; `first` is this one's first."""
    # Indices copy; a slice would keep the whole block alive.
    rows = np.arange(-first % stride, len(block.labels), stride)
    some = block.features[like(rows, block.features)]
    return Block(some, block.labels[rows], block.weights[rows])


def _codes_of(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    found = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    if (classes[found] != labels).any():
        unknown = labels[classes[found] != labels][0]
        raise ValueError(f"label {unknown} isn't one of the head's classes")
    return found


def _least(criterion: list[tuple[float, float]]) -> float:
    return min(criterion, key=lambda pair: pair[1])[0]


def _layer_of(solved: HeadSolution, family: RidgeFamily) -> LogisticLayer:
    """The layer in the family's directions again, from its coefficients."""
    return LogisticLayer(
        solved.ridge,
        family.unrotate(solved.coef.T),
        solved.intercept + solved.coef @ family.design.centre,
        solved.curvature,
    )


def _temperature_of(
    family: RidgeFamily, sample: list[Block], codes: list[np.ndarray], outputs: list[np.ndarray]
) -> float:
    weights = np.concatenate([b.weights for b in sample])
    joined = np.concatenate(codes)
    factors = family.design.class_factors[joined]
    return fit_temperature(np.concatenate(outputs), joined, weights * factors)
