"""Shapes and scales of what a user hands to a classifier, told at once."""

import json
import warnings

import numpy as np
import pytest

from rankwise import ConvolutionalClassifier, QuadraticClassifier
from rankwise.errors import DataWarning, ModelFileError
from rankwise.estimators import _inputs
from rankwise.estimators.options import classifier_of
from rankwise.training import groups, room
from rankwise.units.multilinear import Units

rng = np.random.default_rng(0)
Y = np.arange(40) % 2


def fitted(X, **options):
    return classifier_of(n_units=4, n_subnets=1, max_iter=1, **options).fit(X, Y[: len(X)])


@pytest.fixture(scope="module")
def on_pixels():
    return fitted(rng.integers(0, 256, (40, 8, 8), dtype=np.uint8))


@pytest.fixture(scope="module")
def on_shares():
    return fitted(rng.random((40, 8, 8)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((40, 3072), r"3072 values, which is no square image; give image_shape, \(32, 32, 3\) for"),
        ((40, 192), r"give image_shape, \(8, 8, 3\) for colour images .*reshape\(-1, 3, 8, 8\)"),
        ((40, 200), r"give image_shape, \(10, 20\) for instance, or \(1, 200\) for a single row"),
        ((40, 101), r"which is no square image; give image_shape, \(1, 101\) for a single row of"),
        ((40, 3, 8, 9), r"looks like channels first; .* image_shape=\(3, 8, 9\) keeps it"),
        ((40, 1, 8, 8), "looks like channels first"),
    ],
)
def test_shapes_that_could_mean_two_things_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        fitted(np.zeros(shape))


@pytest.mark.parametrize(
    ("n", "shape"), [(64, (8, 8)), (72, (1, 72)), (100, (10, 10)), (3, (1, 3)), (784, (28, 28))]
)
def test_rows_that_are_plain(n, shape):
    assert _inputs.image_shape_of(np.zeros((2, n)), None) == shape


def test_a_given_shape_is_taken():
    assert fitted(rng.random((40, 192)), image_shape=(8, 8, 3)).image_shape_ == (8, 8, 3)
    kept = fitted(rng.random((40, 3, 8, 8)), image_shape=(3, 8, 8), unit="multilinear")
    assert kept.image_shape_ == (3, 8, 8)


def test_one_image_alone(on_pixels):
    with pytest.raises(ValueError, match=r"shape \(8, 8\) for one label: one image alone is X\[No"):
        QuadraticClassifier().fit(np.zeros((8, 8)), ["a"])
    with pytest.raises(ValueError, match=r"shape of one image, \(8, 8\); X\[None\] is a batch"):
        on_pixels.predict(np.zeros((8, 8), np.uint8))
    colour = fitted(rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"shape of one image, \(8, 8, 3\); X\[None\] is a batch"):
        colour.predict(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"channels first; the model takes \(n, 8, 8, 3\)"):
        colour.predict(np.zeros((2, 3, 8, 8), np.uint8))
    # A row of as many values as a model of one row takes is a batch of one.
    assert len(fitted(rng.random((40, 5))).predict(np.zeros((1, 5)))) == 1


def values(low, high):
    return np.linspace(low, high, 3 * 64).reshape(3, 8, 8)


@pytest.mark.parametrize(
    "X", [values(0, 1), values(-1, 1), values(0, 16), values(-100, 155), values(0, 65535)]
)
def test_another_scale_than_pixels_is_warned_of(on_pixels, X):
    with pytest.warns(DataWarning, match="the model was fitted on pixels 0 to 255; the same scale"):
        on_pixels.predict(X)


@pytest.mark.parametrize("X", [values(0, 255).astype(np.uint8), values(-2, 3), values(0, 0.05)])
def test_another_scale_than_shares_is_warned_of(on_shares, X):
    with pytest.warns(DataWarning, match=r"values from .* the model was fitted on .* to "):
        on_shares.predict(X)


def test_the_scale_of_the_fit_is_not_warned_of(on_pixels, on_shares):
    dark = values(0, 20).astype(np.uint8)  # of type uint8 pixels are pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for X in (values(0, 255), values(3, 90), values(-4, 259), np.zeros((1, 8, 8)), dark):
            on_pixels.predict(X)
        for X in (values(0, 1), values(0.2, 0.4), values(-0.3, 1.3), np.zeros((1, 8, 8))):
            on_shares.predict(X)


