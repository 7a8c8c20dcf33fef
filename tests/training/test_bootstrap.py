"""Guessing labels by the paper's rule."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.training.bootstrap import guess_labels


def test_the_rule_by_hand():
    outputs = np.array(
        [
            [0.50, 0.39, 0.11],  # 0.11 > 0.2 · 0.50: clear
            [0.50, 0.41, 0.09],  # 0.09 < 0.10: ambiguous
            [5.00, 3.90, 1.10],  # the first again: outputs are normalised
            [1 / 3, 1 / 3, 1 / 3],
            [-5.0, 1.0, 1.0],  # no positive sum to normalise by
        ]
    )
    guesses, ambiguous = guess_labels(outputs, np.random.default_rng(0))
    np.testing.assert_array_equal(ambiguous, [False, True, False, True, True])
    np.testing.assert_array_equal(guesses[~ambiguous], [0, 0])


@given(seed=st.integers(0, 2**31), margin=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_clear_guesses_are_the_largest_output_and_a_wider_margin_is_never_clearer(seed, margin):
    rng = np.random.default_rng(seed)
    outputs = rng.dirichlet(np.ones(4), size=20)
    guesses, ambiguous = guess_labels(outputs, rng, margin)
    assert np.array_equal(guesses[~ambiguous], outputs.argmax(axis=1)[~ambiguous])
    assert np.all((guesses >= 0) & (guesses < 4))
    _, wider = guess_labels(outputs, rng, min(1.0, margin + 0.1))
    assert np.all(wider | ~ambiguous)


def test_ambiguous_labels_are_drawn_from_all_classes():
    guesses, ambiguous = guess_labels(np.ones((300, 3)), np.random.default_rng(0))
    assert ambiguous.all()
    assert np.bincount(guesses, minlength=3).min() > 60
