"""What `VarProHead` says of its own training samples: outputs without each, doubtful labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankwise.heads._input import HeadInput, is_iterable_of_blocks
from rankwise.heads._solving import HeadSolving
from rankwise.heads.order import in_callers_order


class HeadLeftOut(HeadInput, HeadSolving):
    """The part of `VarProHead` that looks at training samples as if each weren't one."""

    def leave_one_out_predictions(
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> np.ndarray:
        """Output for each training sample of the head fitted without it, none refitted.

        Exact for the squared loss, to first order for the logistic one.

        Parameters
        ----------
        X, y, sample_weight
            Training samples, all or some, as they were given to `fit`; what wasn't trained on
            gets a wrong answer.

        Returns
        -------
        array of shape (n_samples, n_classes)
            In the order of the samples. Scale and directions of the features are held, which
            only matters where they are standardised or truncated.
        """
        return self._left_out(self._in_order(X, y, sample_weight))[0]

    def likely_wrong_labels(
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Training samples, the most suspicious label first.

        Returns
        -------
        rows : int array of shape (n_samples,)
            Of the arrays or, of a `DataLoader` that shuffles, of its data set.
        margins : array of shape (n_samples,)
            In the same order: left-out output of the given label less the largest other; below
            zero where the others' vote is against the label.

        Raises
        ------
        ValueError
            If a loader's order is another each time, so that rows would mean nothing.
        """
        outputs, codes = self._left_out(self._in_order(X, y, sample_weight))
        rows = np.arange(len(codes))
        given = outputs[rows, codes]
        outputs[rows, codes] = -np.inf
        margins = given - outputs.max(axis=1)
        order = np.argsort(margins, kind="stable")
        return order, margins[order]

    def _in_order(self, X: Any, y: Any, sample_weight: Any) -> Any:
        """Samples whose positions mean something to the caller."""
        if y is None and is_iterable_of_blocks(X):
            X = in_callers_order(X)
        return self._begin(X, y, sample_weight, first=False)
