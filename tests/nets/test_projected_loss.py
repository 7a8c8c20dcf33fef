"""The projected loss against the functional it stands for, and as an output layer of training."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import oracles
from rankwise.heads.head import solve_head
from rankwise.linear.running import solve_layer, with_constant
from rankwise.nets import TrainingSettings, predict_logits, train_network
from rankwise.nets.projected_loss import ProjectedLoss, make_loss


class Small(nn.Module):
    """Two layers, in any dtype."""

    def __init__(self, d=4, m=5, k=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(d, m)
        self.head = nn.Linear(m, k)

    def features(self, x):
        return torch.tanh(self.first(x.flatten(1)))

    def forward(self, x):
        return self.head(self.features(x))


def batch(n=12, d=4, k=3, seed=1):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=rng, dtype=torch.float64)
    return x, torch.randint(k, (n,), generator=rng)


def one_hot(y, k=3):
    return nn.functional.one_hot(y, k).double()


def oracle(phi, tau, ridge, n):
    """``min_A ½‖τ − ΦA‖² + ½μn‖A‖²`` over n by a dense solve, the constant unshrunk."""
    size = phi.shape[1]
    rows = np.sqrt(ridge * n) * np.eye(size)[:-1]
    a = np.vstack([phi, rows])
    t = np.vstack([tau, np.zeros((size - 1, tau.shape[1]))])
    layer = np.linalg.lstsq(a, t, rcond=None)[0]
    return 0.5 * np.sum((t - a @ layer) ** 2) / n, layer


@pytest.mark.parametrize("carried", [0, 1, 3])
def test_value_and_layer_are_the_dense_minimum(carried):
    model = Small().double()
    loss = ProjectedLoss(model, ridge=0.01, window=None)
    parts = [batch(seed=s) for s in range(carried + 1)]
    with torch.no_grad():
        for x, y in parts[:-1]:
            loss.carry(model.features(x), one_hot(y))
        value, layer = loss.functional(model.features(parts[-1][0]), one_hot(parts[-1][1]))
        phi = np.vstack([with_constant(model.features(x)).numpy() for x, _ in parts])
    tau = np.vstack([one_hot(y).numpy() for _, y in parts])
    expected, expected_layer = oracle(phi, tau, 0.01, len(phi))
    assert value.item() == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(layer.numpy(), expected_layer, atol=1e-8)


@pytest.mark.parametrize("window", [1, 10, None])
def test_gradient_is_that_of_the_functional_by_finite_differences(window):
    model = Small().double()
    loss = ProjectedLoss(model, ridge=1e-3, window=window)
    for seed in (5, 6):
        x, y = batch(seed=seed)
        loss.carry(model.features(x), one_hot(y))
    x, y = batch()
    parameters = list(model.first.parameters())

    def value(vector):
        with torch.no_grad():
            nn.utils.vector_to_parameters(torch.as_tensor(vector), parameters)
            return np.array([loss.functional(model.features(x), one_hot(y))[0].item()])

    start = nn.utils.parameters_to_vector(parameters).detach().numpy().copy()
    expected = oracles.finite_differences(value, start)[0]
    value(start)
    loss.functional(model.features(x), one_hot(y))[0].backward()
    found = np.concatenate([p.grad.numpy().ravel() for p in parameters])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert np.abs(expected).max() > 1e-4


def test_a_window_of_one_batch_carries_nothing():
    model = Small().double()
    alone, after = ProjectedLoss(model, window=1), ProjectedLoss(model, window=1)
    x, y = batch(seed=8)
    after.carry(model.features(x), one_hot(y))
    x, y = batch()
    features = model.features(x).detach()
    a, b = (loss.functional(features, one_hot(y))[0].item() for loss in (alone, after))
    assert a == b


def test_the_functional_of_batches_that_are_fitted_exactly_keeps_its_digits():
    """More features than samples: next to nothing is left, which a difference can't tell."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(40, 3)).double()
    loss = ProjectedLoss(model, ridge=1e-9, window=None)
    parts = [(rng.standard_normal((8, 40)), np.eye(3)[rng.integers(3, size=8)]) for _ in range(3)]
    for phi, tau in parts[:-1]:
        loss.carry(torch.from_numpy(phi), torch.from_numpy(tau))
    value, layer = loss.functional(*map(torch.from_numpy, parts[-1]))
    phi = np.hstack([np.vstack([p for p, _ in parts]), np.ones((24, 1))])
    residual = np.vstack([t for _, t in parts]) - phi @ layer.numpy()
    shrunk = 1e-9 * 24 * np.sum(layer.numpy()[:-1] ** 2)
    expected = 0.5 * (np.sum(residual**2) + shrunk) / 24
    assert np.sum(residual**2) < 1e-9
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_statistics_fade():
    model = Small().double()
    loss = ProjectedLoss(model, window=4)
    x, y = batch()
    phi = with_constant(model.features(x).detach())
    for _ in range(2):
        loss.carry(model.features(x), one_hot(y))
    np.testing.assert_allclose(loss.gram, (0.75 + 0.75**2) * (phi.T @ phi), rtol=1e-12)
    assert loss.weight.item() == pytest.approx(12 * (0.75 + 0.75**2))


