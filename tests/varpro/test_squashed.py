"""Outputs squashed inside the functional: against finite differences and dense matrices."""

import numpy as np
import pytest

from rankwise import VariableProjection
from rankwise.units.basis import UnitBasis
from rankwise.units.multilinear import make_units
from rankwise.varpro import FunctionBasis
from rankwise.varpro.squashed import SquashedProblem

RIDGES = pytest.mark.parametrize("ridge", [0.0, 0.3])


@pytest.fixture
def units():
    rng = np.random.default_rng(0)
    form = make_units("symmetric", (5, 5))
    images = rng.normal(size=(40, 5, 5))
    params = 0.3 * rng.normal(size=(form.n_params, 4))
    targets = np.eye(3)[rng.integers(0, 3, 40)]
    return UnitBasis(form, images, params), targets, params


def waves():
    """Two columns that share a parameter."""
    x = np.linspace(0, 3, 30)
    return FunctionBasis(
        lambda t: np.column_stack([np.cos(t[0] * x), np.sin(t[0] * x), np.exp(-t[1] * x)]),
        lambda t: np.column_stack(
            [-x * np.sin(t[0] * x), x * np.cos(t[0] * x), -x * np.exp(-t[1] * x)]
        ),
        owner=np.array([0, 1, 2]),
        parameter=np.array([0, 0, 1]),
    ), np.eye(2)[(x > 1.5).astype(int)]


def by_differences(function, at, step=1e-6):
    return np.stack(
        [(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))],
        axis=-1,
    )


@RIDGES
@pytest.mark.parametrize("shared", [False, True])
def test_gradient_jacobian_and_matrix_are_exact(units, ridge, shared):
    if shared:
        basis, targets = waves()
        at = np.array([1.3, 0.4])
    else:
        basis, targets, params = units
        at = basis.pack(params)
    problem = SquashedProblem(
        basis, targets, jacobian="golub-pereyra", ridge=ridge, rcond=1e-12
    )  # fmt: skip
    phi = basis.features(at)
    coef = np.linalg.solve(phi.T @ phi + ridge * np.eye(phi.shape[1]), phi.T @ targets)
    rest = targets - 1 / (1 + np.exp(-phi @ coef))
    np.testing.assert_allclose(problem.objective(at), 0.5 * np.sum(rest**2), rtol=1e-9)
    np.testing.assert_allclose(problem.residual(at), rest.T.ravel(), atol=1e-8)
    jacobian = problem.dense_jacobian(at)
    np.testing.assert_allclose(jacobian, by_differences(problem.residual, at), atol=1e-7)
    gradient, matrix = problem.linearise(at)
    np.testing.assert_allclose(gradient, by_differences(problem.objective, at), atol=1e-7)
    np.testing.assert_allclose(problem.gradient(at), gradient, atol=1e-12)
    np.testing.assert_allclose(matrix, jacobian.T @ jacobian, atol=1e-10)
    other = problem.dense_jacobian(at, "kaufman")
    assert not np.allclose(other, jacobian, atol=1e-6)
    np.testing.assert_allclose(problem.linearise(at, "kaufman")[1], other.T @ other, atol=1e-10)


def test_a_batch_is_its_problems_and_torch_agrees(units):
    import torch

    _, targets, params = units
    form = make_units("symmetric", (5, 5))
    rng = np.random.default_rng(1)
    images = rng.normal(size=(2, 40, 5, 5))
    starts = np.stack([params, params[:, ::-1]])
    taus = np.stack([targets, targets[::-1]])
    options = {"jacobian": "golub-pereyra", "ridge": 0.1, "rcond": 1e-12}
    for send in (np.asarray, torch.as_tensor):
        together = UnitBasis(form, send(images), send(starts.copy()))
        at = together.pack(send(starts.copy()))
        problem = SquashedProblem(together, send(taus.copy()), **options)
        objective, (gradient, matrix) = problem.objective(at), problem.linearise(at)
        for i in range(2):
            alone = SquashedProblem(UnitBasis(form, images[i], starts[i]), taus[i], **options)
            own = np.asarray(at[i])
            np.testing.assert_allclose(objective[i], alone.objective(own), rtol=1e-12)
            np.testing.assert_allclose(gradient[i], alone.linearise(own)[0], atol=1e-12)
            np.testing.assert_allclose(matrix[i], alone.linearise(own)[1], atol=1e-12)


