"""Saved equals loaded: the comparer over the classifiers' options, presets and kinds of images."""

import numpy as np
import pytest

from rankwise import ConvolutionalClassifier, QuadraticClassifier, load_model
from rankwise.errors import ModelFileError
from rankwise.estimators.choices import (
    FixedRidge,
    GaussNewton,
    Grow,
    LeaveOneOut,
    Prune,
    Refine,
    Subnetworks,
    TrainingOptions,
    UnitForm,
)
from rankwise.varpro import solvers
from same_model import check_the_same, differences, state

QUICK = {"n_units": 6, "n_subnets": 2, "max_iter": 2}
QUADRATIC = {
    "pereyra": {"preset": "pereyra"},
    "windowed": {"preset": "windowed"},
    "a form": {"unit": UnitForm("bilinear", rank=2, window=(0.4, 0.9), activation="relu")},
    "sub-networks": {
        "n_subnets": 2,
        "subnets": Subnetworks(samples=40, jacobian="kaufman", tol=1e-3),
    },
    "a solver": {
        "max_iter": None,
        "solver": solvers.LevenbergMarquardt(
            solvers.StoppingRule(max_iterations=2), solvers.MarquardtDamping()
        ),
    },
    "leave one out": {"ridge": LeaveOneOut()},
    "a ridge": {"ridge": FixedRidge(1e-3, method="tsqr")},
    "grown and pruned": {"refine": (Grow(3), Prune(0.25))},
    "refined": {"refine": Refine(1)},
    "by Gauss–Newton": {"refine": [GaussNewton(1)]},
    "calibrated": {"probabilities": "calibrated"},
    "weights": {"class_weight": {0: 2.0, 2: np.float32(0.5)}},
    "machine": {
        "n_jobs": 2,
        "device": "cpu:torch",
        "random_state": np.int64(2**32 - 1),
        "subnets": Subnetworks(dtype="float64"),
    },
    "shape as a list": {"image_shape": [8, 8]},
}
CONVOLUTIONAL = {
    "small": {"preset": "small"},
    "tiny": {"preset": "tiny"},
    "calibrated": {"probabilities": "calibrated", "class_weight": "balanced"},
    "glued": {"probabilities": "sum-to-one", "ridge": 1e-3},
    "a form": {"unit": UnitForm(activation="gelu", rank=1)},
    "a training": {"training": TrainingOptions("bfloat16", patience=1)},
    "machine": {"n_jobs": 2, "random_state": 7, "augmentation": "low-rank"},
}


@pytest.fixture
def some(digits):
    images, labels = digits
    chosen = np.flatnonzero(labels < 3)[:60]
    return images[chosen], labels[chosen]


@pytest.mark.parametrize("name", QUADRATIC)
def test_every_option_of_sub_networks(some, tmp_path, name):
    check_the_same(lambda: QuadraticClassifier(**(QUICK | QUADRATIC[name])), *some, tmp_path)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_option_of_convolutional_units(some, tmp_path, name):
    options = {"preset": "tiny", "epochs": 1} | CONVOLUTIONAL[name]
    check_the_same(lambda: ConvolutionalClassifier(**options), *some, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", ">f8"])
@pytest.mark.parametrize("family", [QuadraticClassifier, ConvolutionalClassifier])
def test_every_kind_of_images(some, tmp_path, dtype, family):
    images = np.asarray(some[0] / 255 * 16, dtype=dtype, order="F")
    if family is QuadraticClassifier:
        check_the_same(lambda: QuadraticClassifier(**QUICK), images, some[1], tmp_path)
    else:

        def make():
            return ConvolutionalClassifier("tiny", epochs=1)

        check_the_same(make, images, some[1], tmp_path)


def test_names_of_columns(some, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(some[0].reshape(60, 64) / 255.0, columns=[f"p{i}" for i in range(64)])
    check_the_same(lambda: QuadraticClassifier(**QUICK), table, some[1], tmp_path)


def test_labels_of_any_size(some, tmp_path):
    labels = some[1] + 5_000_000_000
    options = QUICK | {"class_weight": {5_000_000_001: 2.0}}
    check_the_same(lambda: QuadraticClassifier(**options), some[0], labels, tmp_path)


class Named(QuadraticClassifier):
    """A subclass with a parameter of its own."""

    def __init__(self, preset=None, *, n_units=6, n_subnets=2, max_iter=2, label="x"):
        super().__init__(preset, n_units=n_units, n_subnets=n_subnets, max_iter=max_iter)
        self.label = label


def test_a_subclass(some, tmp_path):
    check_the_same(lambda: Named(label="mine"), *some, tmp_path)
    Named().fit(*some).save(tmp_path / "named")
    for load in (QuadraticClassifier.load, load_model):
        with pytest.raises(ModelFileError, match=r"holds a Named, which QuadraticClassifier\.load"):
            load(tmp_path / "named")


@pytest.mark.parametrize("seed", [None, 3])
def test_a_generator_of_scikit_learn(some, tmp_path, seed):
    given = None if seed is None else np.random.RandomState(seed)
    model = QuadraticClassifier(**QUICK, random_state=given).fit(*some)
    model.save(tmp_path)
    again = QuadraticClassifier.load(tmp_path)
    assert not differences(state(model, some[0]), state(again, some[0]))
    if seed is not None:
        again.fit(*some)
        np.testing.assert_array_equal(again.outputs(some[0]), model.fit(*some).outputs(some[0]))


@pytest.mark.parametrize("family", [QuadraticClassifier, ConvolutionalClassifier])
def test_records_own_their_arrays(some, family):
    options = QUICK if family is QuadraticClassifier else {"preset": "tiny", "epochs": 1}
    network = family(**options).fit(*some).network_
    records = [network, *getattr(network, "layers", ())]
    for record in records:
        for value in vars(record).values():
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                assert value.flags.owndata
                assert value.dtype.isnative