def test_a_dead_feature_needs_no_pivot_of_its_own():
    gram = torch.zeros(3, 3, dtype=torch.float64)
    gram[0, 0], gram[2, 2] = 4.0, 2.0
    layer = solve_layer(gram, torch.ones(3, 1, dtype=torch.float64) * gram.diagonal()[:, None], 0.0)
    np.testing.assert_allclose(layer[:, 0], [1.0, 0.0, 1.0], atol=1e-9)


def test_forward_has_the_gradient_of_the_functional_and_leaves_the_head_alone():
    model = Small().double()
    loss, other = ProjectedLoss(model), ProjectedLoss(model)
    x, y = batch(seed=3)
    for one in (loss, other):
        one.carry(model.features(x), one_hot(y))
    x, y = batch()
    before = model.head.weight.clone()
    value, outputs = loss(model, x, y)
    assert outputs.shape == (12, 3)
    assert not outputs.requires_grad
    value.backward()
    assert model.head.weight.grad is None
    found = model.first.weight.grad.clone()
    model.zero_grad()
    functional, layer = other.functional(model.features(x), one_hot(y))
    functional.backward()
    # The loss runs in float32, as training does.
    scale = (other.weight.item() + 12) / 12
    np.testing.assert_allclose(found, scale * model.first.weight.grad, atol=1e-6)
    np.testing.assert_allclose(
        outputs, with_constant(model.features(x)).detach() @ layer, atol=1e-6
    )
    assert value.item() == pytest.approx(0.5 * ((one_hot(y) - outputs) ** 2).sum().item() / 12)
    np.testing.assert_array_equal(before.detach(), model.head.weight.detach())


def test_finish_writes_a_calibrated_layer_and_shuns_absent_classes():
    model = Small(k=4)
    x, y = batch(200)
    batches = [(x[:90].float(), y[:90]), (x[90:].float(), y[90:])]
    with torch.no_grad():
        ProjectedLoss(model).finish(model, batches)
        logits = model(x.float())
    assert not (logits.argmax(1) == 3).any()
    p = logits.softmax(1)
    assert p[:, :3].mean(0).numpy() == pytest.approx(np.bincount(y.numpy()) / 200, abs=0.05)
    again = model.head.weight.clone()
    ProjectedLoss(model).finish(model, [])
    np.testing.assert_array_equal(again.detach(), model.head.weight.detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ridge": 0.0}, "ridge must be above 0"), ({"window": 0.5}, "at least 1 batch")],
)
def test_options_that_are_not_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        ProjectedLoss(Small(), **options)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            nn.Sequential(nn.Linear(5, 3)),
            "Small must be an nn.Linear, got Sequential",
        ),
        (nn.Linear(5, 3, bias=False), "last layer of Small needs a bias"),
    ],
)
def test_a_last_layer_that_can_not_be_solved_is_refused(head, message):
    model = Small()
    model.head = head
    with pytest.raises(ValueError, match=message):
        ProjectedLoss(model)


