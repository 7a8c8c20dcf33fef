"""What is found of images and labels, against slow references and planted faults."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

import explore_oracle as oracle
from rankwise import VarProHead
from rankwise.data import ImageSet
from rankwise.data.repeats import CLOSER, NEAR, same_looking, thumbnails
from rankwise.explore import faults, scores
from rankwise.explore.neighbours import leading, votes
from rankwise.explore.seen import LeftOut, Seen, left_out


class Classes:
    """A model of nothing but its classes."""

    def __init__(self, n):
        self.classes_ = np.arange(n)


def part_of(images, labels, features, *, part="train", n_classes=None):
    n_classes = n_classes or int(labels.max()) + 1
    names = [str(c) for c in range(n_classes)]
    outputs = np.zeros((len(labels), n_classes))
    return Seen(
        part, ImageSet.from_arrays(images, labels, names), labels, features, outputs, outputs
    )


@pytest.mark.parametrize("shape", [(8, 8), (20, 33), (40, 16, 3)])
def test_thumbnails_are_averages_over_cells(shape):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    for side in (16, 32):
        expected = [oracle.small(image, side) for image in images]
        np.testing.assert_allclose(thumbnails(images, side), expected, atol=1e-4)


def test_pairs_are_those_of_all_pairs(digits):
    images = digits[0][:700].copy()
    images[650:700] = np.clip(images[:50].astype(int) + 3, 0, 255)
    images[600] = images[500]
    found = same_looking(images)
    small, large = thumbnails(images), thumbnails(images, 32)
    near = (small @ small.T >= NEAR) & (large @ large.T >= CLOSER)
    i, j = np.nonzero(np.triu(near, 1))
    expected = {(a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True)}
    got = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    # Of exact repeats the first alone is compared with others.
    assert got == {(a, b) for a, b in expected if 600 not in (a, b)} | {(500, 600)}
    assert (found.first[0], found.second[0], found.likeness[0]) == (500, 600, 2.0)
    assert (np.diff(found.likeness) <= 0).all()
    assert len(expected & {(k, k + 650) for k in range(50)}) == 50
    assert not found.more


def test_more_pairs_than_are_kept_are_told():
    image = np.random.default_rng(0).integers(0, 200, (8, 8)).astype(np.uint8)
    images = np.stack([image + k for k in range(40)]).astype(np.uint8)
    found = same_looking(images, most=20)
    assert found.more


def test_repeats_are_groups_of_all_parts(digits):
    images = digits[0][:60].copy()
    images[[7, 55]] = images[3]
    images[20] = images[19]
    parts = np.where(np.arange(60) < 50, "train", "test")
    truth = np.zeros(60, int)
    truth[20] = 1
    groups = [g for g in faults.repeated(images, parts, truth) if g["exact"]]
    assert [g["rows"] for g in groups] == [[3, 7, 55], [19, 20]]
    assert [(g["across"], g["labels_differ"]) for g in groups] == [(True, False), (False, True)]
    assert groups[0]["likeness"] == 1.0


def test_left_out_outputs_are_those_of_refits():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    truth = rng.integers(0, 3, 40)
    images = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    train = part_of(images[:30], truth[:30], features[:30], n_classes=3)
    test = part_of(images[30:], truth[30:], features[30:], part="test", n_classes=3)
    found = left_out(Classes(3), [train, test])
    assert found.outputs.shape == (40, 3)
    expected = oracle.left_out(features[:30].astype(float), truth[:30], 3, found.alpha)
    np.testing.assert_allclose(found.outputs[:30], expected, atol=1e-8)
    alone = left_out(Classes(3), [test])
    np.testing.assert_array_equal(alone.outputs, test.outputs)


def test_copies_do_not_speak_for_each_others_labels():
    """All of a group have the outputs of a layer that saw none of them."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    truth = rng.integers(0, 3, 40)
    features[7], truth[7] = features[3], truth[3]
    features[9], truth[9] = features[5], (truth[5] + 1) % 3
    images = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    train = part_of(images, truth, features, n_classes=3)
    groups = [{"rows": [3, 7, 44]}, {"rows": [5, 9]}, {"rows": [11, 41]}]
    found = left_out(Classes(3), [train], groups)
    fitted = np.setdiff1d(np.arange(40), [5, 7, 9])
    expected = oracle.left_out(features[fitted].astype(float), truth[fitted], 3, found.alpha)
    np.testing.assert_allclose(found.outputs[fitted], expected, atol=1e-8)
    np.testing.assert_array_equal(found.outputs[7], found.outputs[3])
    plain = VarProHead(found.alpha).fit(features[fitted], truth[fitted])
    np.testing.assert_allclose(found.outputs[[5, 9]], plain.outputs(features[[5, 9]]), atol=1e-8)
    # Where a class would be lost, its images are fitted for all that.
    groups = [{"rows": np.flatnonzero(truth == k).tolist()} for k in range(3)]
    kept = left_out(Classes(3), [train], groups)
    np.testing.assert_array_equal(kept.outputs, left_out(Classes(3), [train]).outputs)