def test_a_copy_without_room_is_refused(monkeypatch):
    monkeypatch.setattr(_inputs, "available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"X takes 0\.0 GiB as float64 and 0\.0 GiB of memory are"):
        fitted(np.zeros((40, 8, 8), np.int64))


def test_the_scale_is_kept_in_files(on_shares, on_pixels, tmp_path):
    on_shares.save(tmp_path / "shares")
    again = QuadraticClassifier.load(tmp_path / "shares")
    assert again._value_range == on_shares._value_range
    with pytest.warns(DataWarning, match="the same scale is needed"):
        again.predict(values(0, 255))
    description = tmp_path / "shares" / "model.json"
    content = json.loads(description.read_text())
    for damaged in ([1], [2, 1], ["0", 1], [0, float("inf")], "0..1"):
        description.write_text(json.dumps(content | {"value_range": damaged}))
        with pytest.raises(ModelFileError, match=r"value_range|finite"):
            QuadraticClassifier.load(tmp_path / "shares")
    content.pop("value_range")  # as in files of earlier versions
    description.write_text(json.dumps(content))
    assert QuadraticClassifier.load(tmp_path / "shares")._value_range is None


@pytest.mark.parametrize("refine", [None, 2])
def test_given_validation_images_are_never_trained_on(refine):
    X, y = rng.random((60, 8, 8)), np.arange(60) % 2
    validation = np.arange(60) >= 40
    options = {"n_units": 4, "n_subnets": 1, "max_iter": 2, "refine": refine}

    def fit(X):
        return classifier_of(**options).fit(X, y, validation=validation)

    alone = classifier_of(**options).fit(X[:40], y[:40])
    model, other = fit(X), fit(np.where(validation[:, None, None], 1 - X, X))
    if refine is None:
        np.testing.assert_allclose(model.network_.params, alone.network_.params)
        np.testing.assert_allclose(model.network_.coef, alone.network_.coef)
    else:
        losses = [[e["train_loss"] for e in m.history_] for m in (model, other)]
        np.testing.assert_allclose(*losses)
        assert all(e["validation_accuracy"] is not None for e in model.history_)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ([True] * 3, r"validation has shape \(3,\) and type bool; True or False for each sample"),
        ([0, 1] * 20, "type int64; True or False for each sample"),
        (Y == 1, "class 1 has images in the validation part only"),
    ],
)
def test_validation_is_checked(validation, message):
    with pytest.raises(ValueError, match=message):
        QuadraticClassifier().fit(np.zeros((40, 8, 8)), Y, validation=validation)


def test_validation_images_of_weight_0_still_validate():
    X, y = rng.random((60, 8, 8)), np.arange(60) % 2
    validation = np.arange(60) >= 40
    model = classifier_of(n_units=4, n_subnets=1, max_iter=1, refine=2)
    outputs = model.fit(X, y, validation=validation).outputs(X)
    model.fit(X, y, sample_weight=np.where(validation, 0.0, 1.0), validation=validation)
    assert all(epoch["validation_accuracy"] is not None for epoch in model.history_)
    np.testing.assert_array_equal(model.outputs(X), outputs)


def test_a_class_needs_images_of_some_weight_beside_the_validation_part():
    validation = np.arange(60) >= 40
    labels = np.arange(60) % 3
    weights = np.where((labels == 1) & ~validation, 0.0, 1.0)
    with pytest.raises(ValueError) as error:
        QuadraticClassifier().fit(
            np.zeros((60, 8, 8)), labels, sample_weight=weights, validation=validation
        )
    assert str(error.value) == (
        "class 1 has images in the validation part only, those of weight 0 aside; each needs some "
        "to train on"
    )


@pytest.mark.parametrize("solver", ["levenberg-marquardt", "lbfgs"])
def test_sub_networks_without_room_are_refused_before_they_take_any(monkeypatch, solver):
    """Units over one row of 3072 pixels: a matrix of theirs has 70 MiB for each pair of units."""
    monkeypatch.setattr(groups, "available_memory", lambda: 300 * 2**20)
    options = {"n_units": 10, "n_subnets": 1, "max_iter": 1, "image_shape": (1, 3072)}
    model = classifier_of(solver=solver, **options)
    X = rng.random((40, 3072))
    if solver == "lbfgs":
        assert model.fit(X, Y).status_ != "non-finite"
        return
    with pytest.raises(ValueError, match="10 units with 3,074 parameters each need about 35 GiB"):
        model.fit(X, Y)
    # MINPACK's Jacobian is as long as samples times classes.
    plan = groups.SubnetPlan(Units((28, 28), (0, 0)), n_samples=2000, solver="minpack")
    groups.check_room(plan, 100, 2, 1)
    with pytest.raises(ValueError, match=r"need about 1 GiB of memory and 0\.3 GiB are"):
        groups.check_room(plan, 2000, 30, 1)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            ["a.png"] * 40,
            Y,
            r"X holds names, such as 'a\.png'; images are accepted: rankwise\.load_",
        ),
        (
            [np.ones((8, 8)), np.ones((7, 8))] * 20,
            Y,
            r"X holds images of shapes \(8, 8\) and \(7, 8\); images of one shape are accepted",
        ),
        (None, [None, *Y[1:]], "Input y contains NaN or None, in row 0 first; a label for each"),
        (None, [*"ab" * 19, np.nan, "b"], "Input y contains NaN or None, in row 38 first"),
        (None, ["a", *Y[1:].tolist()], "y holds text, such as 'a', and other labels, such as 1; l"),
    ],
)
def test_kinds_that_cannot_be_meant(images, labels, message):
    X = np.ones((40, 8, 8)) if images is None else images
    with pytest.raises(ValueError, match=message):
        QuadraticClassifier().fit(X, labels)