def test_a_network_without_features_is_refused():
    with pytest.raises(ValueError, match=r"needs a network with features\(x\) and head"):
        make_loss("varpro", nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"Sequential must be an nn\.Linear, got Tanh"):
        make_loss("varpro", nn.Sequential(nn.Linear(3, 2), nn.Tanh()))


def test_features_that_are_not_finite_and_layers_beyond_the_ridge_are_told():
    x, y = batch()
    with pytest.raises(ValueError, match=r"features aren't finite, .*; lower the learning rate"):
        ProjectedLoss(Small().double())(Small().double(), x * np.nan, y)
    gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"with ridge 0: .* give a larger ridge"):
        solve_layer(gram - torch.eye(2).double() * 0.5, torch.ones(2, 1).double(), 0.0)


def plain(seed=0):
    """An ordinary sequence of layers, nothing of it of this package."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10))


def test_a_sequence_that_ends_in_a_linear_layer_trains_and_is_solved():
    bunch = load_digits()
    pixels = (bunch.images * 255 / 16).astype(np.uint8)
    same, model = OnPixels(), plain()
    model[1].load_state_dict(same.first.state_dict())
    for network in (same, model):
        train_network(network, pixels[:1200], bunch.target[:1200], settings=settings(), seed=7)
    assert torch.equal(model[1].weight, same.first.weight), "the same training, to the bit"
    assert torch.equal(model[3].weight, same.head.weight)
    # The untrained one's last layer, in one pass; a network that doesn't say n_features as well.
    for network in (plain(), OnPixels()):
        solve_head(network, pixels[:1200], bunch.target[:1200], device="cpu")
        logits = predict_logits(network, pixels[1200:])
        assert np.mean(np.asarray(logits).argmax(1) == bunch.target[1200:]) > 0.8


class OnPixels(Small):
    """Digits, 8×8."""

    def __init__(self, seed=0):
        super().__init__(64, 40, 10, seed)


def settings(**options):
    return TrainingSettings(
        epochs=3, batch_size=100, output="varpro", learning_rate=3e-3, **options
    )


def test_training_with_the_layer_projected_out():
    bunch = load_digits()
    images = (bunch.images * 255 / 16).astype(np.uint8)
    validation = (images[1400:], bunch.target[1400:])
    model = OnPixels()
    result = train_network(
        model, images[:1400], bunch.target[:1400], settings(), validation=validation, device="cpu"
    )
    losses = [entry["train_loss"] for entry in result.history]
    assert losses[-1] < losses[0]
    assert result.history[-1]["validation_accuracy"] > 0.88
    found = predict_logits(model, validation[0], device="cpu").argmax(1)
    accuracy = float(np.mean(found == validation[1]))
    assert accuracy == pytest.approx(result.history[-1]["validation_accuracy"])


def test_a_killed_training_goes_on_to_the_same_numbers(tmp_path):
    bunch = load_digits()
    images = (bunch.images[:600] * 255 / 16).astype(np.uint8)
    labels = bunch.target[:600]
    whole = train_network(OnPixels(), images, labels, settings(), device="cpu")

    def kill(epoch, metrics):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_network(
            OnPixels(), images, labels, settings(), device="cpu", folder=tmp_path, after_epoch=kill
        )
    resumed = train_network(OnPixels(), images, labels, settings(), device="cpu", folder=tmp_path)
    for name, value in whole.last_state.items():
        np.testing.assert_array_equal(value, resumed.last_state[name])
