"""Options that only sub-networks have: starts from images, growing, pruning, Gauss–Newton."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from rankwise import Prune, load_model
from rankwise.estimators.options import classifier_of
from rankwise.networks.quadratic import glue

RIDGE, N = 1e-3, 500
BASE = {"n_units": 30, "n_subnets": 2, "max_iter": 2, "ridge": RIDGE, "dtype": "float64"}


def fit(digits, **options):
    return classifier_of(**(BASE | options)).fit(digits[0][:N], digits[1][:N])


@pytest.fixture(scope="module")
def plain(digits):
    return fit(digits)


def objective(model, digits):
    """``‖τ − ΦA‖² + μ‖A‖²`` of a fitted network on its training images."""
    targets = np.eye(10)[digits[1][:N]]
    coef = model.network_.coef
    return np.sum((targets - model.outputs(digits[0][:N])) ** 2) + RIDGE * N * np.sum(coef**2)


def first_objective(digits, start, seed):
    options = {"n_subnets": 1, "max_iter": 0, "window": (0.3, 0.7), "random_state": seed}
    model = fit(digits, start=start, **options)
    return model.subnet_reports_[0]["objective"]


def test_units_that_start_from_images_start_lower(digits):
    random, images = (
        np.mean([first_objective(digits, start, seed) for seed in range(6)])
        for start in ("gaussian", "images")
    )
    assert images < 0.98 * random
    assert first_objective(digits, None, 0) == first_objective(digits, "gaussian", 0)


def test_pruning_raises_the_objective_by_what_it_said(plain, digits):
    before = objective(plain, digits)
    for prune in (10, 1 / 3):
        model = fit(digits, prune=prune)
        assert model.network_.n_units == 20
        assert model.selection_["pruned"] == 10
        rise = objective(model, digits) / before - 1
        assert rise == pytest.approx(model.selection_["rise"], rel=1e-6)
        assert 0 < rise < 0.3
        assert model.n_parameters_units_ < plain.n_parameters_units_
        kept = {tuple(unit) for unit in plain.network_.params.T}
        assert {tuple(unit) for unit in model.network_.params.T} < kept
    # Units chosen at random are missed more.
    random = plain.network_.params[:, np.random.default_rng(0).permutation(30)[:20]]
    targets = np.eye(10)[digits[1][:N]]
    network, _ = glue(
        plain.network_.units, random, digits[0][:N], targets, ridge=RIDGE * N, dtype="float64"
    )
    residual = targets - network.outputs(digits[0][:N])
    assert np.sum(residual**2) + RIDGE * N * np.sum(network.coef**2) > objective(model, digits)


def test_growing_lowers_the_objective_by_what_it_said(plain, digits):
    model = fit(digits, grow=10)
    assert model.network_.n_units == 40
    fall = 1 - objective(model, digits) / objective(plain, digits)
    assert fall == pytest.approx(model.selection_["gain"], rel=1e-6)
    assert fall > 0.05
    np.testing.assert_array_equal(model.network_.params[:, :30], plain.network_.params)
    two = fit(digits, grow=10, n_jobs=2)
    np.testing.assert_array_equal(two.network_.coef, model.network_.coef)


def test_units_join_before_others_are_left_out(plain, digits):
    model = fit(digits, grow=10, prune=10)
    assert model.network_.n_units == 30
    assert set(model.selection_) == {"grown", "gain", "pruned", "rise"}
    assert objective(model, digits) < objective(plain, digits)
    assert model.seconds_["selection"] > 0
    assert plain.selection_ == {}


def test_gauss_newton_lowers_the_objective_of_all_units(plain, digits):
    model = fit(digits, prune=10, refine=2, refine_solver="gauss-newton")
    falls = [entry["objective"] for entry in model.history_]
    assert [entry["iteration"] for entry in model.history_] == [0, 1, 2]
    pruned = fit(digits, prune=10)
    # Its functional is half of the glue's, on the same images with the same ridge.
    assert falls[0] == pytest.approx(objective(pruned, digits) / 2, rel=1e-6)
    assert falls[-1] == pytest.approx(objective(model, digits) / 2, rel=1e-6)
    assert falls[-1] < 0.9 * falls[0]
    assert model.n_parameters_units_ == pruned.n_parameters_units_
    again = fit(digits, prune=10, refine=2, refine_solver="gauss-newton", n_jobs=2)
    np.testing.assert_array_equal(again.network_.coef, model.network_.coef)


def test_gauss_newton_draws_images_where_not_all_fit(digits, monkeypatch):
    from rankwise.training import refinement

    seen = []
    original = refinement.refine_newton
    monkeypatch.setattr(refinement, "MOST_NUMBERS", 100 * (64 + 6))
    monkeypatch.setattr(
        refinement,
        "refine_newton",
        lambda *a, **k: seen.append(a[3].shape) or original(*a, **k),
    )
    fit(digits, n_units=6, refine=1, refine_solver="gauss-newton")
    assert seen == [(100, 10)]


def test_selected_models_are_saved_searched_and_bootstrapped(digits, tmp_path):
    images, labels = digits[0][:200], digits[1][:200]
    options = {"start": "images", "grow": 4, "prune": 0.25, "n_units": 12, "n_subnets": 2}
    model = classifier_of(**(BASE | options)).fit(images, labels)
    model.save(tmp_path)
    again = load_model(tmp_path)
    np.testing.assert_array_equal(again.outputs(images), model.outputs(images))
    assert again.selection_ == model.selection_
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.fit(images, labels).outputs(images), model.outputs(images))
    assert clone(model).get_params() == model.get_params()
    result = model.bootstrap_transductive(digits[0][200:300])
    assert result.classifier.network_.n_units == model.network_.n_units == 12
    grid = {"refine": [None, Prune(20)]}
    search = GridSearchCV(classifier_of(**BASE), grid, cv=2).fit(images, labels)
    assert search.best_params_["refine"] is None, "ten units do worse than thirty"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "patches"}, "unknown start 'patches'; accepted: gaussian, images"),
        ({"grow": -1}, "grow must be a whole number at least 0, got -1"),
        ({"prune": -2}, "prune must be a whole number of units at least 0, or a share under 1"),
        ({"prune": True}, "prune must be a whole number of units at least 0, or a share under 1"),
        ({"prune": 1.0}, "or a share under 1, got 1.0"),
        ({"prune": np.nan}, "or a share under 1, got nan"),
        ({"prune": "half"}, "or a share under 1, got 'half'"),
        ({"prune": 30}, "prune must leave at least one unit; it asks for 30 of the 30 left out"),
        ({"prune": 0.99}, "it asks for 30 of the 30 left out"),
        ({"refine": 2, "refine_solver": "sgd"}, "unknown refine_solver 'sgd'; accepted: adamw"),
        ({"refine_solver": "adamw"}, "refine_solver 'adamw' needs refine, the number of its"),
        ({"ridge": 0, "prune": 3}, "prune need a ridge above 0, got ridge=0; give a larger"),
        ({"ridge": 0.0, "grow": 3, "prune": 3}, "grow and prune need a ridge above 0"),
        (
            {"ridge": 0.0, "refine": 1, "refine_solver": "gauss-newton"},
            "refine_solver need a ridge above 0",
        ),
    ],
)
def test_what_is_not_accepted(digits, options, message):
    with pytest.raises(ValueError) as error:
        fit(digits, **options)
    assert message in str(error.value)


@pytest.mark.parametrize("options", [{"start": "images"}, {"grow": 2}, {"prune": 2}])
def test_convolutional_presets_have_none_of_them(digits, options):
    message = f"preset 'tiny' has convolutional units and takes no {next(iter(options))}"
    with pytest.raises(ValueError, match=message):
        classifier_of("tiny", **options).fit(digits[0][:60], digits[1][:60])
