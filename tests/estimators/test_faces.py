"""Both classifiers as scikit-learn's users meet them: weights, searches, inputs, probabilities."""

import inspect
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.utils.estimator_checks import parametrize_with_checks

from rankwise import (
    ConvolutionalClassifier,
    FixedRidge,
    GaussNewton,
    GeneralizedCrossValidation,
    Grow,
    LeaveOneOut,
    Prune,
    QuadraticClassifier,
    Refine,
    Subnetworks,
    TrainingOptions,
    UnitForm,
    VarProHead,
    load_model,
)
from rankwise.estimators.options import classifier_of
from rankwise.networks.probabilities import expected_calibration_error
from rankwise.varpro.solvers import LBFGS, LevenbergMarquardt, StoppingRule

SMALL = QuadraticClassifier(n_units=12, n_subnets=2, max_iter=3)
TINY = ConvolutionalClassifier("tiny", n_units=12, unit=UnitForm(rank=1), epochs=12)
BOTH = pytest.mark.parametrize("model", [SMALL, TINY], ids=["quadratic", "convolutional"])
BRIEF = pytest.mark.parametrize(
    "model", [SMALL, clone(TINY).set_params(epochs=1)], ids=["quadratic", "convolutional"]
)
ALL = pytest.mark.parametrize("model", [SMALL, TINY, VarProHead()], ids=["q", "c", "head"])


@parametrize_with_checks(
    [ConvolutionalClassifier("tiny", n_units=40, unit=UnitForm(rank=1), epochs=15)]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def rows(digits):
    chosen = np.flatnonzero(digits[1] < 3)[:240]
    return digits[0][chosen].reshape(240, 64).astype(np.float64), digits[1][chosen]


# -- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [QuadraticClassifier, ConvolutionalClassifier])
def test_a_classifier_has_only_the_parameters_that_it_reads(kind):
    names = set(inspect.signature(kind).parameters)
    assert len(names) <= 16
    documented = kind.__doc__
    for name in names:
        assert f"\n    {name} : " in documented


def test_objects_say_what_strings_say(digits):
    images, labels = digits[0][:200], digits[1][:200]

    def outputs(**parameters):
        return clone(SMALL).set_params(**parameters).fit(images, labels).outputs(images[:20])

    for plain, composed in (
        ({"unit": "bilinear"}, {"unit": UnitForm("bilinear")}),
        ({}, {"subnets": Subnetworks()}),
        ({"ridge": "loo"}, {"ridge": LeaveOneOut()}),
        ({"ridge": "gcv"}, {"ridge": GeneralizedCrossValidation()}),
        ({"ridge": 1e-3}, {"ridge": FixedRidge(1e-3)}),
        ({"refine": 1}, {"refine": (Refine(1),)}),
        (
            {"max_iter": 4},
            {
                "solver": LevenbergMarquardt(stopping=StoppingRule(max_iterations=4, ftol=1e-4)),
                "max_iter": None,
            },
        ),
    ):
        np.testing.assert_array_equal(outputs(**plain), outputs(**composed))


@pytest.mark.parametrize(
    "parameters",
    [
        {"unit": UnitForm(rank=2, bias=False, start="images")},
        {
            "n_subnets": 2,
            "subnets": Subnetworks(samples=60, partition=True, jacobian="kaufman", rcond=1e-3),
        },
        {"subnets": Subnetworks(squash=True)},
        {"ridge": LeaveOneOut(rcond=0.05)},  # the condition is 60: 0.01 cuts nothing
        {"ridge": FixedRidge(0.0, rcond=1e-3, method="tsqr")},
        {"refine": (Grow(4), Prune(0.25), GaussNewton(1))},
        {"refine": Refine(1, augmentation="none")},
        {"solver": LBFGS(max_iterations=5), "max_iter": None},
        {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}},
        {"probabilities": "calibrated"},
        {"random_state": 7},
    ],
    ids=str,
)
def test_composed_choices_change_the_model_and_come_back_from_files(rows, parameters, tmp_path):
    X, y = rows
    plain = clone(SMALL).fit(X, y)
    model = clone(SMALL).set_params(**parameters).fit(X, y)
    same = np.array_equal(model.predict_proba(X), plain.predict_proba(X))
    assert not same, "what is given changes something"
    model.save(tmp_path)
    again = load_model(tmp_path)
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(clone(again).fit(X, y).outputs(X), model.outputs(X))


