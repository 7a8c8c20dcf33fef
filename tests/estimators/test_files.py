"""Models on disk: round trip, and every way a file can be wrong."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

from rankwise import QuadraticClassifier, load_model
from rankwise.errors import ModelFileError
from rankwise.estimators.files import DESCRIPTION, WEIGHTS
from rankwise.estimators.options import classifier_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (60, 6, 5), dtype=np.uint8)


def model(labels):
    return classifier_of(n_units=6, n_subnets=1, max_iter=3, window=(0.4, 0.9)).fit(IMAGES, labels)


@pytest.fixture
def saved(tmp_path):
    model(np.arange(60) % 3).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "labels",
    [np.arange(60) % 3, np.array(["yes", "no"])[np.arange(60) % 2], np.arange(60) % 2 == 0],
    ids=["int", "str", "bool"],
)
def test_round_trip(tmp_path, labels):
    original = model(labels)
    original.save(tmp_path / "new" / "folder")
    again = load_model(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(original.outputs(IMAGES), again.outputs(IMAGES))
    np.testing.assert_array_equal(original.predict(IMAGES), again.predict(IMAGES))
    np.testing.assert_array_equal(
        original.outputs(IMAGES.astype(int)), again.outputs(IMAGES.astype(int))
    )
    assert again.predict(IMAGES).dtype == original.predict(IMAGES).dtype
    assert again.n_parameters_units_ == original.n_parameters_units_
    assert again.status_ == original.status_
    assert again.get_params() == original.get_params()
    again.fit(IMAGES, labels)


def test_a_loss_that_is_no_number_is_saved_and_read(tmp_path):
    fitted = model(np.arange(60) % 3)
    fitted.history_ = [{"epoch": 1, "train_loss": np.nan, "validation_accuracy": None}]
    fitted.save(tmp_path)
    json.loads((tmp_path / DESCRIPTION).read_text(), parse_constant=pytest.fail)
    (entry,) = load_model(tmp_path).history_
    assert np.isnan(entry["train_loss"])
    assert entry["validation_accuracy"] is None


def test_no_pickle_is_written(saved):
    assert sorted(p.name for p in saved.iterdir()) == [DESCRIPTION, WEIGHTS]
    json.loads((saved / DESCRIPTION).read_text())
    assert set(load_file(saved / WEIGHTS)) == {"params", "coef"}


def test_an_unfitted_model_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        classifier_of().save(tmp_path)
    assert not list(tmp_path.iterdir())


def edit(folder, **changes):
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reseal(folder):
    import hashlib

    edit(folder, weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def wrong_shape(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"params": tensors["params"][:-1].copy()}, folder / WEIGHTS)
    reseal(folder)


def not_finite(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["coef"][0, 0] = np.nan
    save_file(tensors, folder / WEIGHTS)
    reseal(folder)


def integers(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"coef": tensors["coef"].astype(np.int64)}, folder / WEIGHTS)
    reseal(folder)


def relearn(folder, **changes):
    edit(folder, fitted=json.loads((folder / DESCRIPTION).read_text())["fitted"] | changes)


def forget(folder, name):
    fitted = json.loads((folder / DESCRIPTION).read_text())["fitted"]
    edit(folder, fitted={key: value for key, value in fitted.items() if key != name})


TRUE = {"rank": True}
FAR = {"vector_of_axis": [0, 7]}


def not_safetensors(folder):
    (folder / WEIGHTS).write_bytes(b"\x80\x04pickle")
    reseal(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / DESCRIPTION).unlink(), "model.json can't be read: No such file"),
        (lambda f: (f / WEIGHTS).unlink(), "model.safetensors can't be read: No such file"),
        (lambda f: (f / DESCRIPTION).write_text("{"), "model.json is damaged: it isn't JSON"),
        (lambda f: (f / DESCRIPTION).write_text("[]"), "isn't a rankwise model"),
        (lambda f: edit(f, format="keras"), "isn't a rankwise model: its format isn't"),
        (lambda f: edit(f, format_version=99), "has format version 99, but this rankwise"),
        (
            lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1]),
            "damaged or belongs to another model",
        ),
        (lambda f: edit(f, units={"rank": 1}), "model.json is damaged: KeyError: 'shape'"),
        (lambda f: edit(f, parameters={"no_such": 1}), "model.json is damaged: TypeError"),
        (lambda f: edit(f, fitted={}), "model.json is damaged: ValueError: it doesn't say status"),
        (
            lambda f: edit(f, parameters={"verbose": "x"}),
            "verbose is 'x'; a whole number is accepted",
        ),
        (
            lambda f: edit(f, parameters={"probabilities": "softmax"}),
            "model.json is damaged: ValueError: probabilities must be 'sum-to-one', 'sigmoid', ",
        ),
        *(
            (
                lambda f, value=value: relearn(f, temperature_=value),
                f"temperature_ is {value!r}; a finite number above 0 is accepted",
            )
            for value in (0, -1, "1", True)
        ),
        (lambda f: relearn(f, temperature_=float("nan")), "finite"),
        *(
            (lambda f, name=name: forget(f, f"{name}_"), f"it doesn't say {name}$")
            for name in ("preset", "history", "temperature")
        ),
        (lambda f: edit(f, fitted=[]), "model.json is damaged"),
        (lambda f: edit(f, dtype="foo"), "dtype is 'foo'; 'float32' and 'float64' are accepted"),
        (
            lambda f: edit(f, units=json.loads((f / DESCRIPTION).read_text())["units"] | TRUE),
            "rank is True; a whole number is accepted",
        ),
        (
            lambda f: edit(f, parameters={"n_jobs": [1]}),
            r"n_jobs is \(1,\); a whole number is accepted",
        ),
        (
            lambda f: edit(f, parameters={"n_jobs": {}}),
            "model.json is damaged: ValueError: a parameter can't be an object of keys",
        ),
        (
            lambda f: edit(f, units=json.loads((f / DESCRIPTION).read_text())["units"] | FAR),
            r"model.json is damaged: vector_of_axis is \(0, 7\)",
        ),
        (lambda f: (f / DESCRIPTION).write_text("[" * 100_000), "nests over 64 levels deep"),
        (lambda f: edit(f, network="other"), "its network is 'other'; 'units' and 'convolutional'"),
        (lambda f: edit(f, n_active=-5), "n_active is -5, of "),
        (
            lambda f: edit(f, classes={"values": [1, 1, 1], "dtype": "int64"}),
            "a class stands twice",
        ),
        (integers, "weights that aren't floating point"),
        (wrong_shape, "doesn't fit model.json: parameters of shape"),
        (not_finite, "holds weights that aren't finite"),
        (not_safetensors, "model.safetensors is damaged"),
    ],
)
def test_damaged_or_foreign_files(saved, damage, message):
    damage(saved)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def test_a_file_sets_no_attribute_but_those_of_a_fit(saved):
    expected = load_model(saved).predict(IMAGES)
    relearn(saved, predict="x", classes_=[7, 8, 9], network_=None, n_features_in_=1)
    again = load_model(saved)
    np.testing.assert_array_equal(again.predict(IMAGES), expected)
    assert again.classes_.tolist() == [0, 1, 2]


def test_saving_over_a_model_replaces_it(saved):
    other = classifier_of(n_units=4, n_subnets=1, max_iter=1).fit(IMAGES, np.arange(60) % 2)
    other.save(saved)
    np.testing.assert_array_equal(load_model(saved).outputs(IMAGES), other.outputs(IMAGES))


# -- convolutional networks ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def convolutional():
    return classifier_of("tiny", max_iter=1).fit(IMAGES, np.arange(60) % 3)


def test_round_trip_of_a_convolutional_network(convolutional, tmp_path):
    convolutional.save(tmp_path)
    again = load_model(tmp_path)
    np.testing.assert_array_equal(convolutional.outputs(IMAGES), again.outputs(IMAGES))
    np.testing.assert_array_equal(convolutional.predict_proba(IMAGES), again.predict_proba(IMAGES))
    for name in ("n_parameters_total_", "preset_", "output_layer_", "history_", "image_shape_"):
        assert getattr(again, name) == getattr(convolutional, name)
    stored = sum(a.size for a in load_file(tmp_path / WEIGHTS).values())
    assert stored == convolutional.n_parameters_total_
    with pytest.raises(ModelFileError, match="holds a ConvolutionalClassifier, not a Quadratic"):
        QuadraticClassifier.load(tmp_path)


def edited(folder, change_tensors=None, change_description=None):
    tensors = load_file(folder / WEIGHTS)
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, folder / WEIGHTS)
    description = json.loads((folder / DESCRIPTION).read_text())
    if change_description:
        change_description(description)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    description["weights_sha256"] = digest
    (folder / DESCRIPTION).write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("tensors", "description", "message"),
    [
        (
            lambda t: t.update({"layer1.row": t["layer1.row"][:3]}),
            None,
            "layer1.row of shape (3, 1, 3) instead of (12, 1, 3)",
        ),
        (lambda t: t.pop("layer0.bias"), None, "KeyError: 'layer0.bias'"),
        (lambda t: t.update({"coef": t["coef"][:-1]}), None, "coef of shape"),
        (lambda t: t["layer0.bias"].fill(np.nan), None, "weights that aren't finite"),
        (None, lambda d: d["units"]["layers"][0].update(side=4), "side of a layer must be odd"),
        (None, lambda d: d["units"].pop("grid"), "KeyError: 'grid'"),
    ],
)
def test_damaged_convolutional_networks(convolutional, tmp_path, tensors, description, message):
    convolutional.save(tmp_path)
    edited(tmp_path, tensors, description)
    with pytest.raises(ModelFileError) as error:
        load_model(tmp_path)
    assert message in str(error.value)
