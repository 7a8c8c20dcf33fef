"""Saved equals loaded: the comparer over the options of `VarProHead`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from rankwise import VarProHead
from rankwise.errors import ModelFileError
from rankwise.heads.backbones import SmallResNet, load_backbone, save_backbone
from same_model import check_the_same, differences, state

OPTIONS = {
    "defaults": {},
    "a number": {"alpha": 0.5},
    "a number of NumPy": {"alpha": np.float32(0.5), "rank": np.int64(20)},
    "gcv": {"alpha": "gcv"},
    "ridges, a list": {"alphas": [0.1, 1.0, 10.0]},
    "ridges, an array": {"alphas": np.geomspace(0.1, 10.0, 4)},
    "no intercept": {"fit_intercept": False},
    "not standardised": {"standardise": False},
    "balanced": {"class_weight": "balanced"},
    "weights by number": {"class_weight": {3: 2.0, 7: 0.5}},
    "weights by NumPy's numbers": {"class_weight": {np.int64(3): np.float32(2.0)}},
    "rank": {"rank": 12},
    "logistic": {"loss": "logistic", "max_passes": 7},
    "machine": {"batch_size": 7, "block_size": 50, "device": "cpu:torch", "cache": Path("kept")},
}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:150], y[:150]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.filterwarnings("ignore:the logistic loss hasn't reached")
def test_every_option(digits, tmp_path, name):
    check_the_same(lambda: VarProHead(**OPTIONS[name]), *digits, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F", "view"])
def test_every_kind_of_features(digits, tmp_path, dtype, order):
    x = np.asarray(digits[0], dtype=dtype, order="C" if order == "view" else order)
    check_the_same(VarProHead, x[::-1, ::2] if order == "view" else x, digits[1], tmp_path)


LABELS = {
    "text": lambda y: np.array([f"d{v}" for v in y]),
    "objects": lambda y: np.array([f"d{v}" for v in y], dtype=object),
    "numbers": lambda y: y + 0.5 - 0.5,
    "truth": lambda y: y % 2 == 0,
    "small": lambda y: y.astype(np.int8),
    "large": lambda y: y + 5_000_000_000,
}


@pytest.mark.parametrize("kind", LABELS)
def test_every_kind_of_label(digits, tmp_path, kind):
    check_the_same(VarProHead, digits[0], LABELS[kind](digits[1]), tmp_path)


def test_names_of_columns(digits, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(digits[0], columns=[f"p{i}" for i in range(64)])
    check_the_same(VarProHead, table, digits[1], tmp_path)
    head = VarProHead().fit(table, digits[1])
    head.save(tmp_path / "named")
    with pytest.raises(ValueError, match="feature names should match"):
        VarProHead.load(tmp_path / "named").predict(table[table.columns[::-1]])


class Louder(VarProHead):
    """A subclass with a parameter of its own."""

    def __init__(self, alpha="loo", *, factor=2.0, class_weight=None):
        super().__init__(alpha, class_weight=class_weight)
        self.factor = factor

    def outputs(self, X):
        return self.factor * super().outputs(X)


def test_a_subclass(digits, tmp_path):
    check_the_same(lambda: Louder(factor=3.0, class_weight={1: 3.0}), *digits, tmp_path)
    Louder().fit(*digits).save(tmp_path / "louder")
    with pytest.raises(ModelFileError, match=r"holds a Louder, which VarProHead\.load can't"):
        VarProHead.load(tmp_path / "louder")


@pytest.mark.parametrize("way", ["partial_fit", "merge", "unlearn"])
def test_what_was_learned_in_parts(digits, tmp_path, way):
    x, y = digits
    head = VarProHead("gcv", class_weight={1: 2.0}).fit(x[:100], y[:100])
    if way == "partial_fit":
        head.partial_fit(x[100:], y[100:])
    elif way == "merge":
        head.merge(VarProHead("gcv", class_weight={1: 2.0}).fit(x[100:], y[100:]))
    else:
        head.unlearn(x[40:100], y[40:100])
    head.save(tmp_path)
    again = VarProHead.load(tmp_path)
    assert not differences(state(head, x), state(again, x))
    for one in (head, again):
        one.unlearn(x[:30], y[:30])
    assert not differences(state(head, x), state(again, x), times=False)
    np.testing.assert_array_equal(
        head.leave_one_out_predictions(x, y), again.leave_one_out_predictions(x, y)
    )


def test_a_backbone(tmp_path):
    torch.manual_seed(0)
    record = {"network": "SmallResNet", "n_classes": 4, "width": 4, "n_features": 24}
    save_backbone(SmallResNet(4, width=4, n_features=24), tmp_path / "b.safetensors", record)
    images = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    network = load_backbone(tmp_path / "b.safetensors")
    check_the_same(
        lambda: VarProHead(backbone=network, batch_size=7), images, np.arange(40) % 3, tmp_path
    )


def test_a_parameter_that_no_file_holds(digits, tmp_path):
    head = VarProHead(verbose=0).fit(*digits).set_params(cache=object())
    with pytest.raises(ValueError, match="cache is of type object, which no model file holds"):
        head.save(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_arrays_are_nobodys_views(digits):
    head = VarProHead().fit(*digits)
    for array in (head.coef_, head.intercept_, head.statistics_.scatter, head.statistics_.means):
        assert array.flags.owndata
        assert array.flags.c_contiguous
