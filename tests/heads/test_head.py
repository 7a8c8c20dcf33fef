"""`VarProHead` as a scikit-learn user, a streamer and a torch user meet it."""

import copy
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge, RidgeClassifierCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.utils.data import DataLoader, TensorDataset

from head_cases import Stream
from rankwise import VarProHead


@parametrize_with_checks([VarProHead(), VarProHead(alpha=1.0), VarProHead("gcv", rank=2)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x, y


def equal(a, b, x, atol=1e-9):
    np.testing.assert_allclose(a.outputs(x), b.outputs(x), atol=atol)


# -- against scikit-learn --------------------------------------------------------------------


def test_a_given_ridge_is_scikit_learns(digits):
    x, y = digits
    ours = VarProHead(3.0, standardise=False).fit(x, y)
    theirs = Ridge(3.0).fit(x, np.eye(10)[y])
    np.testing.assert_allclose(ours.outputs(x), theirs.predict(x), atol=1e-9)
    assert ours.chosen_by_ == "given"
    assert ours.criterion_ == []
    scaled = make_pipeline(StandardScaler(), Ridge(3.0)).fit(x, np.eye(10)[y])
    np.testing.assert_allclose(VarProHead(3.0).fit(x, y).outputs(x), scaled.predict(x), atol=1e-9)


def test_the_ridge_is_the_one_with_the_least_left_out_error(digits):
    x, y = digits[0][:300], digits[1][:300]
    alphas = [1e-3, 1.0, 30.0, 1e3]
    head = VarProHead(alphas=alphas, standardise=False).fit(x, y)
    # scikit-learn's left-out errors, of targets ±1: four times those of 0 and 1.
    theirs = RidgeClassifierCV(alphas, store_cv_results=True).fit(x, y)
    errors = (theirs.cv_results_**2).sum(axis=1).mean(axis=0) / 4
    if theirs.cv_results_.min() >= 0:
        errors = theirs.cv_results_.sum(axis=1).mean(axis=0) / 4
    np.testing.assert_allclose([e for _, e in head.criterion_], errors, rtol=1e-6)
    assert head.alpha_ == theirs.alpha_
    assert head.chosen_by_ == "loo"


def test_leave_one_out_predictions_are_brute_force(digits):
    x, y = digits[0][:60], digits[1][:60]
    head = VarProHead(5.0, standardise=False).fit(x, y)
    found = head.leave_one_out_predictions(x, y)
    for j in range(0, 60, 7):
        keep = np.arange(60) != j
        model = Ridge(5.0).fit(x[keep], np.eye(10)[y[keep]])
        np.testing.assert_allclose(found[j], model.predict(x[j : j + 1])[0], atol=1e-9)
    some = head.leave_one_out_predictions(x[10:20], y[10:20])
    np.testing.assert_allclose(some, found[10:20], atol=1e-12)


def test_it_classifies(digits):
    x, y = digits
    for options in ({}, {"alpha": "gcv"}, {"class_weight": "balanced"}, {"rank": 40}):
        assert cross_val_score(VarProHead(**options), x, y, cv=3).mean() > 0.87
    head = VarProHead(rank=40).fit(x, y)
    assert head.rank_ == 40
    assert head.condition_ > 1


def test_probabilities_are_calibrated_and_sum_to_one(digits):
    x, y = digits
    head = VarProHead().fit(x[:1000], y[:1000])
    p = head.predict_proba(x[1000:])
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    np.testing.assert_array_equal(head.classes_[p.argmax(axis=1)], head.predict(x[1000:]))
    nll = -np.log(p[np.arange(len(p)), y[1000:]]).mean()
    confidence, accuracy = p.max(axis=1).mean(), head.score(x[1000:], y[1000:])
    assert nll < 0.5
    assert abs(confidence - accuracy) < 0.08
    assert 0.01 < head.temperature_ < 1
    # From statistics alone, about as good.
    stream = VarProHead("gcv").partial_fit(x[:1000], y[:1000])
    assert stream.temperature_ == pytest.approx(head.temperature_, rel=0.3)


# -- streams ---------------------------------------------------------------------------------


def blocks(x, y, size=100):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def test_arrays_blocks_and_loaders_give_the_same(digits):
    x, y = digits
    whole = VarProHead().fit(x, y)
    pairs = blocks(x, y)
    equal(VarProHead().fit(pairs), whole, x)
    loader = DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=64)
    streamed = VarProHead().fit(loader)
    equal(streamed, whole, x)
    assert streamed.chosen_by_ == "loo"
    assert streamed.temperature_ == pytest.approx(whole.temperature_)
    np.testing.assert_allclose(streamed.outputs(loader), whole.outputs(x), atol=1e-9)
    np.testing.assert_allclose(
        streamed.leave_one_out_predictions(loader), whole.leave_one_out_predictions(x, y), atol=1e-8
    )
    equal(VarProHead(block_size=77).fit(x, y), whole, x)
    equal(VarProHead().fit(torch.as_tensor(x), torch.as_tensor(y)), whole, x)
    equal(VarProHead(device="cpu:torch").fit(x, y), whole, x)


@pytest.mark.parametrize("alpha", ["loo", "gcv"])
def test_memory_does_not_grow_with_the_samples(alpha):
    peaks = []
    for n in (20_000, 20_000, 100_000):
        tracemalloc.start()
        VarProHead(alpha).fit(Stream(n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


def test_weighted_blocks(digits):
    x, y = digits
    w = np.arange(len(y)) % 3.0
    whole = VarProHead().fit(x, y, sample_weight=w)
    triples = [(x[i : i + 99], y[i : i + 99], w[i : i + 99]) for i in range(0, len(x), 99)]
    equal(VarProHead().fit(triples), whole, x)
    repeated = VarProHead().fit(np.repeat(x, w.astype(int), axis=0), np.repeat(y, w.astype(int)))
    equal(whole, repeated, x)


def test_an_iterator_that_runs_out_uses_gcv_and_says_so(digits):
    x, y = digits
    with pytest.warns(UserWarning, match="can be read only once"):
        head = VarProHead().fit(iter(blocks(x, y)))
    assert head.chosen_by_ == "gcv"
    equal(head, VarProHead("gcv").fit(x, y), x)


def test_days_add_up(digits):
    x, y = digits
    whole = VarProHead("gcv").fit(x, y)
    days = VarProHead("gcv").partial_fit(x[:500], y[:500], classes=np.arange(10))
    days.partial_fit(x[500:501], y[500:501])
    days.partial_fit(x[501:], y[501:])
    equal(days, whole, x)
    elsewhere = VarProHead("gcv").fit(x[:900], y[:900])
    other = VarProHead("gcv").fit(x[900:], y[900:])
    equal(copy.deepcopy(elsewhere).merge(other), whole, x)
    equal(elsewhere.merge(other.statistics_), whole, x)


def test_heads_of_other_classes_merge(digits):
    x, y = digits
    low, high = y < 5, y >= 5
    head = VarProHead(1.0).fit(x[low], y[low]).merge(VarProHead(1.0).fit(x[high], y[high]))
    equal(head, VarProHead(1.0).fit(x, y), x)


def test_a_block_without_some_class_changes_nothing(digits):
    x, y = digits
    order = np.argsort(y, kind="stable")
    equal(VarProHead().fit(blocks(x[order], y[order])), VarProHead().fit(x, y), x, 1e-8)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0, 9: 0.5}])
