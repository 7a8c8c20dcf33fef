"""Rank rules, by hand and by property, and the bounds that decide when to look closer."""

import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lowrank.photos import photo_crops
from rankwise.lowrank import OptionError, low_rank_approximation, rank_for_energy, spectrum
from rankwise.lowrank._eigen import Tridiagonal, grams
from rankwise.lowrank.options import resolve_options
from rankwise.lowrank.ranks import (
    check_energies,
    doubtful,
    energy_fractions,
    fraction_bounds,
    singular_value_bounds,
)

SIGMA = np.array([5.0, 3.0, 1.0, 1.0])  # energies 0.5, 0.8, 0.9, 1
IMAGE = np.zeros((8, 8), np.uint8)


@pytest.mark.parametrize(
    ("energy", "reach", "nearest"),
    [
        (0.5, 1, 1),
        (0.51, 2, 1),
        (0.66, 2, 2),
        (0.82, 3, 2),
        (0.86, 3, 3),
        (0.94, 4, 3),
        (0.96, 4, 4),
        (1.0, 4, 4),
    ],
)
def test_both_rules_on_a_spectrum_by_hand(energy, reach, nearest):
    assert rank_for_energy(SIGMA, energy, rank_rule="reach") == reach
    assert rank_for_energy(SIGMA, energy, rank_rule="nearest") == nearest


def test_squares_by_hand():
    # 25, 9, 1, 1 of 36: energies 0.694, 0.944, 0.972, 1
    assert rank_for_energy(SIGMA, 0.9, energy_of="sigma_squared") == 2
    assert rank_for_energy(SIGMA, 0.95, energy_of="sigma_squared") == 3
    assert rank_for_energy(SIGMA, 0.95, energy_of="sigma_squared", rank_rule="nearest") == 2


def test_references_choose_as_documented():
    paper, notebook = resolve_options("paper"), resolve_options("notebook")
    assert (paper.energy_of, paper.rank_rule, paper.channels) == ("sigma", "reach", "own")
    assert (notebook.energy_of, notebook.rank_rule, notebook.channels) == (
        "sigma",
        "nearest",
        "shared",
    )
    assert resolve_options("notebook", rank_rule="reach").rank_rule == "reach"


def test_one_energy_for_each_spectrum():
    ranks = rank_for_energy(np.stack([SIGMA, SIGMA]), np.array([0.5, 0.86]))
    assert ranks.tolist() == [1, 3]


@pytest.mark.parametrize("energy", [0, -0.1, 1.0001, np.nan, np.inf, "much"])
def test_energies_outside_the_range_are_refused(energy):
    with pytest.raises(OptionError, match="energy must"):
        rank_for_energy(SIGMA, energy)


@pytest.mark.parametrize(
    "option", [{"energy_of": "amplitude"}, {"rank_rule": "first"}, {"channels": "rgb"}]
)
def test_unknown_options_name_the_choices(option):
    with pytest.raises(OptionError, match="isn't one of '"):
        resolve_options("paper", **option)
    with pytest.raises(OptionError, match="'paper', 'notebook'"):
        resolve_options("code")


spectra = hnp.arrays(
    float, st.integers(1, 12), elements=st.floats(0, 1e6, allow_subnormal=False)
).map(lambda s: np.sort(s)[::-1].copy())


@given(spectra, st.floats(0.01, 1), st.sampled_from(["sigma", "sigma_squared"]))
def test_reach_is_the_first_and_nearest_the_nearest(sigma, energy, energy_of):
    fractions = energy_fractions(sigma, energy_of)
    reach = int(rank_for_energy(sigma, energy, energy_of=energy_of))
    nearest = int(rank_for_energy(sigma, energy, energy_of=energy_of, rank_rule="nearest"))
    if energy == 1:
        assert reach == nearest == sigma.size
        return
    assert fractions[reach - 1] >= energy
    assert reach == 1 or fractions[reach - 2] < energy
    assert np.abs(fractions[nearest - 1] - energy) == np.abs(fractions - energy).min()