@pytest.mark.parametrize(
    "solver",
    ["levenberg-marquardt", "minpack", "trust-region", "lbfgs", "gradient-descent", "search"],
)
def test_every_solver_lowers_it(units, solver):
    basis, targets, params = units
    start = basis.pack(params)
    fit = VariableProjection(solver, squash=True, max_iterations=30).fit(basis, targets, start)
    problem = SquashedProblem(
        basis, targets, jacobian="golub-pereyra", ridge=0.0, rcond=40 * 2.3e-16
    )
    assert fit.objective < problem.objective(start)
    np.testing.assert_allclose(fit.objective, problem.objective(fit.params), rtol=1e-9)
    assert type(fit.objective) is float
    assert type(fit.rank) is int


def test_the_units_of_columns_do_not_matter():
    basis, targets = waves()
    scales = np.array([1e-17, 1.0, 1.0])  # under the default rcond, as it stands
    scaled = FunctionBasis(
        lambda t: basis.features(t) * scales,
        lambda t: basis.dphi(t) * scales,
        owner=basis.owner,
        parameter=basis.parameter,
    )
    squashed = VariableProjection(squash=True, max_iterations=5)
    found = [squashed.fit(b, targets, [1.3, 0.4]) for b in (basis, scaled)]
    assert [fit.rank for fit in found] == [3, 3]
    np.testing.assert_allclose(found[1].objective, found[0].objective, rtol=1e-6)


def test_features_that_are_no_numbers_are_never_taken():
    basis = FunctionBasis(
        lambda t: np.full((6, 1), np.exp(t[0])), lambda t: np.full((6, 1), np.exp(t[0])), [0]
    )
    problem = SquashedProblem(basis, np.ones((6, 1)), jacobian="kaufman", ridge=0.0, rcond=1e-12)
    assert problem.objective(np.array([1e4])) == np.inf


def test_what_it_cannot_be_combined_with_is_refused(units):
    basis, targets, params = units
    start = basis.pack(params)
    with pytest.raises(ValueError, match="robust loss can't be combined with squash; leave one"):
        VariableProjection(squash=True, loss="huber")
    squashed = VariableProjection(squash=True)
    for more in ({"weights": np.ones(40)}, {"bounds": (-1, 1)}, {"fixed": ["p0"]}):
        with pytest.raises(ValueError, match="squash takes one data set, and no weights, bounds"):
            squashed.fit(basis, targets, start, **more)
    with pytest.raises(ValueError, match="squash takes one data set"):
        squashed.fit([basis], [targets], start)
    with pytest.raises(ValueError, match="fit_each takes no ridge, no robust loss and no squash"):
        squashed.fit_each(basis, targets, start)
    with pytest.raises(ValueError, match="fit_multistart takes no squash"):
        squashed.fit_multistart(basis, targets, start)
    with pytest.raises(ValueError, match="start has 2 parameters"):
        squashed.fit(basis, targets, [1.0, 2.0])


def test_a_classifier_takes_no_weights_beside_it(digits):
    from rankwise import QuadraticClassifier, Subnetworks

    images, labels = digits[0][:100], digits[1][:100]
    model = QuadraticClassifier(n_units=12, n_subnets=2, subnets=Subnetworks(squash=True))
    with pytest.raises(ValueError, match="squashing inside the functional takes no sample or"):
        model.fit(images, labels, sample_weight=np.linspace(1, 2, 100))
    model.fit(images, labels)
    again = QuadraticClassifier(n_units=12, n_subnets=2, subnets=Subnetworks(squash=True), n_jobs=2)
    np.testing.assert_array_equal(again.fit(images, labels).outputs(images), model.outputs(images))
