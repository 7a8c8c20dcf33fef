"""Arguments that are none: one sentence each, before anything is trained."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from rankwise import (
    ConvolutionalClassifier,
    FixedRidge,
    GaussNewton,
    QuadraticClassifier,
    Refine,
    Subnetworks,
    TrainingOptions,
    UnitForm,
    load_model,
)
from rankwise.training import fitting

RNG = np.random.default_rng(0)
X = RNG.random((40, 8, 8))
Y = np.arange(40) % 2
TINY = {"preset": "nano", "epochs": 1}


@pytest.fixture(scope="module")
def fitted():
    return ConvolutionalClassifier(**TINY).fit(X, Y)


def refusal(call):
    """The text of a refusal, which no traceback of another library makes."""
    with pytest.raises(ValueError) as error:
        call()
    assert type(error.value) is ValueError
    return str(error.value)


RANDOM_STATE = "random_state must be a whole number from 0 to 2**63 - 1, a RandomState or None, got"
RIDGE = "ridge must be a number at least 0, 'gcv' or 'loo', got "
PRESETS = "accepted: wide, accurate, small, tiny, nano"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        *(
            ({"epochs": epochs}, f"epochs must be a whole number at least 1, got {epochs!r}")
            for epochs in ("3", [3], True, 0, -1, 1.5, float("nan"), float("inf"))
        ),
        ({"preset": ["nano"]}, f"unknown preset ['nano']; {PRESETS}"),
        (
            {"training": TrainingOptions(teacher=["wide"])},
            f"unknown teacher ['wide']; {PRESETS}",
        ),
        (
            {"training": TrainingOptions(patience=True)},
            "patience must be a whole number at least 1, got True",
        ),
        *(({"ridge": ridge}, f"{RIDGE}{ridge!r}") for ridge in ([1], True, "x", -1)),
        ({"random_state": True}, f"{RANDOM_STATE} True"),
        ({"random_state": np.bool_(False)}, f"{RANDOM_STATE} False"),
        *(
            (
                {"image_shape": shape},
                "image_shape must be the sides of an image, whole numbers above 0 such as "
                f"(28, 28), got {shape!r}",
            )
            for shape in (8, "8x8", (-8, -8), (), (8.5, 8), (8, None))
        ),
    ],
)  # fmt: skip
def test_parameters_that_are_none_are_refused_in_one_sentence(parameters, message):
    model = ConvolutionalClassifier(**TINY | parameters)
    assert refusal(lambda: model.fit(X, Y)) == message


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ridge": [1]}, f"{RIDGE}[1]"),
        ({"ridge": True}, f"{RIDGE}True"),
        ({"max_iter": True}, "max_iter must be a whole number at least 0, got True"),
        ({"random_state": True}, f"{RANDOM_STATE} True"),
        (
            {"preset": ["pereyra"]},
            "unknown preset ['pereyra']; accepted: pereyra, windowed; tiny to wide are presets of "
            "ConvolutionalClassifier",
        ),
        ({"ridge": FixedRidge(None)}, f"{RIDGE}None"),
        *(
            ({"subnets": Subnetworks(tol=tol)}, f"tol must be a number at least 0, got {tol!r}")
            for tol in ("a", True, [1e-3])
        ),
        (
            {"unit": UnitForm(window=("a", "b"))},
            "window must be two fractions, False or None, got ('a', 'b')",
        ),
        *(
            ({name: of(**{asked: value})}, f"{asked} must be True or False, got {value!r}")
            for name, of, asked, value in (
                ("unit", UnitForm, "bias", "no"),
                ("unit", UnitForm, "bias", 0),
                ("subnets", Subnetworks, "partition", "no"),
                ("subnets", Subnetworks, "squash", "no"),
            )
        ),
    ],
)
def test_and_so_they_are_of_sub_networks(parameters, message):
    assert refusal(lambda: QuadraticClassifier(**parameters).fit(X, Y)) == message


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        (
            {"ridge": FixedRidge(1e-3, method="foo")},
            {},
            "unknown method 'foo' of the output layer; accepted: auto, gram, tsqr",
        ),
        (
            {"ridge": FixedRidge("loo", method="tsqr")},
            {},
            "method 'tsqr' needs a number as ridge; 'gcv' and 'loo' need 'gram'",
        ),
        (
            {"refine": GaussNewton(1)},
            {"sample_weight": 1.0 + Y},
            "Gauss–Newton steps count every image once; weights are taken by a refinement on "
            "mini-batches",
        ),
        (
            {"refine": Refine(1), "image_shape": (2, 2, 4, 4), "unit": "multilinear"},
            {},
            "joint refinement needs images (height, width) or (height, width, channels), got "
            "shape (2, 2, 4, 4)",
        ),
    ],
)
def test_what_comes_behind_sub_networks_is_refused_before_them(
    monkeypatch, parameters, options, message
):
    monkeypatch.setattr(fitting, "train_subnets", lambda *_, **__: pytest.fail("trained"))
    assert refusal(lambda: QuadraticClassifier(**parameters).fit(X, Y, **options)) == message


def test_whole_numbers_of_any_type_are_taken():
    model = ConvolutionalClassifier(
        "nano", epochs=np.float32(1), image_shape=[8.0, np.int8(8)], random_state=np.int8(3)
    )
    assert model.fit(X.reshape(40, 64), Y).image_shape_ == (8, 8)


@pytest.mark.parametrize("truth", [True, False])
def test_numbers_and_truth_values_of_numpy_are_taken(truth):
    as_numpys = np.bool_(truth)
    unit = UnitForm(bias=as_numpys, window=(np.float32(0.5), np.float64(1)))
    own = Subnetworks(partition=as_numpys, squash=as_numpys, tol=np.float32(0.5))
    model = QuadraticClassifier(unit=unit, subnets=own, n_units=4, n_subnets=2)
    plan = model.plan_for((8, 8), 40).subnet
    assert (plan.start.bias, plan.n_parts, plan.squash) == (truth, 2 * truth, truth)
    convolutional = ConvolutionalClassifier(**TINY, unit=UnitForm(bias=np.bool_(True)))
    assert convolutional.plan_for((8, 8), 40).joint.epochs == 1


@pytest.mark.parametrize("kind", [ConvolutionalClassifier, QuadraticClassifier])
def test_images_without_pixels_are_refused(kind):
    message = "X has shape (10, 0, 5); images with sides of at least 1 are accepted"
    for dtype in (np.uint8, np.float32, np.float64):
        assert refusal(lambda dtype=dtype: kind().fit(np.zeros((10, 0, 5), dtype), Y[:10])) == (
            message
        )


def test_tensors_of_bfloat16_are_images_in_float32():
    tensor = torch.as_tensor(X).bfloat16()
    model = ConvolutionalClassifier(**TINY).fit(tensor, torch.as_tensor(Y))
    same = ConvolutionalClassifier(**TINY).fit(tensor.float().numpy(), Y)
    np.testing.assert_array_equal(model.outputs(tensor), same.outputs(tensor.float()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"validation": (X[:10], Y[:10])},
            "validation is a tuple of parts of several shapes; True or False for each sample, "
            "(40,), is accepted",
        ),
        (
            {"groups": [[1], [1, 2]] * 20},
            "groups is a list of parts of several shapes; one for each sample, (40,), is accepted",
        ),
        (
            {"groups": [None, 1] * 20},
            "groups are of kinds that can't be compared with each other, such as None and "
            "numbers; numbers alone or text alone are accepted",
        ),
        ({"checkpoint_dir": 3}, "checkpoint_dir must be the path of a folder, got 3"),
    ],
)
def test_arguments_of_a_fit_that_are_none(arguments, message):
    assert refusal(lambda: ConvolutionalClassifier(**TINY).fit(X, Y, **arguments)) == message


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_is_no_folder_to_write_into(fitted, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    place = file / below
    with_it = ConvolutionalClassifier(**TINY)
    told = f" is {str(place)!r}, and {file} is a file; give a folder"
    assert refusal(lambda: with_it.fit(X, Y, checkpoint_dir=str(place))) == f"checkpoint_dir{told}"
    assert refusal(lambda: fitted.save(place)) == f"folder{told}"
    assert refusal(lambda: fitted.save(7)) == "folder must be the path of a folder, got 7"
    assert file.read_text() == "mine"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ConvolutionalClassifier(**TINY).fit(X, Y, checkpoint_dir="~/fit")
    model = QuadraticClassifier(n_units=4, n_subnets=1, max_iter=1)
    model.fit(X, Y, checkpoint_dir=Path("~/units"))
    model.bootstrap_transductive(X, folder="~/parts", rounds=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["fit", "parts", "parts-2", "units"]
    (tmp_path / "file").write_text("mine")
    told = f"folder is '~/file', and {tmp_path / 'file'} is a file; give a folder"
    assert refusal(lambda: model.bootstrap_transductive(X, folder="~/file")) == told


@pytest.mark.parametrize("unit", ["D", "ns"])
@pytest.mark.parametrize("kind", ["datetime64", "timedelta64"])
def test_dates_as_labels_are_kept_in_files(fitted, tmp_path: Path, kind, unit):
    model = copy.copy(fitted)
    model.classes_ = np.array([18262, 18628]).astype(f"{kind}[{unit}]")
    model.save(tmp_path)
    again = load_model(tmp_path)
    assert again.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
