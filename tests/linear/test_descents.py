"""L-BFGS on many problems in step, against exact minima."""

import numpy as np
import pytest

from rankwise.linear.descents import Descents


def quadratics(n=4, d=12, seed=0):
    """``½(x − m)ᵀA(x − m)`` of very different scales."""
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((n, d, d)) * 10.0 ** np.arange(n)[:, None, None]
    return np.einsum("nij,nkj->nik", roots, roots) + np.eye(d), rng.standard_normal((n, d))


def run(descents, matrices, minima, most=400):
    looks = 0
    while len(descents.active) and looks < most:
        at = descents.active
        away = descents.trials - minima[at]
        slopes = np.einsum("nij,nj->ni", matrices[at], away)
        descents.tell(0.5 * np.einsum("ni,ni->n", away, slopes), slopes)
        looks += 1
    descents.finish()
    return looks


@pytest.mark.parametrize("preconditioned", [False, True])
def test_minima_of_quadratics(preconditioned):
    matrices, minima = quadratics()
    inverses = np.linalg.inv(matrices * np.array([1.0, 3.0, 0.2, 1.0])[:, None, None])

    def times(at, vectors):
        return np.einsum("nij,nj->ni", inverses[at], vectors)

    descents = Descents(
        np.zeros_like(minima), 1e-10, eps=1e-16, precondition=times if preconditioned else None
    )
    looks = run(descents, matrices, minima)
    assert descents.converged.all()
    away = descents.points - minima
    values = 0.5 * np.einsum("ni,nij,nj->n", away, matrices, away)
    assert (values < 1e-8).all()
    assert looks < (10 if preconditioned else 300)


def test_problems_share_nothing_but_the_look():
    matrices, minima = quadratics()
    start = np.ones_like(minima)
    together = Descents(start, 0.0, eps=1e-16)
    run(together, matrices, minima, 12)
    for i in range(len(minima)):
        alone = Descents(start[i : i + 1], 0.0, eps=1e-16)
        run(alone, matrices[i : i + 1], minima[i : i + 1], 12)
        np.testing.assert_allclose(alone.points[0], together.points[i], atol=1e-6)
    assert (start == 1).all()


def test_what_has_no_slope_is_done_and_what_is_left_is_kept():
    descents = Descents(np.zeros((2, 3)), 1e-8, eps=1e-16)
    descents.tell(np.array([1.0, 2.0]), np.array([[0.0] * 3, [1.0] * 3]))
    assert descents.active.tolist() == [1]
    assert descents.converged.tolist() == [True, False]
    before = descents.trials.copy()
    descents.tell(np.array([5.0]), np.array([[1.0] * 3]))  # higher: tried again nearer
    assert np.linalg.norm(descents.trials) < np.linalg.norm(before)
    descents.finish()
    np.testing.assert_array_equal(descents.points, 0.0)
