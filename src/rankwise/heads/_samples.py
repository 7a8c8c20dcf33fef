"""Which samples `VarProHead` has seen: kept as they are or as sums, with the layer of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rankwise.heads._solving import HeadSolving
from rankwise.heads.feature_blocks import ArrayBlocks, Block
from rankwise.linear.class_ridge import HeadSolution
from rankwise.linear.statistics import ClassStatistics


class HeadSamples(HeadSolving):
    """The part of `VarProHead` that keeps samples, and solves when the layer is asked for."""

    _solved: HeadSolution | None = None
    _parts: list[ClassStatistics] | None = None

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there are samples."""
        return hasattr(self, "_seen")

    def _adopt(
        self, statistics: ClassStatistics, parts: list[ClassStatistics] | None = None
    ) -> None:
        """Be the head of these samples, not solved yet."""
        self._statistics, self._samples = statistics, None
        self._parts = [statistics] if parts is None else parts
        self.classes_ = statistics.classes
        self.n_features_in_ = statistics.n_features
        self._seen = statistics.n_samples, float(statistics.weights.sum())
        self._solved = None

    def _keeps(self, source: ArrayBlocks) -> bool:
        """Whether the samples themselves are kept, and statistics made when they are asked for."""
        if self.loss == "squared":
            return source.fewer_than_features
        return source.less_than_statistics and self.rank is None

    def _adopt_samples(self, samples: Block) -> None:
        """Keep the samples themselves, which are less than their statistics."""
        self._statistics, self._samples, self._parts = None, samples, None
        self.classes_ = np.unique(samples.labels)
        self.n_features_in_ = samples.features.shape[1]
        used = samples.weights > 0
        self._seen = int(used.sum()), float(samples.weights.sum())
        self._solved = None

    def _forget(self) -> None:
        """As if never fitted."""
        self._statistics = self._samples = self._parts = self._solved = None
        for name in ("_seen", "classes_"):
            self.__dict__.pop(name, None)

    def _solution(self) -> HeadSolution:
        if not self.__sklearn_is_fitted__():
            raise AttributeError("this VarProHead isn't fitted yet; call fit or partial_fit")
        if self._solved is None:
            self._solved = self._solve(None)
        return self._solved

    def _rank_and_condition(self) -> tuple[int, float]:
        solved = self._solution()
        if solved.rank is None or solved.condition is None:
            rank, condition = self._family().rank_and_condition()
            self._solved = replace(solved, rank=rank, condition=condition)
            return rank, condition
        return solved.rank, solved.condition
