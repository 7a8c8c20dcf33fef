"""One small image at a time: the short path against float64 SVDs and against whole batches."""

from unittest.mock import patch

import numpy as np
import pytest

from lowrank.oracle import rank_from_sigma, svd_copy, svd_rank
from lowrank.photos import digits, photo_crops, photo_sigma
from rankwise.lowrank import _small, low_rank_approximation, reconstruct
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.options import LowRankOptions

ENERGIES = [0.05, 0.3, 0.8, 0.9, 0.975, 0.999, 0.9999]


def _in_one_go(images, energy, **options):
    """Copies and ranks, with the general path barred where `rebuild_small` gives an answer."""
    taken = []

    def rebuild(*arguments):
        taken.append(_small.rebuild_small(*arguments))
        return taken[-1]

    with patch.object(reconstruct, "rebuild_small", rebuild):
        found = low_rank_approximation(images, energy=energy, return_rank=True, **options)
    return *found, taken[0] is not None


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("size", [28, 32, 64])
def test_ranks_are_those_of_a_float64_svd(size, energy):
    served = 0
    for image, sigma in zip(photo_crops(size), photo_sigma(size), strict=True):
        _, ranks, short = _in_one_go(image, energy)
        assert ranks.tolist() == rank_from_sigma(sigma, energy).tolist()
        served += short
    assert served >= 23  # of 24: the bound is no excuse for taking the long path


def test_ranks_of_digits_with_empty_rows_and_columns():
    for image in digits()[:300]:
        for energy in (0.9, 0.9999):
            _, rank, _ = _in_one_go(image, energy)
            assert rank.tolist() == svd_rank(image[None], energy).tolist()


@pytest.mark.parametrize("shape", [(28, 28), (20, 60), (60, 20), (1, 30), (30, 1), (32, 300)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.float32, np.float64])
def test_copies_are_those_of_the_svd(shape, dtype):
    random = np.random.default_rng(4)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (-2, 3)
    image = (low + (high - low) * random.random(shape)).astype(dtype)
    before = image.copy()
    copy, rank, short = _in_one_go(image, 0.7)
    assert short
    assert copy.dtype == dtype
    assert (image == before).all()
    exact = np.clip(svd_copy(image, rank[0]), image.min() if limits is None else low, high)
    if limits is None:
        exact = np.minimum(exact, image.max())
    tolerance = 1e-5 if limits is None else 0.51 + 1e-5 * high
    assert np.abs(copy.astype(float) - exact).max() < tolerance


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_image_equals_the_same_in_a_batch(axis):
    images = np.moveaxis(photo_crops(30), -1, axis + 1)
    together = low_rank_approximation(images, energy=0.9, channel_axis=axis + 1)
    for image, copy in zip(images, together, strict=True):
        alone = low_rank_approximation(image, energy=0.9, channel_axis=axis)
        assert np.abs(alone.astype(int) - copy).max() <= 1  # a half may fall to either side
        assert (alone != copy).mean() < 1e-3
        one = low_rank_approximation(image[None], energy=0.9, channel_axis=axis + 1)
        assert (one[0] == alone).all()


