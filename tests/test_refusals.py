"""A refused call leaves an estimator as it was: its attributes, and what it predicts."""

import copy

import numpy as np
import pytest
from PIL import Image

from rankwise import (
    FixedRidge,
    LowRankAugmenter,
    QuadraticClassifier,
    RandomLowRank,
    Refine,
    Subnetworks,
    UnitForm,
    VarProHead,
)
from rankwise._fingerprints import fingerprint
from rankwise.data import ImageSet
from rankwise.errors import RankwiseError
from rankwise.estimators.options import classifier_of

RNG = np.random.default_rng(0)
IMAGES = RNG.random((60, 4, 4))
NAMES = np.array(["cat", "dog", "owl"])[np.arange(60) % 3]
OTHER = np.array(["x", "y"])[np.arange(60) % 2]
FEATURES = IMAGES.reshape(60, 16)
REFUSED = (ValueError, TypeError, RankwiseError, KeyboardInterrupt)


def unchanged(estimator, call):
    """Make a call that must be refused, and compare everything with before."""
    before = fingerprint(vars(estimator), package=False)
    with pytest.raises(REFUSED):
        call(estimator)
    assert fingerprint(vars(estimator), package=False) == before


def with_nan(x):
    x = x.copy()
    x[3] = np.nan
    return x


# -- QuadraticClassifier ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier():
    return classifier_of(n_units=6, n_subnets=2, max_iter=2).fit(IMAGES, NAMES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "nonsense"},
        {"preset": "small", "n_subnets": 3},
        {"unit": "nonsense"},
        {"unit": "colour"},
        {"unit": UnitForm(activation="nonsense")},
        {"unit": UnitForm(rank=0)},
        {"unit": UnitForm(window=(2.0, 3.0))},
        {"n_units": 7, "n_subnets": 2},
        {"solver": "nonsense"},
        {"subnets": Subnetworks(jacobian="nonsense")},
        {"ridge": "nonsense"},
        {"unit": UnitForm(start="nonsense")},
        {"refine": "nonsense"},
        {"refine": Refine(1, augmentation="nonsense")},
        {"ridge": FixedRidge(method="nonsense")},
        {"image_shape": (3, 3)},
        {"n_jobs": 0},
        {"n_jobs": "two"},
        {"verbose": "much"},
        {"device": "nonsense"},
        {"subnets": Subnetworks(dtype="float16")},
        {"random_state": -1},
    ],
    ids=str,
)
@pytest.mark.parametrize("fitted", [True, False])
def test_a_fit_with_a_wrong_parameter(classifier, wrong, fitted):
    model = copy.deepcopy(classifier) if fitted else QuadraticClassifier()
    given = {name: getattr(model, name) for name in wrong}
    model.set_params(**wrong)
    unchanged(model, lambda m: m.fit(IMAGES, OTHER))
    if fitted:
        model.set_params(**given)
        np.testing.assert_array_equal(model.outputs(IMAGES), classifier.outputs(IMAGES))
        assert set(model.predict(IMAGES)) <= set(NAMES)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.fit(with_nan(IMAGES), OTHER),
        lambda m: m.fit(IMAGES * 1e35, OTHER),
        lambda m: m.fit(IMAGES[:9], OTHER),
        lambda m: m.fit(IMAGES, ["one"] * 60),
        lambda m: m.fit(IMAGES, RNG.random(60)),
        lambda m: m.fit(IMAGES, OTHER, groups=[1, 2]),
        lambda m: m.set_params(n_units=12, nonsense=1),
        lambda m: m.predict(IMAGES[:, :3]),
        lambda m: m.predict(with_nan(IMAGES)),
        lambda m: m.predict_proba(FEATURES[:, :9]),
        lambda m: m.bootstrap_transductive(with_nan(IMAGES)),
        lambda m: m.bootstrap_transductive(IMAGES, margin="wide"),
    ],
)
def test_calls_that_a_classifier_refuses(classifier, call):
    model = copy.deepcopy(classifier)
    unchanged(model, call)
    np.testing.assert_array_equal(model.outputs(IMAGES), classifier.outputs(IMAGES))


def test_a_fit_that_is_interrupted_or_finds_another_s_folder(classifier, tmp_path, monkeypatch):
    model = copy.deepcopy(classifier)
    model.fit(IMAGES, NAMES, checkpoint_dir=tmp_path)
    unchanged(model, lambda m: m.fit(IMAGES[::-1], OTHER, checkpoint_dir=tmp_path))

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("rankwise.estimators.quadratic.fit_subnetworks", interrupted)
    unchanged(model, lambda m: m.fit(IMAGES, NAMES))
    unchanged(model, lambda m: m.bootstrap_transductive(IMAGES))