def test_unlearning_is_never_having_seen(digits, class_weight):
    x, y = digits
    make = lambda: VarProHead(2.0, class_weight=class_weight)  # noqa: E731 - three uses
    head = make().fit(x, y).unlearn(x[1500:], y[1500:])
    equal(head, make().fit(x[:1500], y[:1500]), x)
    assert head.statistics_.n_samples == 1500
    head.unlearn(x[:1500], y[:1500])
    with pytest.raises(ValueError, match="no samples left"):
        head.predict(x)
    with pytest.raises(ValueError, match="can't be removed"):
        head.unlearn(x[:5], y[:5])


def test_classes_whose_names_are_no_utf_8_are_unlearned(digits):
    x, y = digits[0][:200], np.array(["a", "\udcff"])[digits[1][:200] % 2]
    head = VarProHead(2.0).fit(x, y).unlearn(x[100:], y[100:])
    equal(head, VarProHead(2.0).fit(x[:100], y[:100]), x)


def test_likely_wrong_labels_come_first(digits):
    x, y = digits
    rng = np.random.default_rng(0)
    planted = rng.choice(len(y), 18, replace=False)
    wrong = y.copy()
    wrong[planted] = (wrong[planted] + rng.integers(1, 10, 18)) % 10
    rows, margins = VarProHead().fit(x, wrong).likely_wrong_labels(x, wrong)
    assert (np.diff(margins) >= 0).all()
    assert sorted(rows) == list(range(len(y)))
    assert len(set(rows[:36]) & set(planted)) >= 14


# -- awkward features --------------------------------------------------------------------------


def test_more_features_than_samples():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 200)), np.arange(30) % 3
    x[:, :3] += 4 * np.eye(3)[y]
    head = VarProHead(1.0, standardise=False).fit(x, y)
    np.testing.assert_allclose(
        head.outputs(x), Ridge(1.0).fit(x, np.eye(3)[y]).predict(x), atol=1e-9
    )
    assert np.isfinite(VarProHead().fit(x, y).coef_).all()


