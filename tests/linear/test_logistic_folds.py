"""Held-out parts: by what a sample is."""

import numpy as np
import torch

from rankwise.linear.logistic_folds import Folds, folds_needed, usable_folds


def test_equal_samples_are_held_out_together_in_any_order_type_and_block():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 40)).astype(np.float32)
    folds = Folds(x.var(axis=0))
    found = folds.of(x)
    order = rng.permutation(500)
    np.testing.assert_array_equal(folds.of(x[order]), found[order])
    np.testing.assert_array_equal(folds.of(x.astype(float)), found)
    np.testing.assert_array_equal(folds.of(torch.as_tensor(x)), found)
    np.testing.assert_array_equal(np.concatenate([folds.of(x[:7]), folds.of(x[7:])]), found)
    np.testing.assert_array_equal(folds.of(-0.0 * x), folds.of(0.0 * x))
    # About a fifth each: the count's deviation is 9.
    assert (np.abs(np.bincount(found, minlength=5) - 100) < 36).all()


def test_parts_that_can_be_held_out():
    by_fold = np.array([[5, 5], [0, 0], [5, 0], [0, 5], [4, 4]], float)
    assert usable_folds(by_fold, 5) == [0, 2, 3, 4]
    assert usable_folds(by_fold, 2) == [0, 2]
    # A class that is in one part only can't be learned from the others.
    assert usable_folds(np.array([[5, 5], [5, 0], [5, 0], [5, 0], [5, 0]], float), 5) == [
        1,
        2,
        3,
        4,
    ]
    assert usable_folds(np.array([[5, 5], [0, 0], [0, 0], [0, 0], [0, 0]], float), 5) == []
    assert [folds_needed(n) for n in (10, 100, 900, 2000, 10_000, 10**6)] == [5, 5, 5, 2, 1, 1]
