"""The running output layer: against dense solutions over the same window."""

import numpy as np
import pytest
import torch

from rankwise.linear.running import RunningLayer


def test_a_running_layer_without_fading_is_the_ridge_solution():
    rng = np.random.default_rng(0)
    phi, tau = rng.standard_normal((200, 7)), rng.standard_normal((200, 3))
    layer = RunningLayer(7, 3, ridge=0.05, window=1e12)
    for i in range(0, 200, 20):
        layer.add(torch.from_numpy(phi[i : i + 20]), torch.from_numpy(tau[i : i + 20]))
        layer.end_batch()
    rows = np.hstack([phi, np.ones((200, 1))])
    shrink = 0.05 * 200 * np.diag([1.0] * 7 + [0.0])
    expected = np.linalg.solve(rows.T @ rows + shrink, rows.T @ tau)
    np.testing.assert_allclose(layer.solve().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_running_layer_forgets_at_its_rate():
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((9, 4)), rng.standard_normal((9, 2))) for _ in range(5)]
    layer = RunningLayer(4, 2, ridge=0.1, window=3.0)
    for phi, tau in batches:
        layer.add(torch.from_numpy(phi), torch.from_numpy(tau))
        layer.end_batch()
    weights = [(2 / 3) ** (5 - i) for i in range(5)]
    pairs = list(zip(np.sqrt(weights), batches, strict=True))
    rows = np.vstack([w * np.hstack([phi, np.ones((9, 1))]) for w, (phi, _) in pairs])
    targets = np.vstack([w * tau for w, (_, tau) in pairs])
    shrink = 0.1 * 9 * sum(weights) * np.diag([1.0] * 4 + [0.0])
    expected = np.linalg.solve(rows.T @ rows + shrink, rows.T @ targets)
    np.testing.assert_allclose(layer.solve().numpy(), expected, rtol=1e-4, atol=1e-6)
    assert layer.n_batches == 5


def test_a_window_is_filled_with_no_more_than_it_holds():
    rng = np.random.default_rng(0)
    phi = torch.from_numpy(rng.standard_normal((50, 4)))
    tau = torch.from_numpy(rng.standard_normal((50, 2)))
    everything = RunningLayer(4, 2, window=np.inf)
    everything.add(phi, tau)
    for window, held in ((3.0, 30.0), (9.0, 50.0)):
        layer = RunningLayer(4, 2, window=window)
        layer.fill(everything, batch_size=10)
        assert float(layer.weight) == pytest.approx(held)
        torch.testing.assert_close(layer.solve(), everything.solve())


def test_a_feature_that_was_always_zero_does_not_stop_the_solve():
    layer = RunningLayer(3, 1, ridge=0.0)
    phi = torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.0, 1.0], [3.0, 0.0, 0.0]])
    layer.add(phi, torch.tensor([[1.0], [0.0], [1.0]]))
    assert torch.isfinite(layer.solve()).all()
    with pytest.raises(ValueError, match=r"window must be at least 1 batch, got 0\.0"):
        RunningLayer(3, 1, window=0.0)
