"""Index arithmetic of the protocols, on examples that a hand can follow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.data import ImageSet
from rankwise.errors import DataError
from rankwise.study.cuts import cut
from rankwise.study.design_parts import Arm
from rankwise.study.protocols import (
    Part,
    Split,
    cut_folds,
    hold_out,
    leaks,
    most_folds,
    protocol_of,
    retraining_epochs,
    taken,
    with_copies,
)
from rankwise.study.reading import study_from

PAPER, SOUND, NOTEBOOK = (protocol_of(name) for name in ("paper", "sound", "notebook"))


def image_set(n=60, sources=None, seed=0):
    """Images that can be told apart, two classes, `sources` of them one after another."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, 6, 6), dtype=np.uint8)
    ids = np.arange(n) // (n // sources) if sources else np.arange(n)
    return ImageSet.from_arrays(images, ids % 2 if sources else np.arange(n) % 2, source_ids=ids)


def study(protocol, **more):
    return study_from(
        {
            "protocol": protocol,
            "data": {"d": {"source": "digits"}},
            "models": ["simple-cnn"],
            "arms": ["none"],
            "folds": 3,
        }
        | more
    )


# -- E* -------------------------------------------------------------------------------------


def test_retraining_epochs_by_hand():
    # mean 8.6, times 1.2 is 10.32.
    assert retraining_epochs(PAPER, [9, 10, 7, 8, 9]) == 10
    # mean 9.2, times 1.2 is 11.04; (9.2 - 1) times 1.2 is 9.84, truncated.
    assert retraining_epochs(PAPER, [9, 10, 9, 9, 9]) == 11
    assert retraining_epochs(NOTEBOOK, [9, 10, 9, 9, 9]) == 9
    # mean 8 times 1.2 is 9.6.
    assert retraining_epochs(PAPER, [8, 8]) == 10
    assert retraining_epochs(NOTEBOOK, [1, 1]) == 1
    assert retraining_epochs(PAPER, [1]) == 1
    # The same procedure as in the folds: mean 9.2.
    assert retraining_epochs(SOUND, [9, 10, 9, 9, 9]) == 9


# -- leaks ----------------------------------------------------------------------------------


def test_leaks_by_hand():
    ids = np.array(["a", "a", "b", "c", "d", "e"])
    train = with_copies(np.array([0, 2]), np.array([0, 0, 3, 4]))
    split = Split(train, Part(np.array([1, 3])), Part(np.array([4, 5])))
    # Train holds a, b, c, d; validation a, c; test d, e. Copies: a, a, c, d.
    assert leaks(split, ids) == {
        "train_validation": 2,
        "train_test": 1,
        "validation_test": 0,
        "copies_of_validation_in_train": 3,
        "copies_of_test_in_train": 1,
    }
    empty = Part(np.zeros(0, np.int64))
    clean = Split(Part(np.array([0, 1])), empty, Part(np.array([2])))
    assert set(leaks(clean, ids).values()) == {0}


def test_parts_by_hand():
    part = with_copies(np.array([5, 7, 9]), np.array([7]))
    assert part.rows.tolist() == [5, 7, 9, 7]
    assert part.is_copy.tolist() == [False, False, False, True]
    some = taken(part, np.array([3, 0]))
    assert (some.originals.tolist(), some.copied.tolist()) == ([5], [7])
    assert len(part) == 4


# -- hold-out and folds ---------------------------------------------------------------------


def test_hold_out_of_the_paper_ignores_sources():
    labels, ids = np.arange(100) % 2, np.arange(100) // 10
    rest, test = hold_out(PAPER, labels, ids, 0.2, 42)
    assert len(test) == 20
    assert labels[test].sum() == 10
    assert np.intersect1d(ids[rest], ids[test]).size > 0
    rest, test = hold_out(SOUND, labels, ids, 0.2, 42)
    assert np.intersect1d(ids[rest], ids[test]).size == 0
    assert sorted([*rest, *test]) == list(range(100))


@given(st.integers(20, 60), st.integers(2, 5), st.integers(0, 5), st.sampled_from([PAPER, SOUND]))
def test_folds_are_a_partition(n, folds, seed, protocol):
    labels = np.arange(n) % 2
    ids = np.arange(n) // 2
    parts = cut_folds(protocol, labels, ids, folds, seed)
    assert sorted(np.concatenate([held for _, held in parts])) == list(range(n))
    for rest, held in parts:
        assert sorted([*rest, *held]) == list(range(n))
        if protocol is SOUND:
            assert not set(ids[rest]) & set(ids[held])


def test_folds_keep_classes_and_depend_on_the_seed():
    labels = np.arange(40) % 4
    parts = cut_folds(PAPER, labels, np.arange(40), 5, 1)
    assert all(np.bincount(labels[held]).tolist() == [2, 2, 2, 2] for _, held in parts)
    same = cut_folds(SOUND, labels, np.arange(40), 5, 1)
    other = cut_folds(SOUND, labels, np.arange(40), 5, 2)
    assert all((a[1] == b[1]).all() for a, b in zip(parts, same, strict=True))
    assert any((a[1] != b[1]).any() for a, b in zip(parts, other, strict=True))