def test_units_without_a_bias_have_none(rows):
    model = clone(SMALL).set_params(unit=UnitForm(bias=False)).fit(*rows)
    assert not model.network_.params[-1].any()
    assert model.n_parameters_units_ == clone(SMALL).fit(*rows).n_parameters_units_ - 12


def test_a_partition_gives_no_image_to_two_subnetworks():
    from rankwise.training.groups import dealt_samples

    parts = [dealt_samples(103, 2000, 4, 7, g) for g in range(4)]
    assert [len(p) for p in parts] == [25] * 4
    assert len(np.unique(np.concatenate(parts))) == 100
    assert len(dealt_samples(103, 10, 4, 7, 3)) == 10
    with pytest.raises(ValueError, match="an image for each of 4 sub-networks, got 3 images"):
        dealt_samples(3, 10, 4, 7, 0)


def test_truncation_lowers_the_rank(rows):
    X, y = rows
    whole = clone(SMALL).set_params(ridge=1e-6).fit(X, y)
    cut = clone(SMALL).set_params(ridge=FixedRidge(1e-6, rcond=0.05)).fit(X, y)
    assert cut.rank_ < whole.rank_
    subnets = clone(SMALL).set_params(n_subnets=2, subnets=Subnetworks(rcond=0.2)).fit(X, y)
    assert subnets.subnet_reports_[0]["rank"] < 7


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"unit": LeaveOneOut()}, "unit takes a plain value or UnitForm, got LeaveOneOut"),
        ({"n_units": UnitForm()}, "n_units takes a plain value, got UnitForm"),
        (
            {"refine": (Prune(1), Grow(2))},
            "refine takes a number of epochs, or steps in this",
        ),
        ({"refine": ("grow",)}, "Grow, Prune, and Refine or GaussNewton; got"),
        ({"solver": LBFGS()}, "max_iter can't be given beside the solver LBFGS"),
        ({"preset": "tiny"}, "unknown preset 'tiny'; accepted: pereyra, windowed"),
        ({"probabilities": "softmax"}, "probabilities must be 'sum-to-one', 'sigmoid', 'calibr"),
        (
            {"subnets": 3},
            "subnets takes Subnetworks, which say what each is trained on, got 3; their",
        ),
        ({"subnets": Subnetworks(rcond=2.0)}, "rcond must be a share of the largest singular"),
        ({"class_weight": {0: -1.0}}, "class_weight must be finite and at least 0"),
        ({"class_weight": {0: "a"}}, "class_weight must be finite and at least 0"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "class_weight leaves every sample at weight 0; s"),
        *(
            (
                {"class_weight": weight},
                "^class_weight must be None, 'balanced' or a dict of label and weight, got "
                f"{re.escape(repr(weight))}$",
            )
            for weight in ("even", [1, 1, 1], 2)
        ),
        (
            {"class_weight": {"1": 2}},
            "^class_weight names class '1', which the labels don't hold; classes: 0, 1, 2$",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(rows, parameters, message):
    X, y = rows
    model = clone(SMALL).fit(X, np.array(["a", "b", "c"])[y])
    expected = model.predict(X)
    with pytest.raises(ValueError, match=message):
        model.set_params(**parameters).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), expected)


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        (None, {"colour": 1}, "unknown options 'colour'; accepted: preset, unit"),
        (
            None,
            {"squash": True, "probabilities": "calibrated"},
            "squash is probabilities='sig",
        ),
        ("tiny", {"probabilities": "softmax"}, "probabilities must be 'sum-to-one', 'sigmoid', "),
        ("tiny", {"dtype": "float64"}, "preset 'tiny' has convolutional units, which compute in"),
        ("tiny", {"partition": True}, "preset 'tiny' has convolutional units and takes no part"),
    ],
)
def test_options_that_do_not_fit_are_refused(preset, options, message):
    with pytest.raises(ValueError, match=message):
        classifier_of(preset, **options)


