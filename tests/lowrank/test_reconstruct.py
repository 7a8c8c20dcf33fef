"""`low_rank_approximation` against float64 SVDs, on photographs, digits and made images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lowrank.oracle import rank_from_sigma, svd_copy, svd_rank
from lowrank.photos import digits, photo_crops, photo_sigma
from rankwise.lowrank import OptionError, approximation_error, low_rank_approximation
from rankwise.lowrank._device import approximate_on_device
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank.options import resolve_options
from rankwise.lowrank.reconstruct import layout_of

ENERGIES = [0.3, 0.8, 0.9, 0.95, 0.975, 0.99, 0.999, 0.9999]
OPTIONS = [
    (kind, rule, channels)
    for kind in ("sigma", "sigma_squared")
    for rule in ("reach", "nearest")
    for channels in ("own", "shared")
]


@pytest.mark.parametrize(("kind", "rule", "channels"), OPTIONS)
@pytest.mark.parametrize("size", [28, 32, 100])
def test_ranks_equal_those_of_a_float64_svd_on_photographs(size, kind, rule, channels):
    images = photo_crops(size)[: 24 if size < 100 else 10]
    _, ranks = low_rank_approximation(
        images,
        energy=ENERGIES,
        energy_of=kind,
        rank_rule=rule,
        channels=channels,
        return_rank=True,
    )
    for i in range(len(images)):
        for j, energy in enumerate(ENERGIES):
            expected = rank_from_sigma(
                photo_sigma(size)[i], energy, kind, rule, shared=channels == "shared"
            )
            assert ranks[j, i].tolist() == expected.tolist()


def test_ranks_equal_those_of_a_float64_svd_on_every_digit():
    images = digits()
    _, ranks = low_rank_approximation(images, energy=ENERGIES, channel_axis=None, return_rank=True)
    sigma = np.linalg.svd(images.astype(float), compute_uv=False)
    for j, energy in enumerate(ENERGIES):
        expected = [rank_from_sigma(s[None], energy, "sigma", "reach")[0] for s in sigma]
        assert ranks[j, :, 0].tolist() == expected


def test_a_threshold_on_a_step_of_the_spectrum_is_settled_by_the_svd():
    """Beyond rounding of the energy the rank is certain; within it either answer is right."""
    image = photo_crops(32)[0, ..., 0].astype(float)
    sigma = np.linalg.svd(image, compute_uv=False)
    fractions = np.cumsum(sigma) / sigma.sum()
    rounding = 32 * 32 * np.finfo(float).eps  # of 32 singular values, and of their sum

    def rank_for(energy):
        return low_rank_approximation(image, energy=energy, return_rank=True)[1].item()

    for k in (3, 10, 20):
        step = float(fractions[k])
        assert rank_for(step) in (k + 1, k + 2)
        assert rank_for(step * (1 - rounding)) == k + 1
        assert rank_for(step * (1 + rounding)) == k + 2


@pytest.mark.parametrize("size", [28, 100, 200])
@pytest.mark.parametrize("energy", [0.6, 0.9, 0.99])
def test_copies_equal_those_of_the_svd(size, energy):
    image = photo_crops(size)[1]
    copy, ranks = low_rank_approximation(image, energy=energy, return_rank=True)
    exact = np.stack([svd_copy(image[..., c], ranks[c]) for c in range(3)], axis=-1)
    rounded = np.clip(np.rint(exact), 0, 255)
    assert np.abs(copy - rounded).max() <= 1  # a half may fall to either side
    assert (copy != rounded).mean() < 2e-3
    floats = image.astype(np.float32)
    raw = low_rank_approximation(floats, rank=int(ranks[0]), clip=False)
    assert np.abs(raw[..., 0] - exact[..., 0]).max() < 0.01
    double = low_rank_approximation(image.astype(float), rank=int(ranks[0]), clip=False)
    assert np.abs(double[..., 0] - exact[..., 0]).max() < 1e-8


@pytest.mark.parametrize("size", [16, 32, 64, 70])
def test_batches_equal_the_svd_too(size):
    images = photo_crops(size).astype(np.float32)
    copies, ranks = low_rank_approximation(images, energy=[0.7, 0.97], clip=False, return_rank=True)
    for t in range(2):
        for i in range(0, 24, 5):
            for c in range(3):
                exact = svd_copy(images[i, ..., c], ranks[t, i, c])
                assert np.abs(copies[t, i, ..., c] - exact).max() < 0.01


def test_repeated_and_vanishing_singular_values_in_a_batch():
    """Where twisted factorisations fail and divide and conquer has to step in."""
    random = np.random.default_rng(3)
    u, v = (np.linalg.qr(random.normal(size=(40, 40)))[0] for _ in range(2))
    images = np.zeros((12, 40, 40), np.float32)
    images[0] = 100 * u[:, :20] @ v[:20]  # σ = 100, twenty times
    images[1] = np.eye(40)
    images[2, :20, :20] = images[2, 20:, 20:] = random.random((20, 20))  # every σ twice
    images[3, 5:9, 30:] = 1
    images[4:] = photo_crops(40)[:8, ..., 0]
    sigma = np.linalg.svd(images.astype(float), compute_uv=False)
    for rank in (1, 2, 7, 19, 33):
        copies = low_rank_approximation(images, rank=rank, channel_axis=None, clip=False)
        assert np.isfinite(copies).all()
        errors = np.linalg.norm(images - copies.astype(float), axis=(1, 2))
        best = np.sqrt((sigma[:, rank:] ** 2).sum(-1))
        assert (errors <= best * (1 + 1e-5) + 1e-5 * sigma[:, 0]).all()
        assert (np.linalg.svd(copies.astype(float))[1][:, rank:] <= 1e-5 * sigma[:, :1]).all()


@pytest.mark.parametrize("size", [28, 100])
def test_no_other_matrix_of_the_rank_is_nearer(size):
    image = photo_crops(size)[2, ..., 1].astype(np.float32)
    random = np.random.default_rng(0)
    for rank in (1, 5, size // 2, size - 3):
        copy = low_rank_approximation(image, rank=rank, clip=False)
        assert np.linalg.matrix_rank(copy.astype(float), tol=1.0) <= rank
        best = np.sqrt((np.linalg.svd(image.astype(float), compute_uv=False)[rank:] ** 2).sum())
        error = np.linalg.norm(image - copy.astype(float))
        assert error <= best * (1 + 1e-4)
        u, s, vt = np.linalg.svd(image.astype(float), full_matrices=False)
        for scale in (1e-3, 1e-2, 1):
            left = u[:, :rank] * s[:rank] + scale * random.normal(size=(size, rank))
            right = vt[:rank] + scale * 0.1 * random.normal(size=(rank, size))
            assert np.linalg.norm(image - left @ right) >= error * (1 - 1e-6)


def test_error_falls_with_the_rank():
    images = photo_crops(100, 4).astype(np.float32)
    copies = low_rank_approximation(images, rank=list(range(1, 101)))
    errors = np.stack([approximation_error(images, copy) for copy in copies])
    assert (np.diff(errors, axis=0) <= 1e-6).all()
    assert (errors[-1] == 0).all()


@pytest.mark.parametrize("channels", ["own", "shared", "luma-chroma", "joint"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_energy_one_and_full_rank_return_the_image(channels, dtype):
    image = photo_crops(32)[0].astype(dtype)
    for target in ({"energy": 1.0}, {"rank": 32}, {"rank": 99}):
        copy = low_rank_approximation(image, channels=channels, **target)
        assert (copy == image).all()


@pytest.mark.parametrize("channels", ["own", "shared", "luma-chroma", "joint"])
def test_several_targets_equal_one_at_a_time(channels):
    images = photo_crops(60, 3)
    energies = [0.99, 0.5, 1.0, 0.9]
    together, ranks = low_rank_approximation(
        images, energy=energies, channels=channels, return_rank=True
    )
    assert together.shape == (4, *images.shape)
    for i, energy in enumerate(energies):
        alone, rank = low_rank_approximation(
            images, energy=energy, channels=channels, return_rank=True
        )
        assert (rank == ranks[i]).all()
        assert np.abs(alone.astype(int) - together[i]).max() <= 1
        assert (alone != together[i]).mean() < 1e-3


def test_joint_is_the_svd_of_the_channels_side_by_side():
    image = photo_crops(28)[3]
    copy, rank = low_rank_approximation(image, energy=0.8, channels="joint", return_rank=True)
    wide = image.transpose(0, 2, 1).reshape(28, -1)
    assert rank.tolist() == svd_rank(wide[None], 0.8).tolist()
    exact = svd_copy(wide, rank[0]).reshape(28, 3, 28).transpose(0, 2, 1)
    assert np.abs(copy - np.clip(exact, 0, 255)).max() <= 0.51


def test_luma_and_chroma_are_approximated_apart():
    grey = np.repeat(photo_crops(28)[3][..., :1], 3, axis=-1)
    copy, ranks = low_rank_approximation(grey, energy=0.9, channels="luma-chroma", return_rank=True)
    own, own_ranks = low_rank_approximation(grey, energy=0.9, return_rank=True)
    assert ranks[0] == own_ranks[0]  # luma of a grey image is the image
    assert np.abs(copy.astype(int) - own).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (40, 70), (130, 66), (3, 200)])
def test_any_shape(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    copy, rank = low_rank_approximation(image, energy=0.7, return_rank=True)
    assert rank.tolist() == svd_rank(image[None], 0.7).tolist()
    exact = np.clip(svd_copy(image, rank[0]), 0, 255)
    assert np.abs(copy - exact).max() <= 0.51


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((30, 30), np.uint8),
        np.full((70, 70), 200, np.uint8),
        np.eye(80, dtype=np.uint8) * 255,
        np.kron([[0, 1] * 40, [1, 0] * 40] * 40, np.ones((1, 1))).astype(np.uint8) * 255,
        np.full((5, 5, 3), -3.5, np.float32),
        np.zeros((8, 8, 4), np.float64),
    ],
)
def test_constant_and_degenerate_images(image):
    copy, ranks = low_rank_approximation(image, energy=0.6, return_rank=True)
    assert copy.dtype == image.dtype
    planes = np.atleast_3d(image)
    colours = 3 if planes.shape[-1] == 4 else planes.shape[-1]
    for c in range(colours):
        plane = planes[..., c].astype(float)
        sigma = np.linalg.svd(plane, compute_uv=False)
        best = np.sqrt((sigma[ranks[c] :] ** 2).sum())
        error = np.linalg.norm(np.atleast_3d(copy)[..., c].astype(float) - plane)
        assert error <= best * (1 + 1e-6) + 0.5 * np.sqrt(plane.size)


INTEGERS = [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_integers_of_any_type_keep_shape_type_and_input(data):
    dtype = np.dtype(data.draw(st.sampled_from(INTEGERS)))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    image = data.draw(hnp.arrays(dtype, shape))
    before = image.copy()
    copy = low_rank_approximation(image, energy=data.draw(st.floats(0.05, 1)))
    assert copy.dtype == dtype
    assert copy.shape == shape
    assert (image == before).all()
    full = low_rank_approximation(image, energy=1.0)
    assert (full == before).all()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_floats_of_any_range_keep_shape_type_range_and_input(data):
    dtype = np.dtype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=9))
    finite = st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_infinity=False)
    image = data.draw(hnp.arrays(dtype, shape, elements=finite))
    channels = data.draw(st.sampled_from(["own", "shared", "joint"]))
    before = image.copy()
    copy = low_rank_approximation(
        image,
        energy=data.draw(st.floats(0.05, 1)),
        channels=channels,
        channel_axis=-1,
        alpha=False,
    )
    assert copy.dtype == dtype
    assert copy.shape == shape
    assert (image == before).all()
    assert copy.min() >= image.min()
    assert copy.max() <= image.max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    images = np.ones((3, 3, 6, 6), np.float32)
    images[1, 2, 3, 4] = bad
    tensor = torch.from_numpy(images)
    with pytest.raises(OptionError, match=r"image 1 holds .* finite"):
        low_rank_approximation(tensor, energy=0.9)
    with pytest.raises(OptionError, match="finite"):
        approximate_on_device(
            tensor, layout_of(tensor), Wanted(np.full((1, 3), 0.9)), resolve_options(), True
        )


def test_alpha_stays_and_other_channels_do_not_see_it():
    image = np.dstack([photo_crops(32)[0], np.arange(1024, dtype=np.uint16).reshape(32, 32) % 251])
    image = image.astype(np.uint8)
    copy, ranks = low_rank_approximation(image, energy=0.7, return_rank=True)
    assert (copy[..., 3] == image[..., 3]).all()
    assert (copy[..., :3] == low_rank_approximation(image[..., :3], energy=0.7)).all()
    assert ranks.shape == (3,)
    four = low_rank_approximation(image, energy=0.7, alpha=False)
    assert (four[..., 3] != image[..., 3]).any()
    two = low_rank_approximation(image[..., 2:], energy=0.7, alpha=True)
    assert (two[..., 1] == image[..., 3]).all()


def test_layouts_agree():
    images = photo_crops(30, 4)
    last = low_rank_approximation(images, energy=0.8)
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    first = low_rank_approximation(tensor, energy=0.8)
    assert isinstance(first, torch.Tensor)
    assert first.dtype == torch.uint8
    assert (first.numpy().transpose(0, 2, 3, 1) == last).all()
    nested = low_rank_approximation(images.reshape(2, 2, 30, 30, 3), energy=0.8)
    assert (nested.reshape(images.shape) == last).all()
    single = low_rank_approximation(images[2], energy=0.8)
    assert (single == last[2]).all()
    greys = low_rank_approximation(images[..., 0], energy=0.8, channel_axis=None)
    assert (greys == last[..., 0]).all()
    middle = low_rank_approximation(images.transpose(0, 3, 1, 2), energy=0.8, channel_axis=1)
    assert (middle.transpose(0, 2, 3, 1) == last).all()
    many = np.concatenate([images[0]] * 3, axis=-1)  # nine channels
    for axis in (-1, np.int64(-1), np.uint8(2)):
        there = low_rank_approximation(many, energy=0.8, channel_axis=axis)
        assert (there[..., 3:6] == last[0]).all()
    strided = images[:, ::-1, :, ::-1]
    again = low_rank_approximation(strided, energy=0.8)
    assert np.abs(again[:, ::-1, :, ::-1].astype(int) - last).max() <= 1


def test_tensors_of_other_kinds():
    image = torch.rand(3, 20, 20)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        copy = low_rank_approximation(image.to(dtype), energy=0.9)
        assert copy.dtype == dtype
        assert copy.shape == image.shape
    parameter = image.clone().requires_grad_(True)
    assert not low_rank_approximation(parameter, energy=0.9).requires_grad

    class Picture(torch.Tensor):
        pass

    assert type(low_rank_approximation(image.as_subclass(Picture), energy=0.9)) is Picture
    assert low_rank_approximation(torch.empty(0, 3, 8, 8), energy=0.9).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("channels", ["own", "shared", "luma-chroma", "joint"])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_the_device_path_agrees_with_the_processor_path(channels, shape):
    height, width = shape
    images = torch.from_numpy(photo_crops(40, 5).transpose(0, 3, 1, 2).copy())
    images = images[:, :, :height, :width]
    options = resolve_options(channels=channels)
    energies = np.array([[0.6, 0.7, 0.8, 0.9, 1.0], [0.9999] * 5])
    for tensor, tolerance in ((images, 1), (images.float() / 255, 1e-5), (images.double(), 1e-7)):
        wanted = Wanted(energies)
        there, ranks = approximate_on_device(tensor, layout_of(tensor), wanted, options, True)
        for t in range(2):
            for i in range(5):
                here, rank = low_rank_approximation(
                    tensor[i], energy=energies[t, i], channels=channels, return_rank=True
                )
                assert (ranks[t, i] == rank).all()
                assert (there[t, i].double() - here.double()).abs().max() <= tolerance
    assert (there[0, 4] == tensor[4]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either energy or rank"),
        ({"energy": 0.9, "rank": 3}, "either energy or rank"),
        ({"energy": 0}, r"in \(0, 1\]"),
        ({"rank": 0}, "integers from 1"),
        ({"rank": 2.5}, "integers from 1"),
        ({"energy": [[0.9]]}, "flat sequence"),
        ({"energy": 0.9, "channel_axis": 5}, "last three axes"),
        ({"energy": 0.9, "channel_axis": "last"}, "must be an integer"),
        ({"energy": 0.9, "channel_axis": [-1]}, r"must be an integer, None or 'auto', not \[-1\]"),
        ({"energy": 0.9, "channel_axis": True}, "must be an integer, None or 'auto', not True"),
        ({"energy": 0.9, "reference": "book"}, "'paper', 'notebook'"),
        ({"energy": 0.9, "channels": "luma-chroma", "channel_axis": 0}, "needs RGB"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(OptionError, match=message):
        low_rank_approximation(np.zeros((5, 6, 3), np.uint8), **arguments)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((5, 28, 28), np.uint8), "channel_axis=None"),
        (np.zeros(5), "at least two axes"),
        (np.zeros((0, 5)), "empty"),
        (np.zeros((5, 5), bool), "integers or floats"),
        (np.zeros((5, 5), complex), "integers or floats"),
        ([[1.0]], "tensor or a numpy array, not list"),
    ],
)
def test_wrong_images_are_named(images, message):
    with pytest.raises(OptionError, match=message):
        low_rank_approximation(images, energy=0.9)
