"""How `VarProHead` learns in parts and places, and forgets: sums that merge and subtract."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from rankwise._files import write_json
from rankwise._refusals import all_or_nothing
from rankwise.heads._input import HeadInput
from rankwise.heads._samples import HeadSamples
from rankwise.heads.feature_blocks import checked_labels
from rankwise.heads.removal import SampleDigest, certificate_of, measured_difference
from rankwise.heads.shards import LeftOutErrors, in_order, mean_errors, total_of
from rankwise.linear.statistics import ClassStatistics


class HeadParts(HeadInput, HeadSamples):
    """The part of `VarProHead` that changes which samples it has seen."""

    removals_: list[dict[str, Any]]

    @all_or_nothing
    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Add samples; the layer is solved when it is next asked for.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array, optional
            All labels that will ever come; needed in the first call unless `X` holds them all.
        """
        first = not self.__sklearn_is_fitted__()
        statistics = self._gathered(self._begin(X, y, sample_weight, first=first))
        known = statistics.classes
        if classes is not None:
            known = np.unique(np.asarray(checked_labels(classes, "classes")))
        if not first:
            more = np.setdiff1d(known, self.classes_)
            if classes is not None and len(more):
                raise ValueError(
                    f"classes {more.tolist()} weren't named in the first call; the head knows "
                    f"{self.classes_.tolist()}, and merge adds the classes of another head"
                )
            known = self.classes_
        self._check_known(statistics, known)
        if first:
            empty = ClassStatistics.empty(
                known, statistics.n_features, by_class=statistics.by_class
            )
            self._adopt(empty + statistics)
        else:
            self._adopt(self.statistics_ + statistics)
        return self

    @all_or_nothing
    def merge(self, other: HeadParts | ClassStatistics) -> Self:
        """Add the samples of a head fitted elsewhere, or of its statistics. Classes may differ.

        Merged in any order, the same heads give the same bits: what each brought is kept, ``d²``
        numbers, and summed in an order of its own. Samples that come or go later add up what there
        is. A head without samples takes the other's. With ``alpha="loo"`` generalised
        cross-validation chooses until `choose_ridge` is told the shards' `left_out_errors`; a
        warning says so.

        Raises
        ------
        ValueError
            If features differ in number, or labels in kind.
        """
        if isinstance(other, HeadParts):
            check_is_fitted(other)
            theirs = other._shards()
        elif isinstance(other, ClassStatistics):
            theirs = [other]
        else:
            raise ValueError(
                f"merge takes a VarProHead or its statistics_, got {type(other).__name__}"
            )
        self._check_parameters()
        parts = in_order([*(self._shards() if self.__sklearn_is_fitted__() else []), *theirs])
        self._adopt(total_of(parts), parts)
        if self.alpha == "loo" and len(parts) > 1:
            warnings.warn(
                "the ridge of merged heads is chosen by generalised cross-validation; for exact "
                "leave-one-out give choose_ridge the left_out_errors of each shard",
                UserWarning,
                stacklevel=2,
            )
        return self

    @classmethod
    def from_statistics(
        cls, statistics: ClassStatistics | Iterable[ClassStatistics], **parameters: Any
    ) -> Self:
        """A head from statistics alone, one's or several shards'.

        Parameters
        ----------
        statistics : ClassStatistics, or iterable of them
            Such as ``statistics_`` of heads fitted elsewhere; the order changes nothing.
        **parameters
            Of the head.
        """
        given = [statistics] if isinstance(statistics, ClassStatistics) else list(statistics)
        if not given or not all(isinstance(s, ClassStatistics) for s in given):
            raise ValueError("from_statistics takes ClassStatistics, one or several")
        head = cls(**parameters)
        head._check_parameters()
        parts = in_order(given)
        head._adopt(total_of(parts), parts)
        return head

    def left_out_errors(self, X: Any, y: Any = None, sample_weight: Any = None) -> LeftOutErrors:
        """What one shard of the training samples contributes to `choose_ridge`.

        Call it on the merged head, in each place on the samples that were trained on there.
        """
        check_is_fitted(self)
        source = self._begin(X, y, sample_weight, first=False)
        family = self._family()
        ridges = [float(r) for r in (family.path() if self.alphas is None else self.alphas)]
        squares, weight = np.zeros(len(ridges)), 0.0
        for block in source:
            rotated = family.rotate(block.features)
            codes = self._codes(block.labels)
            squares += family.left_out_squares(rotated, codes, block.weights, ridges)
            weight += float(block.weights.sum())
        return LeftOutErrors(tuple(ridges), tuple(squares.tolist()), weight)

    def choose_ridge(self, errors: Sequence[LeftOutErrors]) -> Self:
        """Solve with the ridge of the least exact leave-one-out error over all shards.

        Parameters
        ----------
        errors : sequence of LeftOutErrors
            One of each shard, in any order; together of all the samples.

        Raises
        ------
        ValueError
            If they are of different ridges, or not of as much weight as the head has seen.
        """
        check_is_fitted(self)
        criterion, weight = mean_errors(errors)
        seen = float(self.statistics_.weights.sum())
        if not np.isclose(weight, seen):
            raise ValueError(
                f"the shards' samples weigh {weight:g}, but the head has seen {seen:g}; one of "
                "left_out_errors of each shard is needed"
            )
        self._solved = self._solve_from_statistics("loo", criterion)
        return self

    def unlearn(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        certificate: str | Path | None = None,
        rest: Any = None,
    ) -> Self:
        """Take training samples out: the head is then, to rounding, as if never fitted on them.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        certificate : path, optional
            A JSON file to write: what was taken out, digests before and after, and the difference
            from never having had it, see `rankwise.heads.removal.certificate_of`. The attribute
            ``removals_`` has the same, one entry a call.
        rest : (features, labels[, sample weights]) or iterable of such, optional
            All samples that stay. Then the difference is measured, not only bounded.

        Raises
        ------
        ValueError
            If they can't have been part of the training, or `rest` isn't what stays.
        """
        check_is_fitted(self)
        seen = SampleDigest()
        gone = self._gathered(self._begin(X, y, sample_weight, first=False), seen)
        before = self.statistics_
        after = before - gone
        record = certificate_of(before, gone, after, seen.hexdigest())
        if rest is not None:
            stays = rest if isinstance(rest, tuple) else (rest,)
            fresh = self._gathered(self._begin(*stays, *[None] * (3 - len(stays)), first=False))
            record["difference"]["measured"] = measured_difference(after, fresh)
        if certificate is not None:
            write_json(certificate, record)
        self._adopt(after)
        self.removals_ = [*getattr(self, "removals_", []), record]
        return self

    def _shards(self) -> list[ClassStatistics]:
        return [self.statistics_] if self._parts is None else self._parts