def test_single_options_come_to_parameters():
    model = classifier_of(
        unit="symmetric", rank=2, n_subnets=3, jacobian="kaufman", rcond=0.1, grow=2, refine=1
    )
    assert model.unit == UnitForm("symmetric", rank=2)
    assert model.n_subnets == 3
    assert model.subnets == Subnetworks(jacobian="kaufman", rcond=0.1)
    assert model.ridge == GeneralizedCrossValidation(0.1)
    assert model.refine == (Grow(2), Refine(1))
    assert classifier_of(n_subnets=3, ridge=0.1).get_params()["n_subnets"] == 3
    tiny = classifier_of("tiny", max_iter=3, rcond=0.1, ridge=1e-3)
    assert (tiny.epochs, tiny.ridge) == (3, FixedRidge(1e-3, rcond=0.1))
    tiny = classifier_of("tiny", rank=1, activation="gelu", precision="auto", patience=2)
    assert tiny.unit == UnitForm(activation="gelu", rank=1)
    assert tiny.training == TrainingOptions("auto", patience=2)
    assert classifier_of(squash_inside=True).subnets == Subnetworks(squash=True)
    assert classifier_of(dtype="float64").subnets == Subnetworks(dtype="float64")
    assert classifier_of(dtype="auto").subnets is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"unit": "bilinear"},
            r"^preset 'tiny' has convolutional units and takes no unit; unit=UnitForm\(rank=…, "
            r"activation=…\) is accepted$",
        ),
        ({"unit": UnitForm(bias=False)}, r"units and takes no bias; unit=UnitForm\(rank=…, act"),
        ({"unit": UnitForm(start="images")}, r"and takes no start; unit=UnitForm\(rank=…, activ"),
        ({"unit": UnitForm(rank=0)}, "rank must be a whole number"),
        (
            {"training": "fast"},
            "^training takes TrainingOptions, of precision, patience and teacher, got 'fast'; epo",
        ),
        ({"training": Subnetworks()}, "^training takes TrainingOptions, got Subnetworks$"),
        ({"training": TrainingOptions(precision="half")}, "unknown precision 'half'; accepted"),
        ({"training": TrainingOptions(patience=0)}, "patience must be a whole number"),
        ({"ridge": TrainingOptions()}, "ridge takes a plain value or LeaveOneOut, GeneralizedCr"),
    ],
)
def test_choices_that_units_slid_over_the_image_lack_are_refused(rows, parameters, message):
    with pytest.raises(ValueError, match=message):
        clone(TINY).set_params(**parameters).fit(*rows)


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [{}, {"ridge": "loo"}, {"ridge": FixedRidge(0.0, method="tsqr")}, {"refine": Prune(3)}],
    ids=str,
)
def test_weights_are_repetitions(rows, parameters):
    X, y = rows[0][:120], rows[1][:120]
    weights = np.random.default_rng(0).integers(0, 3, 120)
    model = clone(SMALL).set_params(**parameters)
    repeated = clone(model).fit(X.repeat(weights, axis=0), y.repeat(weights)).outputs(X)
    weighted = clone(model).fit(X, y, sample_weight=weights).outputs(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6, atol=1e-7)
    batched = clone(model).set_params(device="cpu:torch").fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(batched.outputs(X), repeated, rtol=1e-3, atol=1e-4)


def test_class_weights_are_by_labels_as_they_are(rows):
    X, y = rows
    expected = clone(SMALL).set_params(class_weight={1: 2}).fit(X, y).outputs(X)
    named = clone(SMALL).set_params(class_weight={"1": 2})
    np.testing.assert_array_equal(named.fit(X, y.astype(str)).outputs(X), expected)
    np.testing.assert_array_equal(named.fit(X, y.astype(str).astype(object)).outputs(X), expected)
    with pytest.raises(ValueError, match="names class 1, which the labels don't hold; classes: '0"):
        clone(SMALL).set_params(class_weight={1: 2}).fit(X, y.astype(str))


