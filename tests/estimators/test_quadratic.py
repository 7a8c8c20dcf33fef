"""`QuadraticClassifier` as a scikit-learn user meets it."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rankwise import load_images, load_model
from rankwise._device import resolve_device
from rankwise.estimators.options import classifier_of
from rankwise.training.bootstrap import guess_labels
from rankwise.training.network_planning import sized_to_data
from rankwise.training.presets import PRESETS

SMALL = {"n_units": 10, "n_subnets": 1, "max_iter": 4}


@parametrize_with_checks([classifier_of(**SMALL)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def fitted(digits):
    images, labels = digits
    return classifier_of(n_subnets=2, max_iter=5).fit(images[:600], labels[:600])


def test_it_learns(fitted, digits):
    images, labels = digits
    assert fitted.score(images[600:], labels[600:]) > 0.88
    assert fitted.classes_.tolist() == list(range(10))
    assert fitted.image_shape_ == (8, 8)
    assert fitted.n_features_in_ == 64


def test_a_fit_says_how_it_ended(fitted):
    assert fitted.status_ in ("converged", "max-iterations")
    assert sum(fitted.statuses_.values()) == len(fitted.subnet_reports_) == 2
    assert fitted.n_iter_ <= 5
    assert fitted.rank_ == 101
    assert fitted.condition_ > 1
    assert fitted.ridge_ > 0
    assert set(fitted.seconds_) == {"subnets", "glue", "total", "earlier"}
    assert fitted.n_parameters_units_ < 100 * 17, "windowed units fit only what they see"
    assert fitted.n_parameters_total_ == fitted.n_parameters_units_ + 101 * 10


def test_probabilities_sum_to_one_and_agree_with_the_prediction(fitted, digits):
    images, _ = digits
    for how in (None, "sum-to-one", "sigmoid"):
        model = copy.deepcopy(fitted).set_params(probabilities=how)
        probabilities = model.predict_proba(images[:50])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert probabilities.min() >= 0
        np.testing.assert_array_equal(probabilities.argmax(axis=1), model.predict(images[:50]))
        assert model.decision_function(images[:50]).shape == (50, 10)


def test_images_and_flat_rows_give_the_same_model(digits):
    images, labels = digits
    a = classifier_of(**SMALL).fit(images[:200], labels[:200])
    b = classifier_of(**SMALL).fit(images[:200].reshape(200, 64), labels[:200])
    np.testing.assert_array_equal(a.outputs(images), b.outputs(images.reshape(-1, 64)))
    np.testing.assert_array_equal(a.outputs(images), a.outputs(images.reshape(-1, 64)))


def test_pixels_keep_the_scale_of_the_fit_whatever_their_type(digits):
    images, labels = digits
    on_bytes = classifier_of(**SMALL).fit(images[:200], labels[:200])
    expected = on_bytes.outputs(images[200:300])
    for other in (images.astype(int), images.astype(float), images.astype(np.float32)):
        np.testing.assert_allclose(on_bytes.outputs(other[200:300]), expected, atol=1e-4)
    on_floats = classifier_of(**SMALL).fit(images[:200].astype(np.float32), labels[:200])
    np.testing.assert_array_equal(
        on_floats.outputs(images[200:300]),
        on_floats.outputs(images[200:300].astype(np.float32)),
    )


def test_the_same_seed_gives_the_same_model_whatever_the_workers(digits):
    images, labels = digits
    options = SMALL | {"n_units": 20, "n_subnets": 2}
    one = classifier_of(**options).fit(images[:200], labels[:200])
    two = classifier_of(**options, n_jobs=2).fit(images[:200], labels[:200])
    other = classifier_of(**options, random_state=1).fit(images[:200], labels[:200])
    np.testing.assert_array_equal(one.network_.params, two.network_.params)
    np.testing.assert_array_equal(one.network_.coef, two.network_.coef)
    assert not np.array_equal(one.network_.params, other.network_.params)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_random_states_of_scikit_learn(digits, random_state):
    images, labels = digits
    first, second = (
        classifier_of(**SMALL).set_params(random_state=random_state).fit(images[:100], labels[:100])
        for _ in range(2)
    )
    # None draws anew, and a RandomState goes on.
    assert not np.array_equal(first.network_.params, second.network_.params)
    again = classifier_of(**SMALL, random_state=np.random.RandomState(0))
    equal = again.fit(images[:100], labels[:100]).network_.params
    same = clone(again).set_params(random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(same.fit(images[:100], labels[:100]).network_.params, equal)


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "symmetric"},
        {"unit": "bilinear", "rank": 2},
        {"unit": "multilinear"},
        {"activation": "logistic"},
        {"window": False},
        {"window": (0.4, 0.8)},
        {"samples_per_subnet": 50},
        {"solver": "lbfgs"},
        {"solver": "minpack", "n_units": 4},
        {"solver": "gradient-descent"},
        {"solver": "search", "max_iter": 40},
        {"jacobian": "kaufman"},
        {"tol": 0.5},
        {"ridge": 1e-3},
        {"ridge": "loo"},
        {"ridge": 0.0, "glue_method": "tsqr"},
        {"glue_method": "gram"},
        {"dtype": "float64"},
        {"device": "cpu:torch"},
        {"device": "auto"},
        {"preset": "windowed"},
        {"preset": "pereyra"},
        {"activation": "relu"},
        {"refine": 2},
        {"verbose": 1},
    ],
    ids=str,
)
def test_every_option(digits, options, capsys):
    images, labels = digits
    model = classifier_of(**(SMALL | options)).fit(images[:300], labels[:300])
    assert model.score(images[:300], labels[:300]) > 0.3
    assert ("sub-networks" in capsys.readouterr().err) == ("verbose" in options)


def test_image_shape_of_flat_rows():
    rng = np.random.default_rng(0)
    rows, y = rng.random((60, 4 * 6 * 3)), rng.integers(2, size=60)
    model = classifier_of(**SMALL, image_shape=(4, 6, 3)).fit(rows, y)
    assert model.image_shape_ == (4, 6, 3)
    assert classifier_of(**SMALL).fit(rows[:, :49], y).image_shape_ == (7, 7)
    assert classifier_of(**SMALL).fit(rows, y).image_shape_ == (1, 72)


def test_colour_images_and_string_labels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (80, 6, 6, 3), dtype=np.uint8)
    names = np.array(["red", "green"])[(images[..., 0].mean((1, 2)) < 127).astype(int)]
    model = classifier_of(**SMALL, unit="colour").fit(images, names)
    assert set(model.predict(images)) <= {"red", "green"}
    assert model.decision_function(images).shape == (80,)
    np.testing.assert_array_equal(
        model.predict(images) == "red", model.decision_function(images) > 0
    )


def test_an_image_set_is_accepted():
    images = load_images("digits", split="train", limit=100)
    model = classifier_of(**SMALL).fit(images, images.labels)
    assert model.predict(images).shape == (100,)


def test_grid_search_pipeline_clone_and_pickle(digits):
    images, labels = digits
    rows = images[:150].reshape(150, 64).astype(float)
    search = GridSearchCV(classifier_of(**SMALL), {"n_units": [4, 8]}, cv=2)
    search.fit(rows, labels[:150])
    assert search.best_params_["n_units"] in (4, 8)
    pipeline = make_pipeline(StandardScaler(), classifier_of(**SMALL)).fit(rows, labels[:150])
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(pipeline.predict(rows), again.predict(rows))
    assert clone(pipeline[-1]).get_params() == pipeline[-1].get_params()


def test_an_interrupted_fit_goes_on(digits, tmp_path, monkeypatch):
    from rankwise.training import subnetworks

    images, labels = digits[0][:200], digits[1][:200]
    options = SMALL | {"n_units": 30, "n_subnets": 3}
    whole = classifier_of(**options).fit(images, labels)
    original, calls = subnetworks.train_subnet, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(subnetworks, "train_subnet", interrupted)
    model = classifier_of(**options)
    with pytest.raises(KeyboardInterrupt):
        model.fit(images, labels, checkpoint_dir=tmp_path)
    model.fit(images, labels, checkpoint_dir=tmp_path)
    assert len(calls) == 4
    np.testing.assert_array_equal(whole.network_.coef, model.network_.coef)


# -- bootstrapping ------------------------------------------------------------------------------


def test_bootstrapping_is_transductive_and_keeps_the_three_numbers_apart(fitted, digits):
    images, labels = digits[0][600:1000], digits[1][600:1000]
    before = fitted.outputs(images).copy()
    result = fitted.bootstrap_transductive(images, labels)
    np.testing.assert_array_equal(fitted.outputs(images), before)
    report = result.report
    assert report.inductive_accuracy == fitted.score(images, labels)
    assert report.agreement_with_guesses == np.mean(result.labels == result.guesses)
    assert report.transductive_accuracy == np.mean(result.labels == labels)
    assert report.guess_accuracy == np.mean(result.guesses == labels)
    assert 0 < report.ambiguous_fraction < 1
    np.testing.assert_array_equal(result.classifier.predict(images), result.labels)


def test_bootstrapping_keeps_the_scale_of_the_fit_whatever_the_type(fitted, digits):
    images, labels = digits[0][600:800], digits[1][600:800]
    assert images.dtype == np.uint8
    result = fitted.bootstrap_transductive(images, labels)
    floats = fitted.bootstrap_transductive(images.astype(float), labels)
    assert floats.report == result.report
    np.testing.assert_array_equal(floats.labels, result.labels)


def test_true_labels_never_reach_the_bootstrap_training(fitted, digits):
    images, labels = digits[0][600:800], digits[1][600:800]
    honest = fitted.bootstrap_transductive(images, labels)
    blind = fitted.bootstrap_transductive(images)
    shuffled = fitted.bootstrap_transductive(images, labels[::-1])
    for other in (blind, shuffled):
        np.testing.assert_array_equal(
            honest.classifier.network_.coef, other.classifier.network_.coef
        )
    assert blind.report.transductive_accuracy is None
    assert blind.report.guess_accuracy is None


def test_a_second_round_goes_on_from_the_first_and_its_guesses(fitted, digits, tmp_path):
    images, labels = digits[0][600:800], digits[1][600:800]
    once = fitted.bootstrap_transductive(images, labels)
    twice = fitted.bootstrap_transductive(images, labels, rounds=2, folder=tmp_path / "parts")
    assert once.rounds == (once.report,)
    assert twice.rounds[0] == once.report
    assert twice.rounds[1] == twice.report
    assert twice.report.inductive_accuracy == fitted.score(images, labels)
    rng = np.random.default_rng([fitted._seed, 2])
    guesses, _ = guess_labels(once.classifier.outputs(images), rng)
    np.testing.assert_array_equal(twice.guesses, fitted.classes_[guesses])
    by_hand = fitted._gone_on(once.classifier, images, guesses, fitted._seed + 2, None)
    np.testing.assert_array_equal(by_hand.network_.coef, twice.classifier.network_.coef)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "parts-2"]
    resumed = fitted.bootstrap_transductive(images, labels, rounds=2, folder=tmp_path / "parts")
    np.testing.assert_array_equal(resumed.classifier.network_.coef, twice.classifier.network_.coef)
    for rounds in (0, 1.5, "2", True):
        with pytest.raises(ValueError, match="rounds must be a whole number at least 1, got"):
            fitted.bootstrap_transductive(images, rounds=rounds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": np.arange(20)[:, None] * [1, 1]}, "y should be a 1d array, got an array of shape "),
        ({"y": np.arange(19)}, "y has 19 labels for 20 images; one for each image is accepted"),
        (
            {"y": np.arange(20).astype(str)},
            "y holds labels such as '0', and the classes are labels such as 0; labels of one kind "
            "are accepted",
        ),
        *(
            ({"margin": margin}, f"margin must be a finite number at least 0, got {margin!r}")
            for margin in (float("nan"), float("inf"), -0.1, "a", True, None)
        ),
    ],
)
def test_bootstrapping_refuses_what_does_not_fit_before_it_trains(
    fitted, digits, arguments, message, monkeypatch
):
    monkeypatch.setattr(type(fitted), "_gone_on", None)
    with pytest.raises(ValueError) as error:
        fitted.bootstrap_transductive(digits[0][:20], **arguments)
    assert str(error.value).startswith(message)


def test_true_labels_in_a_column_are_taken(fitted, digits):
    images, labels = digits[0][600:650], digits[1][600:650]
    expected = fitted.bootstrap_transductive(images, labels).report
    assert fitted.bootstrap_transductive(images, labels[:, None]).report == expected


def test_bootstrapping_needs_the_fit_of_this_process(fitted, digits, tmp_path):
    fitted.save(tmp_path)
    with pytest.raises(ValueError, match="a loaded model holds only the assembled network"):
        load_model(tmp_path).bootstrap_transductive(digits[0][:50])


# -- presets and sizes ----------------------------------------------------------------------------


def test_the_paper_s_table_3():
    preset = PRESETS["pereyra"]
    assert (preset.n_units, preset.n_subnets, preset.samples_per_subnet) == (5200, 104, 2000)
    assert (preset.unit, preset.jacobian, preset.n_train) == ("symmetric", "kaufman", 50_000)


def test_sizes_follow_the_data():
    assert [sized_to_data(n) for n in (1, 500, 1000, 10**6)] == [1, 1, 2, 40]


def test_counts_that_follow_from_one_another(digits):
    images, labels = digits[0][:60], digits[1][:60]
    one = classifier_of(n_units=120, max_iter=1).fit(images, labels)
    assert len(one.subnet_reports_) == 2
    assert one.network_.params.shape[1] == 120
    many = classifier_of(n_units=175, max_iter=1).fit(images, labels)
    assert len(many.subnet_reports_) == 5
    slow = classifier_of(n_units=4, solver="gradient-descent").fit(images, labels)
    assert slow.n_iter_ > 6, "another solver has a budget of its own"
    prime = classifier_of(n_units=np.int64(53), max_iter=1).fit(images, labels)
    assert len(prime.subnet_reports_) == 1
    assert len(classifier_of(n_units=101, max_iter=0).fit(images, labels).statuses_) == 1
    two = classifier_of(preset="windowed", n_subnets=2, max_iter=1).fit(images, labels)
    assert two.network_.params.shape[1] == 100


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, "unknown preset 'best'; accepted: pereyra, windowed"),
        ({"n_units": 7, "n_subnets": 2}, "n_units must be a multiple of n_subnets, got 7 units"),
        ({"n_units": 0}, "n_units must be a whole number at least 1, got 0"),
        ({"n_subnets": 0.5}, "n_subnets must be a whole number at least 1, got 0.5"),
        ({"samples_per_subnet": 0}, "samples_per_subnet must be a whole number at least 1, got 0"),
        ({"dtype": "float16"}, "dtype must be 'auto', 'float32' or 'float64', got 'float16'"),
        ({"window": True}, "window must be two fractions, False or None, got True"),
        ({"window": 0.5}, "window must be two fractions, False or None, got 0.5"),
        ({"max_iter": -3}, "max_iter must be a whole number at least 0, got -3"),
        ({"max_iter": 2.5}, "max_iter must be a whole number at least 0, got 2.5"),
        ({"tol": -1.0}, "tol must be a number at least 0, got -1.0"),
        ({"ridge": -1.0}, "ridge must be a number at least 0, 'gcv' or 'loo', got -1.0"),
        ({"ridge": np.nan}, "ridge must be a number at least 0, 'gcv' or 'loo', got nan"),
        ({"activation": "relu6"}, "unknown activation 'relu6'; accepted: tanh, logistic"),
        ({"image_shape": (3, 3)}, r"image_shape \(3, 3\) has 9 pixels, but X has 64 a sample"),
        ({"unit": "colour"}, "needs colour images"),
        ({"solver": "adam"}, "unknown solver 'adam'"),
        ({"jacobian": "exact"}, "unknown jacobian 'exact'"),
        ({"ridge": "best"}, "ridge must be a number at least 0, 'gcv' or 'loo'"),
        ({"glue_method": "qr"}, "unknown method 'qr'"),
        ({"device": "tpu"}, "device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
        ({"random_state": -1}, r"random_state must be a whole number from 0 to .*, got -1$"),
        ({"random_state": 2**63}, r"random_state must be a whole number from 0 to 2\*\*63 - 1"),
    ],
)
def test_bad_parameters(digits, options, message):
    with pytest.raises(ValueError, match=message):
        classifier_of(**(SMALL | options)).fit(digits[0][:40], digits[1][:40])


def test_bad_data(fitted, digits):
    images, labels = digits
    with pytest.raises(ValueError, match="only one class is present: found only 3"):
        classifier_of().fit(images[:10], np.full(10, 3))
    with pytest.raises(ValueError, match=r"images have shape \(8, 7\), but the model was fitted"):
        fitted.predict(images[:, :, :7])
    with pytest.raises(ValueError, match="NaN"):
        classifier_of().fit(np.full((10, 4, 4), np.nan), labels[:10])


@pytest.mark.parametrize("preset", [None, "tiny", "pereyra"])
@pytest.mark.parametrize("sign", [1, -1])
def test_values_too_large_to_be_squared_are_refused(digits, preset, sign):
    images, labels = digits[0][:60] / digits[0].max(), digits[1][:60]
    message = r"X holds values up to 1e\+308 in size; up to 1e\+30 is accepted: scale them first"
    with pytest.raises(ValueError, match=message):
        classifier_of(preset).fit(images * (sign * 1e308), labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [SMALL, {"preset": "tiny", "max_iter": 1}], ids=str)
def test_the_largest_accepted_values_work(digits, dtype, options):
    images, labels = digits[0][:200] / digits[0].max() * 0.99e30, digits[1][:200]
    images = images.astype(dtype)
    model = classifier_of(**options).fit(images, labels)
    assert model.status_ != "non-finite"
    assert model.score(images, labels) > 0.5
    with pytest.raises(ValueError, match="X holds values up to 1e\\+31 in size"):
        model.predict(images.astype(float) / images.max() * 1e31)


def test_a_gpu_that_is_not_there(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match="PyTorch finds no GPU here; use 'cpu'"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:1") == "cuda:1"


def test_a_bootstrap_keeps_weights_of_classes_names_and_a_folder_of_any_name(
    digits, tmp_path, monkeypatch
):
    pandas = pytest.importorskip("pandas")
    images, labels = digits[0][:200].reshape(200, -1), digits[1][:200]
    table = pandas.DataFrame(images, columns=[f"p{i}" for i in range(64)])
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path / "kept")
    found = {}
    for class_weight in (None, {0: 9.0, 1: 0.1}):
        model = classifier_of(
            n_units=20, n_subnets=2, max_iter=2, class_weight=class_weight, random_state=1
        )
        model.fit(table, labels)
        result = model.bootstrap_transductive(table, rounds=2, folder=None)
        found[class_weight is None] = result.classifier
        assert list(result.classifier.feature_names_in_) == list(table.columns)
        result.classifier.predict(table)
    assert not np.array_equal(found[True].network_.coef, found[False].network_.coef)
    model.bootstrap_transductive(table, rounds=2, folder=".")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "kept-2"]
