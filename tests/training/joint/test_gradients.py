"""Gradients, moments, and the output layer that runs along."""

import numpy as np
import pytest
import torch

from joint_cases import convolutional, training, windowed
from rankwise.networks.convolutional import as_maps
from rankwise.training.affine import moved
from rankwise.training.augment import Augmentation
from rankwise.units.convolutional import ConvolutionalUnits, Layer

# -- gradients --------------------------------------------------------------------------------


def difference_quotients(function, tensor, step=1e-6):
    result = torch.zeros_like(tensor)
    flat, out = tensor.data.view(-1), result.view(-1)
    for i in range(len(flat)):
        kept = float(flat[i])
        flat[i] = kept + step
        above = function()
        flat[i] = kept - step
        below = function()
        flat[i] = kept
        out[i] = (above - below) / (2 * step)
    return result


@pytest.mark.parametrize("activation", ["tanh", "silu"])
@pytest.mark.parametrize("normalised", [True, False])
def test_gradients_of_convolutional_units_equal_difference_quotients(activation, normalised):
    units = ConvolutionalUnits((6, 6), (Layer(3, pool=2), Layer(2)), activation=activation)
    rng = np.random.default_rng(0)
    images = rng.random((5, 6, 6))
    module = convolutional(images.astype(np.float32), units=units).double()
    maps = torch.from_numpy(images)[:, None]
    weights = torch.from_numpy(rng.standard_normal((5, 2)))

    def objective():
        return (module(maps, [] if normalised else None) * weights).sum()

    parameters = list(module.parameters())
    gradients = torch.autograd.grad(objective(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = difference_quotients(lambda: float(objective().detach()), parameter)
        np.testing.assert_allclose(gradient.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "silu", "gelu"])
def test_the_gradient_at_a_fixed_solved_layer_is_that_of_the_projected_functional(
    digits, activation
):
    images, labels = digits
    module = windowed(images, 5, activation)
    maps = torch.from_numpy(images[:40] / 255.0)[:, None]
    targets = torch.eye(10, dtype=torch.float64)[labels[:40]]
    ridge = 0.3

    def features():
        phi = module(maps)
        return torch.cat([phi, torch.ones_like(phi[:, :1])], dim=1)

    def solved(phi):
        damped = phi.T @ phi + ridge * torch.eye(phi.shape[1], dtype=phi.dtype)
        return torch.linalg.solve(damped, phi.T @ targets)

    def projected():
        phi = features()
        coef = solved(phi)
        return float(
            0.5 * (targets - phi @ coef).square().sum() + 0.5 * ridge * coef.square().sum()
        )

    phi = features()
    coef = solved(phi.detach())
    (0.5 * (targets - phi @ coef).square().sum()).backward()
    with torch.no_grad():
        expected = difference_quotients(projected, module.params)
    np.testing.assert_allclose(module.params.grad.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_shards_add_up_to_the_gradient_of_the_batch(digits):
    images, labels = digits
    whole = training(images, module=windowed(images).float(), n_shards=1, augmentation=None)
    parts = training(images, module=windowed(images).float(), n_shards=4, augmentation=None)
    for one in (whole, parts):
        with torch.no_grad():
            one.coef += torch.linspace(-1, 1, one.coef.numel()).reshape(one.coef.shape)
        with one.threads():
            one.update(images[:50], labels[:50], torch.Generator())
    for a, b in zip(whole.trained, parts.trained, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-6)


# -- moments ----------------------------------------------------------------------------------


def test_the_moments_fold_into_the_network(digits):
    images, labels = digits
    run = training(images)
    result = run.fit(images[:600], labels[:600])
    network = run.module.network(result.coef, softmax=True)
    np.testing.assert_allclose(
        network.outputs(images[:100]), run.outputs(images[:100]), rtol=1e-3, atol=1e-3
    )


def test_normalised_forms_have_unit_deviation_on_the_batch(digits):
    images, _ = digits
    units = ConvolutionalUnits((8, 8), (Layer(4),), activation="softplus", grid=8)
    module = convolutional(images, units=units)
    features = module(torch.from_numpy(images[:200] / 255.0).float()[:, None], [])
    q = torch.log(torch.expm1(features)).reshape(200, 4, 64)
    np.testing.assert_allclose(q.mean(dim=(0, 2)).detach(), 0, atol=1e-3)
    np.testing.assert_allclose(q.std(dim=(0, 2)).detach(), 1, atol=1e-2)


# -- the running output layer -------------------------------------------------------------------


def test_a_running_layer_begins_with_a_full_window(digits):
    """A solution on the first batch alone would fit its 30 samples, and nothing else."""
    images, labels = digits
    run = training(
        images, module=windowed(images, 60).float(), loss="squared", output_layer="running",
        batch_size=30, learning_rate=1e-12, augmentation=None, epochs=1, solve_every=1,
    )  # fmt: skip
    accuracies, solve = [], run.solve

    def note():
        solve()
        accuracies.append(run.accuracy(images, labels))

    run.solve = note
    run.fit(images[:900], labels[:900])
    assert len(accuracies) == 900 // 30 + 1
    assert min(accuracies) > 0.8


@pytest.mark.parametrize("erase", [0.0, 0.5])
def test_a_running_layer_begins_with_erased_images(digits, erase):
    images, labels = digits
    run = training(
        images, module=windowed(images).float(), loss="squared", output_layer="running",
        augmentation=Augmentation(erase=erase), epochs=1,
    )  # fmt: skip
    seen, module = [], run.module.forward
    run.module.forward = lambda maps, *given: (seen.append(maps), module(maps, *given))[1]
    run.solve_first(images[:60], labels[:60], torch.Generator().manual_seed(0))
    changed = Augmentation().draw(60, (8, 8), torch.Generator().manual_seed(0))
    same = torch.isclose(seen[0], moved(as_maps(images[:60]), changed), atol=1e-5)
    assert bool(same.all()) == (erase == 0)