@ALL
def test_weights_and_class_weights_multiply(rows, model):
    X, y = rows
    heavy = clone(model).set_params(class_weight={0: 1.0, 1: 1.0, 2: 1e-4}).fit(X, y)
    assert np.mean(heavy.predict(X) == 2) < 0.2
    by_hand = clone(model).fit(X, y, sample_weight=np.array([1.0, 1.0, 1e-4])[y])
    np.testing.assert_allclose(by_hand.outputs(X), heavy.outputs(X), atol=2e-3)
    balanced = clone(model).set_params(class_weight="balanced").fit(X, y)
    assert balanced.score(X, y) > 0.7


@BOTH
def test_a_refinement_and_units_together_count_weights(rows, model):
    X, y = rows
    model = clone(model).set_params(refine=2) if model is SMALL else model
    plain = clone(model).fit(X, y)
    zeros = np.where(y == 2, 0.0, 1.0)
    without = clone(model).fit(X, y, sample_weight=zeros)
    assert set(without.predict(X)) <= {0, 1}
    np.testing.assert_array_equal(
        clone(model).fit(X, y, sample_weight=np.full(len(y), 3.0)).outputs(X), plain.outputs(X)
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"sample_weight has shape \(3,\); one for each sample, \(240,\)"),
        (-np.ones(240), "must be finite and at least 0"),
        (np.full(240, np.nan), "must be finite and at least 0"),
        (np.zeros(240), "sample_weight is zero for every sample"),
    ],
)
def test_weights_that_are_none(rows, weights, message):
    with pytest.raises(ValueError, match=message):
        clone(SMALL).fit(*rows, sample_weight=weights)


def test_gauss_newton_refuses_weights(rows):
    model = clone(SMALL).set_params(refine=GaussNewton(1))
    with pytest.raises(ValueError, match="Gauss–Newton steps count every image once"):
        model.fit(*rows, sample_weight=1.0 + rows[1])


# -- scikit-learn's tools -------------------------------------------------------------------------


@ALL
def test_a_search_on_two_workers(rows, model):
    grid = {
        QuadraticClassifier: {"unit": ["bilinear", UnitForm(rank=2)]},
        ConvolutionalClassifier: {"unit": [UnitForm(rank=1), UnitForm(rank=2)]},
        VarProHead: {"alpha": [1.0, 10.0]},
    }[type(model)]
    search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(*rows)
    assert search.score(*rows) > 0.8


@ALL
def test_cross_validated_probabilities_calibration_and_stacking(rows, model):
    X, y = rows
    found = cross_val_predict(model, X, y, cv=3, method="predict_proba")
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.mean(found.argmax(axis=1) == y) > 0.6
    assert CalibratedClassifierCV(model, cv=2).fit(X, y).score(X, y) > 0.6
    stack = StackingClassifier([("own", model)], LogisticRegression(), cv=2)
    assert stack.fit(X, y).score(X, y) > 0.6
    fitted = clone(model).fit(X, y)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), fitted.predict_proba(X))
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


@ALL
def test_weights_are_routed(rows, model):
    X, y = rows
    weights = np.where(y == 2, 0.0, 1.0)
    with config_context(enable_metadata_routing=True):
        asked = clone(model).set_fit_request(sample_weight=True)
        asked.set_score_request(sample_weight=False)
        params = {"sample_weight": weights}
        found = cross_validate(asked, X, y, cv=2, params=params, return_estimator=True)
    for estimator in found["estimator"]:
        assert 2 not in estimator.predict(X)


@ALL
def test_tables_and_tensors(rows, model):
    pandas = pytest.importorskip("pandas")
    X, y = rows
    expected = clone(model).fit(X, y).outputs(X)
    columns = [f"p{i}" for i in range(64)]
    frame, series = pandas.DataFrame(X, columns=columns), pandas.Series(y)
    of_frame = clone(model).fit(frame, series)
    np.testing.assert_allclose(of_frame.outputs(frame), expected, rtol=1e-12)
    assert of_frame.feature_names_in_.tolist() == columns
    of_tensor = clone(model).fit(torch.from_numpy(X), torch.from_numpy(y))
    np.testing.assert_allclose(of_tensor.outputs(torch.from_numpy(X)), expected, rtol=1e-12)