@given(
    spectra,
    st.floats(0.01, 0.9999),
    st.floats(1e-9, 1e-2),
    st.sampled_from(["reach", "nearest"]),
    st.randoms(use_true_random=False),
)
def test_what_is_not_doubtful_survives_any_error_within_the_bounds(
    sigma, energy, size, rule, random
):
    fractions = energy_fractions(sigma)
    assume(not doubtful(fractions[None], np.array([[size]]), np.array(energy), rule).any())
    # Any monotone sequence within the bounds, ending at 1, has the same rank.
    moved = fractions + 0.99 * size * np.array([random.uniform(-1, 1) for _ in sigma])
    moved = np.minimum(np.maximum.accumulate(moved), 1)
    moved[-1] = 1
    weights = np.diff(moved, prepend=0)
    assume((weights >= 0).all() and (np.abs(moved - fractions) <= size).all())
    expected = rank_for_energy(sigma, energy, rank_rule=rule)
    if rule == "reach":
        assert np.flatnonzero(moved >= energy)[0] + 1 == expected
    else:
        assert np.abs(moved - energy).argmin() + 1 == expected


@pytest.mark.parametrize("size", [16, 100, 200])
def test_singular_values_lie_within_their_bounds(size):
    planes = photo_crops(size, 6).transpose(0, 3, 1, 2).reshape(-1, size, size).astype(float)
    planes[0, :, size // 2 :] = 0  # exactly rank deficient
    planes[1] = 255
    exact = np.linalg.svd(planes, compute_uv=False)
    values = np.stack([Tridiagonal(g).eigenvalues[::-1] for g in grams(planes, True, None)])
    sigma = np.sqrt(np.maximum(values, 0))
    bounds = singular_value_bounds(sigma, size)
    assert (np.abs(sigma - exact) <= bounds).all()
    # ... and the bounds are no hiding place: near the threshold they are a millionth of a step.
    assert np.median(bounds[2:] / exact[2:, :1]) < 1e-7
    for kind in ("sigma", "sigma_squared"):
        error = np.abs(energy_fractions(sigma, kind) - energy_fractions(exact, kind))
        assert (error <= fraction_bounds(sigma, bounds, kind)).all()


def test_ranks_of_a_tensors_spectrum_and_of_a_list():
    sigma = spectrum(torch.rand(2, 3, 8, 8))
    ranks = rank_for_energy(sigma, 0.9)
    assert ranks.shape == (2, 3)
    assert np.array_equal(ranks, rank_for_energy(sigma.numpy(), 0.9))
    assert int(rank_for_energy([5.0, 3.0, 1.0, 1.0], 0.82)) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_energies([]), "energy is an empty sequence; at least one number in (0, 1]"),
        (lambda: low_rank_approximation(IMAGE, energy=[]), "energy is an empty sequence"),
        (lambda: low_rank_approximation(IMAGE, rank=[]), "rank is an empty sequence; at least one"),
        (lambda: energy_fractions(SIGMA, "bogus"), "energy_of='bogus' isn't one of 'sigma', 'sigm"),
        (lambda: rank_for_energy(SIGMA[:0], 0.9), "sigma of shape (0,) holds no singular values"),
        (lambda: rank_for_energy(SIGMA, [0.9, 0.8]), "energies of shape (2,) don't fit spectra of"),
    ],
)
def test_what_has_no_answer_is_one_sentence(call, message):
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        call()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(("channels", "matrices", "n"), [("own", 3, 6), ("joint", 1, 8)])
def test_an_empty_batch_has_an_empty_spectrum(channels, matrices, n, dtype):
    images = np.zeros((0, 8, 6, 3), dtype)
    assert spectrum(images, channels=channels).shape == (0, matrices, n)
    assert spectrum(images, channels="luma-chroma").shape == (0, 3, 6)
    assert tuple(spectrum(torch.zeros(2, 0, 3, 8, 6)).shape) == (2, 0, 3, 6)


def test_energies_of_single_precision_are_added_in_double():
    torch = pytest.importorskip("torch")
    sigma = [5.0, 3.0, 1.0, 1.0]
    for values in (torch.tensor(sigma), torch.tensor(sigma, dtype=torch.float16), sigma):
        assert int(rank_for_energy(values, 0.9)) == 3
