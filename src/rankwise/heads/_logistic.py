"""The logistic layer of a head: which side of the problem is the smaller one, then the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rankwise.heads._input import Source
from rankwise.heads.feature_blocks import ArrayBlocks, Block
from rankwise.linear.class_logistic import (
    LogisticFit,
    Samples,
    fit_logistic,
    gram_pays,
    logistic_path,
)
from rankwise.linear.class_ridge import RidgeFamily
from rankwise.linear.design import design
from rankwise.linear.logistic_folds import Folds
from rankwise.linear.scaling import scaling_of_design, scaling_of_samples
from rankwise.linear.statistics import ClassStatistics, as_float64
from rankwise.linear.wide import samples_side


@dataclass(frozen=True)
class LogisticChoices:
    """What a head says of its logistic layer.

    Attributes
    ----------
    ridges : tuple of float, or None
        None for `logistic_path`.
    class_weight, fit_intercept, standardise
        As for `design`.
    rank : int or None
    max_passes : int
    """

    ridges: tuple[float, ...] | None
    class_weight: Mapping[Any, float] | str | None
    fit_intercept: bool
    standardise: bool
    rank: int | None
    max_passes: int


def solve_logistic(
    source: Source,
    kept: Block | None,
    statistics: ClassStatistics | None,
    classes: np.ndarray,
    codes_of: Callable[[np.ndarray], np.ndarray],
    choices: LogisticChoices,
    *,
    most_held: int,
    advance: Callable[[int], object],
) -> LogisticFit:
    """A softmax layer for the samples.

    Parameters
    ----------
    source : Source
        That can be read again.
    kept : Block, optional
        All samples, where they are less than their statistics.
    statistics : ClassStatistics, optional
        Of the samples; needed without `kept`, and with a rank.
    classes : array of shape (K,)
    codes_of : callable
        From labels to positions in `classes`.
    choices : LogisticChoices
    most_held, advance
        As for `fit_logistic`.
    """
    options: dict[str, Any] = {
        "class_weight": choices.class_weight,
        "fit_intercept": choices.fit_intercept,
        "standardise": choices.standardise,
    }
    gram: np.ndarray | None = None
    if kept is not None:
        codes = codes_of(kept.labels)
        scaling = scaling_of_samples(kept.features, codes, kept.weights, classes, **options)
    else:
        assert statistics is not None
        problem = design(statistics, **options)
        scaling, gram = scaling_of_design(problem, statistics), problem.gram.gram
    folds = Folds(scaling.variance)
    ridges = choices.ridges or tuple(logistic_path(scaling.trace))

    same_order = isinstance(source, ArrayBlocks)  # a loader may shuffle
    known: list[np.ndarray] = []  # parts of the blocks, a byte a sample

    def streamed() -> Iterator[Samples]:
        for number, block in enumerate(source.as_they_are()):
            codes = codes_of(block.labels)
            weights = block.weights * scaling.class_factors[codes]
            parts = known[number] if number < len(known) else folds.of(block.features)
            if same_order and number == len(known):
                known.append(parts)
            yield block.features, codes, weights, parts

    read: Callable[[], Iterable[Samples]] = streamed
    used, back = scaling, None
    if choices.rank is not None:
        assert statistics is not None
        family = RidgeFamily(design(statistics, **options), choices.rank)
        read, gram, back = _rotated(streamed, family), np.diag(family.values), family.rotation.T
        used = scaling.plain(len(back))
    elif kept is not None:
        x = kept.features
        n, d = x.shape
        weights = kept.weights * scaling.class_factors[codes]
        parts = folds.of(x)
        if n < d:
            x, back = samples_side(x, scaling)
            used = scaling.plain(n)
            gram = (x * weights[:, None]).T @ x
        elif gram_pays(n, d, scaling.n_rows):
            gram = scaling.gram(x, weights)
        read = lambda: [(x, codes, weights, parts)]  # noqa: E731  # blocks are cut to fit the cache
    found = fit_logistic(
        read,
        used,
        ridges,
        gram=gram,
        max_passes=choices.max_passes,
        most_held=most_held,
        advance=advance,
    )
    if back is None:
        return found
    # Outputs of the directions are about the features' centre.
    coef = found.coef @ back
    return replace(found, coef=coef, intercept=found.intercept - coef @ scaling.centre)


def _rotated(
    samples: Callable[[], Iterator[Samples]], family: RidgeFamily
) -> Callable[[], Iterator[Samples]]:
    """The samples in the directions of a family."""

    def read() -> Iterator[Samples]:
        for x, *rest in samples():
            yield family.rotate(as_float64(x)), *rest

    return read
