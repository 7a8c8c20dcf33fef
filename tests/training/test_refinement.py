"""Joint refinement of a glued network, and its final glue."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from rankwise.networks.quadratic import glue
from rankwise.training.joint_plan import JointPlan
from rankwise.training.refinement import refine
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units


@pytest.fixture(scope="module")
def start():
    bunch = load_digits()
    images, labels = (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)
    units = make_units("bilinear", (8, 8), activation="relu")
    params, active = random_units(
        units, 30, images[:200], Start(window=(0.4, 0.8), smooth=1), np.random.default_rng(0)
    )
    network, _ = glue(units, params, images[:900], np.eye(10)[labels[:900]], ridge=1.0)
    return network, active, images, labels


def accuracy(network, images, labels):
    return np.mean(network.outputs(images).argmax(axis=1) == labels)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_refined_units_do_better_and_windows_stay(start, loss):
    network, active, images, labels = start
    plan = JointPlan(loss=loss, learning_rate=1e-2)
    validation = (images[900:1200], labels[900:1200])
    refined, layer, result = refine(
        network, active, images[:900], labels[:900], epochs=6, validation=validation, plan=plan
    )
    assert accuracy(refined, images[1200:], labels[1200:]) > accuracy(
        network, images[1200:], labels[1200:]
    )
    np.testing.assert_array_equal(refined.params[~active], network.params[~active])
    assert refined.n_parameters_total == network.n_parameters_total
    assert len(result.history) == 6
    np.testing.assert_array_equal(layer.coef, refined.coef)


def test_the_final_glue_is_the_dense_ridge_solution(start):
    network, active, images, labels = start
    refined, _, _ = refine(network, active, images[:300], labels[:300], epochs=1, ridge=2.0)
    units, params = refined.units, refined.params.astype(float)
    phi = units.features(units.flatten(images[:300].astype(float)), params)
    phi = np.hstack([phi, np.ones((300, 1))])
    expected = np.linalg.solve(phi.T @ phi + 2.0 * np.eye(31), phi.T @ np.eye(10)[labels[:300]])
    np.testing.assert_allclose(refined.coef, expected, atol=1e-4)


@pytest.mark.parametrize("output_layer", ["trained", "running"])
def test_without_a_finite_loss_the_start_is_kept(start, output_layer):
    network, active, images, labels = start
    plan = JointPlan(loss="squared", learning_rate=1e30, output_layer=output_layer)
    refined, _, result = refine(
        network, active, images[:300], labels[:300], epochs=2, plan=plan, ridge=1.0
    )
    assert (result.status, result.chosen_epoch) == ("non-finite", 0)
    np.testing.assert_array_equal(refined.params, network.params)
    assert np.isfinite(refined.coef).all()


def test_the_final_glue_is_truncated_and_of_the_type_that_was_asked_for(start):
    network, active, images, labels = start
    some = (network, active, images[:300], labels[:300])
    refined, layer, _ = refine(
        *some, epochs=1, ridge=1e-6, method="tsqr", rcond=0.05, dtype="float64"
    )
    assert layer.rank < 31
    assert refined.outputs(images[:5].astype(np.float64)).dtype == np.float64
    _, whole, _ = refine(*some, epochs=1, ridge=1e-6)
    assert whole.rank == 31


def test_a_refinement_computes_on_one_thread_and_leaves_the_number_as_it_was(start):
    """Otherwise the sums of its output layer would have as many orders as machines have cores."""
    network, active, images, labels = start
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        refine(
            network, active, images[:300], labels[:300], epochs=1,
            after_epoch=lambda entry: seen.append(torch.get_num_threads()),
        )  # fmt: skip
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