# -- VarProHead -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head():
    head = VarProHead().fit(FEATURES, NAMES)
    head.outputs(FEATURES)
    return head


def bad_blocks():
    yield FEATURES[:30], OTHER[:30]
    yield with_nan(FEATURES[30:]), OTHER[30:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -1.0},
        {"alpha": "nonsense"},
        {"alpha": "gcv", "loss": "logistic"},
        {"alphas": []},
        {"loss": "nonsense"},
        {"max_passes": 0},
        {"rank": 0},
        {"batch_size": 0},
        {"block_size": 0},
        {"class_weight": {"x": -1.0}},
        {"device": "nonsense"},
        {"backbone": "nonsense"},
    ],
    ids=str,
)
@pytest.mark.parametrize("fitted", [True, False])
def test_a_head_with_a_wrong_parameter(head, wrong, fitted):
    model = copy.deepcopy(head) if fitted else VarProHead()
    given = {name: getattr(model, name) for name in wrong}
    model.set_params(**wrong)
    unchanged(model, lambda m: m.fit(FEATURES, OTHER))
    if fitted:
        model.set_params(**given)
        np.testing.assert_array_equal(model.outputs(FEATURES), head.outputs(FEATURES))


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.fit(with_nan(FEATURES), OTHER),
        lambda m: m.fit(FEATURES[:9], OTHER),
        lambda m: m.fit(FEATURES, ["one"] * 60),
        lambda m: m.fit(FEATURES, OTHER, sample_weight=np.zeros(60)),
        lambda m: m.fit(FEATURES, OTHER, sample_weight=-np.ones(60)),
        lambda m: m.fit(bad_blocks()),
        lambda m: m.partial_fit(FEATURES[:, :9], NAMES),
        lambda m: m.partial_fit(FEATURES, OTHER),
        lambda m: m.partial_fit(with_nan(FEATURES), NAMES),
        lambda m: m.partial_fit(bad_blocks()),
        lambda m: m.partial_fit(FEATURES, NAMES, classes=["cat", "cow"]),
        lambda m: m.merge("a head"),
        lambda m: m.merge(VarProHead()),
        lambda m: m.merge(VarProHead().fit(FEATURES[:, :9], NAMES)),
        lambda m: m.unlearn(FEATURES[:, :9], NAMES),
        lambda m: m.unlearn(np.vstack([FEATURES] * 2), np.r_[NAMES, NAMES]),
        lambda m: m.unlearn(FEATURES, OTHER),
        lambda m: m.set_params(alpha=1.0, nonsense=1),
        lambda m: m.predict(FEATURES[:, :9]),
        lambda m: m.predict(with_nan(FEATURES)),
        lambda m: m.likely_wrong_labels(FEATURES, OTHER),
    ],
)
def test_calls_that_a_head_refuses(head, call):
    model = copy.deepcopy(head)
    unchanged(model, call)
    np.testing.assert_array_equal(model.outputs(FEATURES), head.outputs(FEATURES))


# -- low-rank copies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t(np.zeros(4)),
        lambda t: t(np.full((8, 8, 3), np.nan)),
        lambda t: t(Image.new("P", (8, 8))),
        lambda t: t({"picture": 1}),
        lambda t: t(()),
        lambda t: t(np.zeros((8, 8, 3), np.uint8), source_id=["a", "b"]),
        lambda t: t.draw(3, ["a"]),
    ],
)
def test_a_transform_that_refuses_an_image_draws_nothing(call):
    transform, twin = RandomLowRank(p=1, seed=1), RandomLowRank(p=1, seed=1)
    unchanged(transform, call)
    image = RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for _ in range(3):
        np.testing.assert_array_equal(transform(image), twin(image))


def test_an_augmenter_that_refuses_a_cache_stays_as_it_was(tmp_path):
    pixels = RNG.integers(0, 256, (20, 8, 8)).astype(np.uint8)
    images = ImageSet.from_arrays(pixels, np.arange(20) % 2)
    augmenter = LowRankAugmenter(RandomLowRank(p=0.5, seed=1))
    augmenter.augment(images, cache=tmp_path)
    other = LowRankAugmenter(RandomLowRank(p=0.5, seed=2))
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    unchanged(other, lambda a: a.augment(images, cache=tmp_path))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
