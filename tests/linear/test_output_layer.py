"""The glue: streamed against one dense solve, ridge choice against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import oracles
from rankwise._arrays import blocks
from rankwise.linear import gram
from rankwise.linear.gram import accumulate_gram, sum_in_threads
from rankwise.linear.output_layer import solve_output_layer, solve_tsqr
from rankwise.linear.ridge_choice import leave_one_out_errors, ridge_path


def data(n=300, m=12, k=3, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    phi = np.tanh(rng.standard_normal((n, m))).astype(dtype)
    tau = np.eye(k)[rng.integers(k, size=n)]
    return phi, tau, lambda block: phi[block]


@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
@pytest.mark.parametrize("method", ["gram", "tsqr", "auto"])
@pytest.mark.parametrize("block_size", [7, 64, 4096])
def test_streamed_glue_is_one_dense_solve(ridge, method, block_size):
    phi, tau, features = data()
    layer = solve_output_layer(features, tau, ridge=ridge, method=method, block_size=block_size)
    np.testing.assert_allclose(layer.coef, oracles.ridge_solution(phi, tau, ridge), atol=1e-10)
    assert layer.rank == 12
    assert layer.method == ("tsqr" if method == "tsqr" else "gram")


@given(
    n=st.integers(1, 60),
    m=st.integers(1, 9),
    ridge=st.sampled_from([1e-3, 1.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_any_shape(n, m, ridge, seed):
    phi, tau, features = data(n, m, 2, seed)
    expected = oracles.ridge_solution(phi, tau, ridge)
    for method in ("gram", "tsqr"):
        layer = solve_output_layer(features, tau, ridge=ridge, method=method, block_size=8)
        np.testing.assert_allclose(layer.coef, expected, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_workers_gives_the_same_bits(dtype, monkeypatch):
    monkeypatch.setattr(gram, "_TILE", 5)
    monkeypatch.setattr(gram, "_CHEAP", 0)
    phi, tau, features = data(3000, 23, dtype=dtype)
    one = accumulate_gram(features, tau, workers=1, block_size=500)
    for workers in (2, 3, 5):
        other = accumulate_gram(features, tau, workers=workers, block_size=500)
        np.testing.assert_array_equal(one.gram, other.gram)
        np.testing.assert_array_equal(one.cross, other.cross)
    wide = phi.astype(np.float64)
    np.testing.assert_allclose(one.gram, wide.T @ wide, atol=1e-3 if dtype == "float32" else 1e-10)
    assert one.eps == np.finfo(dtype).eps


def test_small_problems_are_accumulated_in_float64():
    phi, tau, features = data(dtype="float32")
    wide = phi.astype(np.float64)
    statistics = accumulate_gram(features, tau)
    np.testing.assert_allclose(statistics.gram, wide.T @ wide, rtol=1e-13)


def test_statistics_add_up():
    phi, tau, _ = data()
    halves = [
        accumulate_gram(lambda b, p=p: p[b], t)
        for p, t in ((phi[:100], tau[:100]), (phi[100:], tau[100:]))
    ]
    whole = accumulate_gram(lambda b: phi[b], tau)
    total = halves[0] + halves[1]
    np.testing.assert_allclose(total.gram, whole.gram, atol=1e-12)
    np.testing.assert_allclose(total.cross, whole.cross, atol=1e-12)
    assert total.n == whole.n
    assert total.targets_squared == pytest.approx(whole.targets_squared)


@pytest.mark.parametrize("ridge", [1e-3, 0.5, 20.0])
def test_leave_one_out_is_n_fits(ridge):
    phi, tau, features = data(40, 6)
    statistics = accumulate_gram(features, tau)
    ((_, error),) = leave_one_out_errors(statistics, features, tau, [ridge])
    assert error == pytest.approx(oracles.leave_one_out(phi, tau, ridge), rel=1e-9)


def test_loo_and_gcv_pick_the_best_of_the_path():
    rng = np.random.default_rng(0)
    phi = rng.standard_normal((60, 30))
    tau = phi[:, :2] + 2.0 * rng.standard_normal((60, 2))  # noisy: a large ridge is right
    statistics = accumulate_gram(lambda b: phi[b], tau)
    path = ridge_path(statistics)
    brute = [oracles.leave_one_out(phi, tau, mu) for mu in path]
    loo = solve_output_layer(lambda b: phi[b], tau, ridge="loo")
    assert loo.ridge == pytest.approx(path[int(np.argmin(brute))])
    gcv = solve_output_layer(lambda b: phi[b], tau, ridge="gcv")
    residual = [tau - phi @ oracles.ridge_solution(phi, tau, mu) for mu in path]
    trace = [np.trace(phi @ np.linalg.solve(phi.T @ phi + mu * np.eye(30), phi.T)) for mu in path]
    by_hand = [np.sum(r**2) / 60 / (1 - t / 60) ** 2 for r, t in zip(residual, trace, strict=True)]
    np.testing.assert_allclose([c for _, c in gcv.criterion], by_hand, rtol=1e-6)
    assert gcv.ridge == pytest.approx(path[int(np.argmin(by_hand))])


def test_rank_deficient_features_without_ridge_give_the_minimum_norm_solution():
    phi, tau, _ = data(50, 4)
    doubled = np.hstack([phi, phi])
    for method in ("gram", "tsqr"):
        layer = solve_output_layer(lambda b: doubled[b], tau, ridge=0.0, method=method)
        assert layer.rank == 4
        np.testing.assert_allclose(layer.coef, np.linalg.pinv(doubled) @ tau, atol=1e-6)


def test_auto_turns_to_tsqr_where_the_gram_matrix_has_lost_directions():
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((100, 3)))
    phi = u * [1.0, 1.0, 1e-9]  # condition 10⁹: its square is beyond float64
    tau = u @ np.array([[1.0], [2.0], [3.0]])
    assert solve_output_layer(lambda b: phi[b], tau, ridge=0.0, method="gram").rank == 2
    layer = solve_output_layer(lambda b: phi[b], tau, ridge=0.0, method="auto")
    assert layer.method == "tsqr"
    assert layer.rank == 3
    np.testing.assert_allclose(layer.coef[:, 0], [1.0, 2.0, 3e9], rtol=1e-5)


def test_condition_and_rcond():
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((100, 3)))
    phi, tau = u * [1.0, 0.1, 0.001], rng.standard_normal((100, 1))
    assert solve_tsqr(lambda b: phi[b], tau).condition == pytest.approx(1000, rel=1e-6)
    for method in ("gram", "tsqr"):
        cut = solve_output_layer(lambda b: phi[b], tau, ridge=0.0, method=method, rcond=0.01)
        assert cut.rank == 2
        assert cut.condition == pytest.approx(10, rel=1e-6)


def test_progress_counts_every_sample():
    _, tau, features = data()
    seen = []
    accumulate_gram(features, tau, block_size=64, advance=seen.append)
    assert sum(seen) == 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": "best"}, "ridge must be a number at least 0, 'gcv' or 'loo', got 'best'"),
        ({"ridge": -1.0}, "ridge must be a number at least 0, 'gcv' or 'loo', got -1.0"),
        ({"method": "qr"}, "unknown method 'qr' of the output layer; accepted: auto, gram, tsqr"),
        ({"method": "tsqr", "ridge": "gcv"}, "method 'tsqr' needs a number as ridge"),
    ],
)
def test_errors(options, message):
    _, tau, features = data()
    with pytest.raises(ValueError, match=message):
        solve_output_layer(features, tau, **options)


@pytest.mark.parametrize("method", ["gram", "tsqr"])
def test_no_samples(method):
    with pytest.raises(ValueError, match="needs at least one sample, got none"):
        solve_output_layer(lambda b: np.zeros((0, 3)), np.zeros((0, 2)), ridge=0.0, method=method)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, "gcv", "loo", "tsqr"])
def test_a_layer_has_the_same_bits_whatever_threads_blas_has(ridge):
    _, tau, features = data(900, 700)
    how = {"ridge": 0.0, "method": "tsqr"} if ridge == "tsqr" else {"ridge": ridge}
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(solve_output_layer(features, tau, **how).coef)
    np.testing.assert_array_equal(*found)


def test_a_sum_over_blocks_has_the_same_bits_whatever_threads_blas_has():
    """So have a cluster's tasks, which compute on one core each."""
    rows = np.random.default_rng(0).standard_normal((3000, 90))
    told: list[int] = []

    def product(block: slice) -> np.ndarray:
        return rows[block].T @ rows[block]

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a @ b / np.abs(b).max()

    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(sum_in_threads(product, list(blocks(3000, 500)), times, told.append))
    np.testing.assert_array_equal(found[0], found[1])
    assert told == [1] * 12