def test_too_few_for_the_folds():
    labels = np.arange(12) % 2
    with pytest.raises(DataError, match="5 folds need as many sources, and there are 3; use fewer"):
        cut_folds(SOUND, labels, np.arange(12) // 4, 5, 0)
    with pytest.raises(DataError, match="training images of any class, and there are 6"):
        cut_folds(PAPER, labels, np.arange(12), 7, 0)
    assert most_folds(SOUND, labels, np.arange(12) // 4) == 3
    assert most_folds(PAPER, labels, np.arange(12) // 4) == 6
    assert most_folds(PAPER, labels[:0], labels[:0]) == 0


# -- cuts -----------------------------------------------------------------------------------

ARM = Arm(kind="duplicate", skip_threshold=0.5)


def of_part(part, pixels, images):
    """Every image of a part is, or is a copy of, the row that the part names."""
    return (images.images[part.rows] == pixels[0]).all() and (
        images.labels[part.rows] == pixels[1]
    ).all()


@pytest.mark.parametrize("protocol", ["paper", "sound"])
def test_a_fold_without_leaks(protocol):
    images = image_set()
    held = []
    for fold in range(3):
        parts = cut(study(protocol), ARM, images, 42, fold)
        split = parts.split
        assert set(leaks(split, images.source_ids).values()) == {0}
        assert len(split.train.originals) + len(split.validation) == 48
        assert len(split.test) == 12
        assert set(split.train.copied) <= set(split.train.originals)
        assert 0 < len(split.train.copied) < 32
        assert not split.validation.is_copy.any()
        assert not split.test.is_copy.any()
        assert of_part(split.train, parts.train, images)
        assert of_part(split.validation, parts.validation, images)
        assert parts.whole is None
        held += split.validation.rows.tolist()
    assert len(set(held)) == 48
    # Copies aren't at the end: all is shuffled (paper, 3.2).
    assert split.train.is_copy[: len(split.train.originals)].any()


def test_sources_stay_together_under_the_sound_protocol_only():
    images = image_set(sources=20)
    sound = cut(study("sound"), ARM, images, 42, 0).split
    assert set(leaks(sound, images.source_ids).values()) == {0}
    paper = leaks(cut(study("paper"), ARM, images, 42, 0).split, images.source_ids)
    assert paper["train_validation"] > 0
    assert paper["train_test"] > 0
    assert paper["copies_of_validation_in_train"] > 0


def test_retraining_takes_the_whole_training_part():
    images = image_set()
    parts = cut(study("paper"), ARM, images, 42, None)
    assert len(parts.split.train.originals) == 48
    assert parts.validation is None
    assert len(parts.split.validation) == 0
    assert set(leaks(parts.split, images.source_ids).values()) == {0}


def test_the_notebook_leaks_as_the_public_code():
    images = image_set(n=120)
    split = cut(study("notebook"), ARM, images, 42, 0).split
    found = leaks(split, images.source_ids)
    assert found["copies_of_validation_in_train"] > 0
    assert found["train_validation"] > 0
    assert found["train_test"] == 0
    # Copies are among the validation images, too.
    assert split.validation.is_copy.any()
    # With 3 folds about two thirds of a validation image's copies are trained on.
    originals = set(split.validation.originals.tolist())
    copied = [row for row in split.train.copied.tolist() if row in originals]
    everywhere = copied + [r for r in split.validation.copied.tolist() if r in originals]
    assert 0.4 < len(copied) / len(everywhere) < 0.9
    again = cut(study("notebook"), ARM, images, 42, None)
    found = leaks(again.split, images.source_ids)
    assert found["train_test"] == 24
    assert of_part(again.split.train, again.train, images)
    assert len(again.split.train.originals) == 120


def test_the_notebook_s_shared_stage_has_seen_all_folds():
    images = image_set(n=120)
    parts = cut(study("notebook"), ARM, images, 42, 1)
    assert len(parts.whole[0]) == 96 + len(
        [*parts.split.train.copied, *parts.split.validation.copied]
    )
    assert of_part(parts.split.validation, parts.validation, images)


def test_test_part_and_cuts_do_not_depend_on_the_arm():
    images = image_set()
    cuts = [
        cut(study("sound"), arm, images, 7, 1).split
        for arm in (Arm(kind="none"), ARM, Arm(kind="low-rank", skip_threshold=0.5))
    ]
    for other in cuts[1:]:
        assert (other.test.rows == cuts[0].test.rows).all()
        assert (other.validation.rows == cuts[0].validation.rows).all()
        assert set(other.train.originals) == set(cuts[0].train.originals)
    # The same images are copied, whatever the copies are.
    assert sorted(cuts[1].train.copied) == sorted(cuts[2].train.copied)
    assert len(cuts[0].train.copied) == 0


def test_seeds_change_folds_and_copies_but_not_the_test_part():
    images = image_set()
    first, second = (cut(study("sound"), ARM, images, seed, 0).split for seed in (1, 2))
    assert (first.test.rows == second.test.rows).all()
    assert not np.array_equal(first.validation.rows, second.validation.rows)


def test_a_matching_arm_counts_copies_that_it_does_not_make():
    images = image_set()
    arm = Arm(kind="matched", skip_threshold=0.5)
    parts = cut(study("paper"), arm, images, 42, 0)
    copies = cut(study("paper"), ARM, images, 42, 0)
    assert len(parts.split.train.copied) == 0
    assert parts.n_virtual == len(copies.split.train.copied)