def test_duplicate_constant_and_distant_features(digits):
    x, y = digits
    wide = np.hstack([x, x[:, 20:30], np.full((len(x), 1), 7.0)]) + 1e6
    plain, other = VarProHead("gcv").fit(x, y), VarProHead("gcv").fit(wide, y)
    assert np.isfinite(other.coef_).all()
    assert abs(plain.score(x, y) - other.score(wide, y)) < 0.01


def test_features_that_are_not_finite_are_named(digits):
    x, y = digits[0].copy(), digits[1]
    x[1234, 5] = np.inf
    message = "NaN or infinity: row 1234, feature 5 is inf"
    for head in (VarProHead(), VarProHead(block_size=100), VarProHead(device="cpu:torch")):
        with pytest.raises(ValueError, match=message):
            head.fit(x, y)
    with pytest.raises(ValueError, match=message):
        VarProHead().fit(blocks(x, y))
    fitted = VarProHead().fit(x[:1000], y[:1000])
    with pytest.raises(ValueError, match=message):
        fitted.predict(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": "ridge"}, "number at least 0, 'loo' or 'gcv'"),
        ({"alpha": -1.0}, "number at least 0"),
        ({"alpha": True}, "number at least 0"),
        ({"alphas": []}, "one or more numbers"),
        ({"alphas": 3.0}, "one or more numbers, none below 0, got 3.0"),
        ({"alphas": ["a"]}, "one or more numbers"),
        ({"rank": True}, "rank must be a whole number, at least 1, got True"),
        ({"alphas": [-1.0]}, "none below 0"),
        ({"rank": 0}, "rank must be a whole number"),
        ({"block_size": 2.5}, "block_size must be a whole number"),
        ({"batch_size": None}, "batch_size must be a whole number"),
        ({"class_weight": "heavy"}, "None, 'balanced' or a dict"),
        ({"class_weight": {"x": 1.0}}, "names class 'x'"),
        ({"device": "tpu"}, "device must be"),
        ({"backbone": 3}, "unknown backbone '3'"),
    ],
)
def test_parameters_that_are_not_accepted(digits, options, message):
    with pytest.raises(ValueError, match=message):
        VarProHead(**options).fit(digits[0][:50], digits[1][:50])


def test_input_that_is_not_accepted(digits):
    x, y = digits
    head = VarProHead("gcv")
    cases = [
        (([x[:5], x[5:9]],), "holds no samples|requires y|array"),
        (([(x[:5],), (x[5:9],)],), r"\(features, labels\)"),
        (([(x[:5], y[:4])],), "5 samples, 4 labels"),
        (([(x[:5], y[:5], -np.ones(5))],), "weight below 0"),
        (([(x[:5].reshape(5, 8, 8), y[:5])],), "images need a backbone"),
        (([(x[:5], np.eye(10)[y[:5]])],), r"labels of a block after sample 0 have shape \(5, 10\)"),
        (([(x[:5], y[:5]), (x[:5], y[:5] + 0.5)],), r"after sample 5 has label 0\.5; class labels"),
        (([(x[:5], np.where(y[:5] == 1, np.nan, y[:5]))],), "after sample 0 has label nan"),
        (([(x[:5], np.where(y[:5] == 1, np.inf, y[:5]))],), "after sample 0 has label inf; class"),
        (([(x[:5], y[:5], np.ones((5, 1)))],), r"weights of a block after .* have shape \(5, 1\)"),
        ((x * 1e200, y), "feature 1 is too large: its variance"),
        ((iter([]),), "holds no samples"),
        ((x, np.zeros(len(x))), "only one class"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            head.fit(*arguments)
    with pytest.raises(ValueError, match=r"every sample weight is 0|zero"):
        head.fit(x, y, sample_weight=np.zeros(len(y)))
    with pytest.raises(ValueError, match="sample weights in its blocks"):
        head.fit(blocks(x, y), sample_weight=np.ones(len(y)))
    fitted = VarProHead("gcv").partial_fit(x, y)
    with pytest.raises(ValueError, match="label 11 isn't among the classes"):
        fitted.partial_fit(x[:2], np.array([1, 11]))
    with pytest.raises(ValueError, match="label 11 isn't one of"):
        fitted.likely_wrong_labels(x[:2], np.array([1, 11]))
    with pytest.raises(AttributeError, match="isn't fitted"):
        _ = VarProHead().coef_
    with pytest.raises(ValueError, match="no backbone"):
        fitted.attach()
    with pytest.raises(ValueError, match=r"after sample 100 has 60 features, .* fitted on 64"):
        fitted.predict([(x[:100], y[:100]), (x[100:200, :60], y[100:200])])
    with pytest.raises(ValueError, match="the iterable holds no samples"):
        fitted.predict(iter([]))
    with pytest.raises(ValueError, match="merge takes a VarProHead or its statistics_, got str"):
        fitted.merge("elsewhere")
    with pytest.raises(NotFittedError):
        fitted.merge(VarProHead())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["a", 1, "b"] * 4, dtype=object), "are of the kinds int, str; integers alone or"),
        (["a", 1, "b"] * 4, "are of the kinds int, str; integers alone or class names alone are"),
        (np.array(["a", None, "b"] * 4, dtype=object), "Label None of row 1 of .* is none; "),
        ([1, None, 2] * 4, "Label None of row 1 of .* is none; integers or class names are"),
        (["a", float("nan"), "b"] * 4, "Label nan of row 1 of .* is none"),
        (np.array([0.5, 1.5, 2.5] * 4, dtype=object), "are of the kinds float"),
        (np.array(["a", "b", "c"] * 4, dtype=np.dtypes.StringDType()), r"have type StringDType"),
        ("missing", "are of the kinds NAType, str; integers alone"),
    ],
)
def test_labels_that_cannot_be_sorted_are_said(labels, message):
    if isinstance(labels, str):
        pandas = pytest.importorskip("pandas")
        labels = pandas.Series(["a", pandas.NA, "b"] * 4, dtype="string")
    x = np.random.default_rng(0).standard_normal((12, 3))
    with pytest.raises(ValueError, match=rf"of y .*{message}|{message}"):
        VarProHead(1.0).fit(x, labels)
    with pytest.raises(ValueError, match="a block after sample 0"):
        VarProHead(1.0).fit([(x, labels)])
    with pytest.raises(ValueError, match=message):
        VarProHead(1.0).partial_fit(x, np.arange(12) % 3, classes=labels)