@pytest.mark.parametrize("n", [2, 15, 60])
def test_votes_are_the_labels_of_the_nearest(n):
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n + 5, 6)).astype(np.float32)
    truth = rng.integers(0, 3, n + 5)
    voters = np.arange(n)
    twin = np.arange(n + 5)
    twin[n] = 0  # a copy of the first
    features[n] = features[0]
    found = votes(features, truth, voters, twin, 3)
    np.testing.assert_allclose(found, oracle.votes(features, truth, voters, twin, 3), atol=1e-12)
    np.testing.assert_array_equal(found[n], found[0])
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert not votes(features, truth, voters[:1], twin, 3).any()


def test_votes_and_outputs_speak_together():
    outputs = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    near = np.array([[0.9, 0.1], [0.0, 1.0], [0.5, 0.5]])
    found = faults.wrong_labels(LeftOut(outputs, 1.0, 1.0, near), np.array([0, 0, 1]))
    np.testing.assert_array_equal(found.rows, [1, 2, 0])
    np.testing.assert_allclose(found.margins, [-0.8, 0.2, 1.6])


def test_a_class_without_training_images_is_never_suspected():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4)).astype(np.float32)
    images = rng.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    truth = np.arange(30) % 2
    found = left_out(Classes(3), [part_of(images, truth, features, n_classes=3)])
    assert (faults.wrong_labels(found, truth).others < 2).all()


def test_wrong_labels_come_first(digits):
    images, labels = digits
    truth = labels.copy()
    rng = np.random.default_rng(1)
    planted = rng.choice(len(truth), 18, replace=False)
    truth[planted] = (truth[planted] + rng.integers(1, 10, 18)) % 10
    features = (images.reshape(len(images), -1) / 255).astype(np.float32)
    features = np.hstack(
        [features, features**2, np.tanh(features @ rng.normal(size=(64, 300)) / 4)]
    )
    seen = part_of(images, truth, features.astype(np.float32))
    found = faults.wrong_labels(left_out(Classes(10), [seen]), truth)
    assert np.isin(planted, found.rows[:36]).mean() >= 0.9
    assert (np.diff(found.margins) >= 0).all()
    assert found.n_against == (found.margins < 0).sum()
    others = dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))
    assert np.mean([others[i] == labels[i] for i in planted]) >= 0.9
    assert (found.probabilities[:18] < 0.5).all()
    assert 9 <= found.n_likely <= 27


def test_unsure_outputs_are_no_sign_of_wrong_labels():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(5, 0.4), 4000)
    truth = np.array([rng.choice(5, p=p) for p in shares])
    layer = LeftOut(np.log(shares + 1e-12), 1.0, 1.0, np.zeros_like(shares))
    found = faults.wrong_labels(layer, truth)
    assert found.n_likely == 0
    assert found.n_against > 300
    truth[:200] = (truth[:200] + 1) % 5
    assert 60 <= faults.wrong_labels(layer, truth).n_likely <= 240