@BRIEF
def test_tables_and_lists_of_bytes_are_images_of_bytes(digits, model):
    pandas = pytest.importorskip("pandas")
    images, labels = digits[0][:150], digits[1][:150]
    expected = clone(model).fit(images, labels)
    outputs = expected.outputs(images)
    frame = pandas.DataFrame(images.reshape(150, 64), columns=[f"p{i}" for i in range(64)])
    for X in (frame, list(images), tuple(images)):
        fitted = clone(model).fit(X, labels)
        np.testing.assert_array_equal(fitted.outputs(X), outputs)
        assert fitted._fitted_on_uint8
        np.testing.assert_array_equal(fitted.predict(images), expected.predict(images))
    assert not clone(model).fit(images.tolist(), labels)._fitted_on_uint8
    # A column of another type makes the table one of numbers, as an array of both would be.
    assert not clone(model).fit(frame.astype({"p0": float}), labels)._fitted_on_uint8


@BRIEF
def test_tensors_of_bytes_are_images_of_bytes(digits, model):
    images, labels = digits[0][:150], digits[1][:150]
    expected = clone(model).fit(images, labels).outputs(images)
    tensors = torch.from_numpy(images), torch.from_numpy(labels)
    np.testing.assert_array_equal(clone(model).fit(*tensors).outputs(tensors[0]), expected)
    for X in (list(tensors[0]), [Image.fromarray(image) for image in images]):
        np.testing.assert_array_equal(clone(model).fit(X, labels).outputs(X), expected)
    with pytest.raises(
        ValueError, match=r"image 0 is one of PIL's of mode 'P'; modes 'L' and 'RGB'"
    ):
        clone(model).fit([image.convert("P") for image in X], labels)


# -- probabilities --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        QuadraticClassifier(max_iter=4, probabilities="calibrated"),
        QuadraticClassifier(max_iter=4, refine=2, probabilities="calibrated"),
        ConvolutionalClassifier("tiny", epochs=4, probabilities="calibrated"),
    ],
    ids=["left out", "validation", "convolutional"],
)
def test_calibrated_probabilities_mean_something(digits, model):
    images, labels = digits
    fitted = clone(model).fit(images[:800], labels[:800])
    plain = clone(fitted).set_params(probabilities="sum-to-one")
    plain = plain.fit(images[:800], labels[:800]) if type(model) is QuadraticClassifier else None
    error = expected_calibration_error(fitted.predict_proba(images[800:]), labels[800:])
    assert error < 0.1
    if plain is not None:
        np.testing.assert_array_equal(plain.outputs(images), fitted.outputs(images))
        worse = expected_calibration_error(plain.predict_proba(images[800:]), labels[800:])
        assert error < worse


def test_left_out_outputs_are_those_of_refitting():
    from rankwise.linear.left_out import left_out_outputs

    rng = np.random.default_rng(0)
    phi, targets = rng.standard_normal((30, 5)), np.eye(3)[rng.integers(3, size=30)]
    found = left_out_outputs(lambda rows: phi[rows], targets, 0.7)
    for i in range(30):
        rest = np.arange(30) != i
        gram = phi[rest].T @ phi[rest] + 0.7 * np.eye(5)
        expected = phi[i] @ np.linalg.solve(gram, phi[rest].T @ targets[rest])
        np.testing.assert_allclose(found[i], expected, rtol=1e-9)


def test_a_temperature_needs_a_fit(rows):
    model = clone(SMALL).fit(*rows).set_params(probabilities="calibrated")
    with pytest.raises(ValueError, match="needs a fit with it"):
        model.predict_proba(rows[0])


def test_probabilities_that_nobody_knows_are_refused_after_a_fit_too(rows):
    message = "^probabilities must be 'sum-to-one', 'sigmoid', 'calibrated' or None, got 'softmax'$"
    model = clone(SMALL).fit(*rows).set_params(probabilities="softmax")
    for call in (lambda: model.predict_proba(rows[0]), model.as_graph):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("how", ["sum-to-one", "sigmoid"])