@pytest.mark.parametrize("kind", [QuadraticClassifier, ConvolutionalClassifier])
def test_a_prediction_takes_what_a_fit_takes(kind):
    options = {"n_units": 4} if kind is QuadraticClassifier else {"preset": "nano", "epochs": 1}
    X = rng.random((40, 4, 9))
    listed = kind(**options).fit(list(X), Y)
    expected = listed.outputs(X)
    for images in (list(X), X.tolist(), tuple(X.tolist())):
        np.testing.assert_array_equal(listed.outputs(images), expected)
    with pytest.raises(
        ValueError, match=r"images have shape \(9, 4\), but the model was fitted on"
    ):
        listed.predict(X.swapaxes(1, 2).tolist())
    # A shape that is given is one for both.
    given = kind(**options, image_shape=(6, 6)).fit(X, Y)
    np.testing.assert_array_equal(given.outputs(X), given.outputs(X.reshape(40, 6, 6)))
    np.testing.assert_array_equal(given.outputs(X), given.outputs(X.reshape(40, 36)))
    with pytest.raises(
        ValueError, match=r"images have shape \(4, 8\), but the model was fitted on"
    ):
        given.predict(X[:, :, :8])


@pytest.mark.parametrize("weights", ["balanced", {0: 1.0, 1: 2.0}, ["1"] * 40])
def test_weights_that_are_no_numbers(weights):
    with pytest.raises(ValueError, match="a number at least 0 for each sample is accepted"):
        classifier_of(n_units=4, n_subnets=1, max_iter=1).fit(
            rng.random((40, 8, 8)), Y, sample_weight=weights
        )


def test_a_convolutional_training_without_room_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"on images of 8×8 needs .* GiB of memory or more"):
        ConvolutionalClassifier("tiny", epochs=1).fit(rng.random((40, 8, 8)), Y)


@pytest.mark.parametrize("kind", [QuadraticClassifier, ConvolutionalClassifier])
def test_complex_images_are_refused_in_one_sentence(kind):
    images = np.random.default_rng(0).random((12, 8, 8)) + 0j
    with pytest.raises(ValueError, match=r"^Complex data not supported: X is complex128; real num"):
        kind().fit(images, np.arange(12) % 2)


def test_what_a_mask_hides_is_not_trained_on():
    X, y = np.zeros((4, 4, 4)), np.array([0, 0, 1, 1])
    hidden = np.ma.masked_array(X, np.zeros(X.shape, bool))
    hidden.mask[0, 0, 0] = True
    message = r"X hides 1 value behind a mask; .*: its filled\(value\), or what is left without"
    with pytest.raises(ValueError, match=message):
        QuadraticClassifier().fit(hidden, y)
    with pytest.raises(ValueError, match="y hides 2 values behind a mask"):
        QuadraticClassifier().fit(X, np.ma.masked_equal(y, 1))


@pytest.mark.parametrize("ones", [(), (1,)])
def test_grey_images_may_have_an_axis_for_their_channel(digits, ones):
    images, labels = digits[0][:60], digits[1][:60]
    model = classifier_of(n_units=4, n_subnets=1, max_iter=1)
    model.fit(images.reshape(*images.shape, *ones), labels)
    np.testing.assert_array_equal(model.outputs(images), model.outputs(images[..., None]))


def test_the_one_class_with_weight_is_named():
    X, y = np.random.default_rng(0).random((6, 4, 4)), ["cat", "dog"] * 3
    with pytest.raises(ValueError, match="only one class is present: found only cat"):
        QuadraticClassifier().fit(X, y, sample_weight=[1, 0] * 3)