def test_labels_that_are_objects_stay_or_become_what_they_are():
    x = np.random.default_rng(0).standard_normal((12, 3))
    for kind, wanted in ((str, "O"), (int, "i"), (bool, "b")):
        labels = np.array([kind(i % 2) for i in range(12)], dtype=object)
        for head in (VarProHead(1.0).fit(x, labels), VarProHead(1.0).fit([(x, labels)])):
            assert head.classes_.dtype.kind == wanted
            assert head.classes_.tolist() == sorted(set(labels))


def test_features_that_never_vary_give_the_classes_shares():
    head = VarProHead().fit(np.ones((12, 3)), np.arange(12) % 4 // 3)
    np.testing.assert_allclose(head.outputs(np.ones((2, 3))), [[0.75, 0.25]] * 2)


def test_half_precision_tensors_and_unlabelled_lists(digits):
    x, y = digits
    head = VarProHead("gcv").fit(x, y)
    tensor = torch.as_tensor(x).bfloat16()  # pixels from 0 to 16 are exact in it
    for given in ((tensor, y), ([(tensor, torch.as_tensor(y))],)):
        equal(VarProHead("gcv").fit(*given), head, x)
    np.testing.assert_allclose(head.outputs(tensor), head.outputs(x))
    for parts in ([x[:900], x[900:]], [tensor[:900], tensor[900:]]):
        np.testing.assert_allclose(head.outputs(parts), head.outputs(x))


class Fickle:
    """An iterable that gives less the second time."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        now, self.pairs = self.pairs, self.pairs[1:]
        return iter(now)


def test_an_iterable_that_changes_is_noticed(digits):
    with pytest.raises(ValueError, match="the first time and 1697 the second"):
        VarProHead().fit(Fickle(blocks(*digits)))


def test_class_weights_by_number_are_of_labels_of_any_type(digits):
    X, y = digits[0][:200].reshape(200, -1), digits[1][:200]
    one = VarProHead(2.0, class_weight={0: 2.0, 9: 0.5}).fit(X, y)
    for labels in (y.astype(float), y.astype(np.uint8)):
        other = VarProHead(2.0, class_weight={0: 2.0, 9: 0.5}).fit(X, labels)
        np.testing.assert_array_equal(other.coef_, one.coef_)


def test_samples_without_weight_leave_a_temperature(digits):
    X, y = digits[0].reshape(len(digits[0]), -1), digits[1]
    X, y = np.repeat(X[:1500], 8, axis=0), np.repeat(y[:1500], 8)
    weights = np.arange(len(y)) % 2
    head = VarProHead(2.0).fit(X, y, sample_weight=weights)
    alone = VarProHead(2.0).fit(X[1::2], y[1::2])
    assert head.temperature_ < 3
    assert abs(np.log(head.temperature_ / alone.temperature_)) < 1  # it was 100