def test_a_weak_model_says_nothing_of_classes():
    rng = np.random.default_rng(0)
    truth = np.arange(900) % 4
    outputs = np.eye(4)[truth] + 1.5 * rng.normal(size=(900, 4))
    assert not any(
        p["may"]
        for p in faults.one_class(LeftOut(outputs, 1.0, 1.0, np.zeros_like(outputs)), truth)
    )


def test_what_is_far_from_all_comes_first():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 8)).astype(np.float32)
    features[17] = 12.0
    rows, distances = faults.far(features)
    assert rows[0] == 17
    assert distances[0] > faults.FAR
    assert np.median(distances) == pytest.approx(1.0)
    whole = np.array([np.sort(np.linalg.norm(features - f, axis=1))[1:6].mean() for f in features])
    assert np.corrcoef(whole[rows], distances)[0, 1] > 0.95
    assert len(faults.far(features[:5])[0]) == 0


def test_blank_images_are_found():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    images[2], images[4] = 255, 7
    assert faults.blank(images).tolist() == [2, 4]


def test_a_class_under_two_names_is_found():
    rng = np.random.default_rng(0)
    truth = np.arange(900) % 3
    outputs = np.eye(3)[truth] + 0.2 * rng.normal(size=(900, 3))
    twins = np.isin(truth, [1, 2])
    outputs[twins, 1:] = 0.5 + 0.2 * rng.normal(size=(twins.sum(), 2))
    found = faults.one_class(LeftOut(outputs, 1.0, 1.0, np.zeros_like(outputs)), truth)
    assert [pair["classes"] for pair in found if pair["may"]] == [[1, 2]]
    assert found[0]["classes"] == [1, 2]
    right = np.mean(outputs[truth == 1, 1] > outputs[truth == 1, 2])
    right += np.mean(outputs[truth == 2, 2] > outputs[truth == 2, 1])
    assert found[0]["apart"] == pytest.approx(right / 2)
    assert found[0]["low"] < found[0]["apart"] < found[0]["high"] < faults.ONE_CLASS


@given(st.integers(0, 60), st.integers(0, 60))
def test_an_interval_holds_its_share(right, wrong):
    low, high = scores.interval(right, right + wrong)
    assert 0.0 <= low <= high <= 1.0
    if right + wrong:
        known = binomtest(right, right + wrong).proportion_ci(0.95, method="wilson")
        assert (low, high) == pytest.approx((known.low, known.high))


def test_counts_bins_and_rejection():
    truth, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0])
    counts = scores.confusion(truth, predicted, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert [row["right"] for row in scores.by_class(counts)] == [1, 1, 1]
    confidence = np.array([0.95, 0.4, 0.95, 0.7, 0.4])
    bins = scores.reliability(confidence, truth == predicted)
    assert [(b["n"], b["accuracy"]) for b in bins] == [(2, 0.0), (1, 1.0), (2, 1.0)]
    points = scores.rejection(confidence, truth == predicted)
    # Those of one confidence stay or go together.
    assert [(round(p["rejected"], 9), p["accuracy"]) for p in points] == [
        (0.0, 0.6), (0.4, 1.0), (0.6, 1.0)
    ]  # fmt: skip
    assert scores.rejection(np.zeros(0), np.zeros(0, bool)) == []


@pytest.mark.parametrize("shape", [(30, 200), (200, 30)])
def test_leading_directions_are_those_of_the_covariance(shape):
    """Of fewer images than features without it, which takes its side cubed."""
    points = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    found = leading(points, 5)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    np.testing.assert_allclose(found.explained_variance_, values[::-1][:5])
    np.testing.assert_allclose(
        np.abs(found.components_ @ vectors[:, ::-1][:, :5]), np.eye(5), atol=1e-8
    )