def test_a_full_rank_gives_the_image_and_a_doubt_none():
    image = np.eye(6, dtype=np.uint8) * 200
    copy, rank, short = _in_one_go(image, 0.9)
    assert rank.tolist() == [6]
    assert short
    assert (copy == image).all()
    matrices = image[None].astype(np.float32)
    half = Wanted(np.array([[0.5]]))
    for rule, energy in (("reach", 0.5), ("nearest", 7 / 12)):  # a step, the middle of two
        for energy_of in ("sigma", "sigma_squared"):
            options = LowRankOptions(energy_of, rule)
            target = Wanted(np.array([[energy]]))
            assert _small.rebuild_small(matrices, target, options, 255) is None
    black = np.zeros((1, 6, 6), np.float32)
    assert _small.rebuild_small(black, half, LowRankOptions(), 255) is None
    both = np.concatenate([matrices, black])  # a channel without energy has no share of any rank
    assert _small.rebuild_small(both, half, LowRankOptions(channels="shared"), 255) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_an_energy_of_one_and_a_rank_of_the_side_give_the_image_without_a_spectrum(dtype):
    image = photo_crops(30)[0].astype(dtype)
    with patch.object(_small.lapack, "dsyevd", None):
        for target in ({"energy": 1.0}, {"rank": 30}, {"rank": 99}):
            copy, ranks = low_rank_approximation(image, return_rank=True, **target)
            assert ranks.tolist() == [30, 30, 30]
            assert (copy == image).all()
            assert not np.shares_memory(copy, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("channels", ["own", "shared"])
@pytest.mark.parametrize("rank_rule", ["reach", "nearest"])
@pytest.mark.parametrize("energy_of", ["sigma", "sigma_squared"])
def test_every_choice_is_that_of_a_float64_svd(energy_of, rank_rule, channels, dtype):
    served = 0
    for image, sigma in zip(photo_crops(28), photo_sigma(28), strict=True):
        given = image if dtype == np.uint8 else image.astype(dtype) / 256  # exact
        for energy in (0.3, 0.9, 0.975, 0.9999):
            expected = rank_from_sigma(sigma, energy, energy_of, rank_rule, channels == "shared")
            copy, ranks, short = _in_one_go(
                given, energy, energy_of=energy_of, rank_rule=rank_rule, channels=channels
            )
            assert ranks.tolist() == expected.tolist()
            exact = np.dstack([svd_copy(given[..., c], k) for c, k in enumerate(ranks)])
            exact = np.clip(exact, given.min(), given.max()) if dtype != np.uint8 else exact
            tolerance = 0.51 if dtype == np.uint8 else 1e-5
            assert np.abs(copy - np.clip(exact, 0, 255)).max() < tolerance
            served += short
    assert served >= 94  # of 96


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_given_rank(dtype):
    image = photo_crops(28)[1].astype(dtype)
    for rank in (1, 5, 27):
        copy = low_rank_approximation(image, rank=rank)
        many = low_rank_approximation(image[None].repeat(5, axis=0), rank=rank)[0]
        assert np.abs(copy.astype(float) - many).max() <= (1 if dtype == np.uint8 else 1e-2)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 1e38])
def test_floats_of_any_size(scale):
    image = (photo_crops(28)[2] / 256 * scale).astype(np.float32)
    copy, ranks = low_rank_approximation(image, energy=0.9, return_rank=True)
    _, expected = low_rank_approximation(photo_crops(28)[2], energy=0.9, return_rank=True)
    assert ranks.tolist() == expected.tolist()
    exact = np.dstack([svd_copy(image[..., c].astype(float), k) for c, k in enumerate(ranks)])
    assert np.abs(copy - np.clip(exact, image.min(), image.max())).max() < 1e-5 * scale


def test_floats_may_leave_their_range_where_clip_is_off():
    image = photo_crops(28)[0].astype(np.float32)
    cut = low_rank_approximation(image, energy=0.6)
    free = low_rank_approximation(image, energy=0.6, clip=False)
    assert free.max() > image.max() or free.min() < image.min()
    assert (cut == np.clip(free, image.min(), image.max())).all()


def test_a_threshold_beyond_the_coarse_bound_is_settled_by_the_fine_one():
    image = photo_crops(32)[0, ..., 0]
    sigma = np.linalg.svd(image.astype(float), compute_uv=False)
    fractions = np.cumsum(sigma) / sigma.sum()
    for k in (5, 9):
        for shift in (-1e-8, 1e-8):
            _, rank, short = _in_one_go(image, fractions[k] + shift)
            assert short
            assert rank.tolist() == [k + 1 + (shift > 0)]


def test_transparency_is_copied():
    image = np.dstack([photo_crops(32)[0], np.full((32, 32), 9, np.uint8)])
    copy, ranks, short = _in_one_go(image, 0.8)
    assert short
    assert ranks.shape == (3,)
    assert (copy[..., 3] == 9).all()
    assert (copy[..., :3] == low_rank_approximation(image[..., :3], energy=0.8)).all()


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((5, 28, 28), Wanted(np.array([[0.9]]))),
        ((1, 65, 65), Wanted(np.array([[0.9]]))),
        ((1, 28, 28), Wanted(np.array([[0.9], [0.8]]))),
        ((2, 28, 28), Wanted(np.array([[0.9, 0.8]]))),
    ],
)
def test_other_requests_take_the_general_path(shape, wanted):
    assert not _small.fits(shape, wanted)
    assert _small.fits((3, 28, 40), Wanted(np.array([[0.9]])))
    assert _small.fits((3, 28, 40), Wanted(np.array([[3]]), are_ranks=True))


def test_masked_arrays_are_approximated_like_their_values():
    image = photo_crops(28)[0]
    masked = np.ma.array(image, mask=image > 99)
    copy = low_rank_approximation(masked, energy=0.9)
    assert (copy == low_rank_approximation(image, energy=0.9)).all()