def test_least_squares_probabilities_need_the_glue(digits, how):
    model = clone(TINY).set_params(probabilities=how).fit(digits[0][:250], digits[1][:250])
    assert model.output_layer_ == "glue"
    assert model.as_graph().output == how


# -- models of earlier versions --------------------------------------------------------------------

OLD = Path(__file__).parent / "models_of_0_1"
THIRD = Path(__file__).parent / "models_of_format_3"


@pytest.mark.parametrize(
    "folder",
    [
        *(OLD / name for name in ("windowed", "selected", "refined", "convolutional", "head")),
        *(THIRD / name for name in ("units", "convolutional")),
    ],
    ids=lambda folder: f"{folder.parent.name}, {folder.name}",
)
def test_models_of_earlier_versions_still_load(folder):
    expected = np.load(folder / "expected.npz")
    model = load_model(folder)
    assert model.classes_.tolist() == expected["classes"].tolist()
    for found, known in (
        (model.outputs(expected["images"]), expected["outputs"]),
        (model.predict_proba(expected["images"]), expected["probabilities"]),
    ):
        np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-6)


def test_parameters_of_version_0_1_have_their_place():
    selected = load_model(OLD / "selected")
    assert selected.preset == "pereyra"
    assert selected.n_subnets == 1
    assert selected.subnets == Subnetworks(samples=90)
    assert selected.refine == (Grow(2), Prune(0.2))
    assert selected.probabilities == "sigmoid"
    refined = load_model(OLD / "refined")
    assert refined.unit == UnitForm("bilinear", window=(0.4, 0.9))
    assert (refined.dtype, refined.refine) == ("float64", 1)
    convolutional = load_model(OLD / "convolutional")
    assert (convolutional.preset, convolutional.epochs) == ("tiny", 1)
    assert convolutional.unit == UnitForm(rank=1)


def test_parameters_that_stood_alone_in_format_3_have_their_place(tmp_path):
    units, convolutional = (load_model(THIRD / name) for name in ("units", "convolutional"))
    assert units.subnets == Subnetworks(samples=30, dtype="float64")
    assert (convolutional.n_units, convolutional.epochs) == (4, 1)
    assert convolutional.unit == UnitForm(rank=1, activation="gelu")
    assert convolutional.training == TrainingOptions("bfloat16", patience=3)
    assert convolutional.random_state is None, "what is None is not the default"
    for model in (units, convolutional):
        model.save(tmp_path / model.family)
        assert load_model(tmp_path / model.family).get_params() == model.get_params()


def test_a_solver_of_one_s_own_is_not_written(rows, tmp_path):
    class Own(LevenbergMarquardt):
        pass

    model = clone(SMALL).set_params(solver=Own(), max_iter=None).fit(*rows)
    with pytest.raises(ValueError, match="a parameter is of type Own, which no model file holds"):
        model.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        np.float64(0.5),
        "x",
        (0.4, (1, [2, "a"])),
        [1, (2, 3)],
        float("inf"),
        Path("a") / "b",
        {1: (2, 3)},
        Subnetworks(samples=90),
        (Grow(2), Prune(0.2)),
    ],
    ids=repr,
)
def test_parameters_come_back_from_json_with_their_types(value):
    from rankwise.estimators._choices_json import from_json, to_json

    found = from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))
    assert found == value
    assert type(found) is (float if isinstance(value, np.generic) else type(value))


def test_neither_order_nor_repeats_of_images_change_convolutional_units(rows):
    images, labels = rows[0][:60].reshape(-1, 8, 8), rows[1][:60]
    mixed = np.random.default_rng(5).permutation(np.repeat(np.arange(60), 2))
    model = clone(TINY).fit(images, labels)
    again = clone(TINY).fit(images[mixed], labels[mixed])
    assert (model.outputs(images) == again.outputs(images)).all(), "to the bit"
    # One image under two labels is two samples.
    both = clone(TINY).fit([*images, images[0]], [*labels, (labels[0] + 1) % 3])
    assert (both.outputs(images) != model.outputs(images)).any()
