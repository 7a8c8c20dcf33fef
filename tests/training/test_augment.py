"""Random affine maps of batches, and the probe for mirror images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rankwise.training.affine import moved
from rankwise.training.augment import (
    FARTHER,
    SHIFTS,
    Augmentation,
    channel_statistics,
    erased,
    with_mirrors,
)

STILL = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


def drawn(n=64, size=(9, 9), seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return Augmentation(**(STILL | options)).draw(n, size, generator)


def test_without_movement_images_stay():
    maps = torch.rand(5, 3, 7, 9)
    np.testing.assert_allclose(moved(maps, drawn(5, (7, 9))), maps, atol=1e-5)


def test_mirrors_and_flips_are_exact():
    maps = torch.rand(64, 1, 6, 7)
    for options, axis in (({"mirror": True}, 3), ({"flip": True}, 2)):
        out = moved(maps, drawn(size=(6, 7), **options))
        mirrored = maps.flip(axis)
        turned = [torch.allclose(o, m, atol=1e-5) for o, m in zip(out, mirrored, strict=True)]
        kept = [torch.allclose(o, m, atol=1e-5) for o, m in zip(out, maps, strict=True)]
        assert all(a != b for a, b in zip(turned, kept, strict=True))
        assert 16 < sum(turned) < 48


def test_a_shift_moves_by_the_fraction_of_an_axis():
    affine = drawn(200, shift=0.25)
    assert affine[:, 0, 2].abs().max() <= 0.5
    assert affine[:, 0, 2].abs().max() > 0.45
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 4, 4] = 1.0
    right = torch.tensor([[[1.0, 0.0, 2 * 2 / 8], [0.0, 1.0, 0.0]]])
    assert moved(maps, right)[0, 0, 4, 2] == pytest.approx(1.0)


def test_rotations_keep_lengths_whatever_the_aspect():
    for size in ((9, 9), (5, 20)):
        affine = drawn(50, size, rotation=30.0)[:, :, :2].double().numpy()
        # In pixels: columns first, as the coordinates come.
        sides = np.array([size[1], size[0]]) / 2
        in_pixels = affine * sides[None, :, None] / sides[None, None, :]
        squared = in_pixels @ in_pixels.transpose(0, 2, 1)
        np.testing.assert_allclose(squared, np.tile(np.eye(2), (50, 1, 1)), atol=1e-5)
        angle = np.degrees(np.arctan2(in_pixels[:, 1, 0], in_pixels[:, 0, 0]))
        assert 25 < np.abs(angle).max() <= 30


def test_scale_and_shear_stay_within_bounds():
    affine = drawn(200, scale=0.2)
    assert affine[:, 0, 0].min() >= 1 / 1.2 - 1e-6
    assert affine[:, 0, 0].max() <= 1 / 0.8 + 1e-6
    assert drawn(200, shear=0.3)[:, 0, 1].abs().max() <= 0.3


def test_the_same_generator_gives_the_same_maps():
    assert torch.equal(drawn(shift=0.1, seed=3), drawn(shift=0.1, seed=3))
    assert not torch.equal(drawn(shift=0.1, seed=3), drawn(shift=0.1, seed=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": -1.0}, "rotation must be a number at least 0, got -1.0"),
        ({"shift": float("nan")}, "shift must be a number at least 0, got nan"),
        ({"scale": 1.0}, "scale must be below 1, got 1.0"),
        ({"erase": 1.5}, "erase must be at most 1, got 1.5"),
        ({"erase": -0.5}, "erase must be a number at least 0, got -0.5"),
    ],
)
def test_what_is_not_accepted(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


def ramps(n, rng, axis=None):
    """Images whose class is the direction of a ramp; along both axes if `axis` is None."""
    labels = rng.integers(2, size=n)
    ramp = np.linspace(0, 1, 12)
    if axis is None:
        # Stripes of two widths: the class survives every mirror.
        waves = np.array([np.sin(ramp * f) for f in (9.0, 30.0)])
        images = waves[labels][:, :, None] * waves[labels][:, None, :]
    else:
        signed = np.where(labels[:, None] == 1, ramp, ramp[::-1])
        images = signed[:, None, :] if axis == 1 else signed[:, :, None]
        images = np.broadcast_to(images, (n, 12, 12))
    return (images + 0.3 * rng.standard_normal((n, 12, 12))).astype(np.float32), labels


@pytest.mark.parametrize(
    ("axis", "mirror", "flip"), [(1, False, True), (0, True, False), (None, True, True)]
)
def test_classes_that_survive_a_mirror_are_found(axis, mirror, flip):
    images, labels = ramps(500, np.random.default_rng(0), axis)
    found = with_mirrors(Augmentation(), images, labels, seed=1)
    assert (found.mirror, found.flip) == (mirror, flip)
    assert found == with_mirrors(Augmentation(), images, labels, seed=1)
    # What takes the place of the moves where mirror images are images too.
    other = with_mirrors(Augmentation(), images, labels, seed=1, mirrored=SHIFTS)
    chosen = SHIFTS if mirror else Augmentation()
    assert other == replace(chosen, mirror=mirror, flip=flip)


def test_few_images_are_not_probed():
    images, labels = ramps(150, np.random.default_rng(0))
    assert with_mirrors(Augmentation(), images, labels, seed=0) == Augmentation()


def test_statistics_of_channels():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 2), dtype=np.uint8)
    images[..., 1] = 51
    center, scale = channel_statistics(images)
    np.testing.assert_allclose(center, [images[..., 0].mean() / 255, 0.2], rtol=1e-5)
    np.testing.assert_allclose(scale, [images[..., 0].std() / 255, 1.0], rtol=1e-5)


def test_statistics_follow_the_size_of_the_values():
    images = np.random.default_rng(0).random((12, 6, 5, 2))
    center, scale = channel_statistics(images)
    for size in (1e-6, 1e-8, 1e-12, 1e-20):
        found = channel_statistics(images * size)
        np.testing.assert_allclose(found, (center * size, scale * size), rtol=1e-5)
    # A channel that is constant but for rounding, beside one that isn't, counts as constant.
    images[..., 1] = 0.3 + 1e-8 * images[..., 1]
    for size in (1e-8, 1.0, 100.0):
        _, scale = channel_statistics(images * size)
        assert scale[1] == 1 != scale[0]


def test_whole_shifts_and_reflection_move_pixels_and_interpolate_none():
    maps = torch.rand(100, 2, 8, 10)
    affine = drawn(100, (8, 10), shift=0.2, whole=True)
    out = moved(maps, affine, "reflect")
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="symmetric")
    steps = set()
    for image, source, matrix in zip(out.numpy(), padded, affine, strict=True):
        right, down = round(float(matrix[0, 2]) * 5), round(float(matrix[1, 2]) * 4)
        expected = source[:, 2 + down : 10 + down, 2 + right : 12 + right]
        np.testing.assert_allclose(image, expected, atol=1e-5)
        steps |= {("right", right), ("down", down)}
    assert {("right", d) for d in (-2, -1, 0, 1, 2)} <= steps
    assert {("down", d) for d in (-2, -1, 0, 1, 2)} <= steps


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="unknown fill 'wrap'; accepted: reflect, nearest, const"):
        Augmentation(fill="wrap")


def test_erased_squares_are_grey_and_the_rest_stays():
    maps = torch.rand(300, 2, 12, 16)
    squares = FARTHER.squares(300, (12, 16), torch.Generator().manual_seed(0))
    side = 4  # three eighths of 12, rounded to even
    assert torch.equal(squares[:, 2:] - squares[:, :2], torch.full((300, 2), side))
    out = erased(maps, squares)
    for image, before, (top, left, bottom, right) in zip(
        out.numpy(), maps.numpy(), squares.tolist(), strict=True
    ):
        expected = before.copy()
        rows, columns = slice(max(top, 0), bottom), slice(max(left, 0), right)
        expected[:, rows, columns] = before.mean(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(image, expected, atol=1e-6)
    # The centre is anywhere, so that squares are cut off at each of the four sides.
    first, last = squares.min(dim=0).values, squares.max(dim=0).values
    assert first.tolist()[:2] == [-2, -2]
    assert last.tolist()[2:] == [13, 17]


@pytest.mark.parametrize(("size", "share", "side"), [((7, 9), 0.4, 3), ((4, 30), 0.1, 1)])
def test_squares_of_odd_sides_lie_about_their_centre(size, share, side):
    squares = Augmentation(erase=share).squares(500, size, torch.Generator().manual_seed(1))
    assert (squares[:, 2:] - squares[:, :2] == side).all()
    centres = squares[:, :2] + side // 2
    assert centres.min(dim=0).values.tolist() == [0, 0]
    assert centres.max(dim=0).values.tolist() == [size[0] - 1, size[1] - 1]


def test_nothing_is_drawn_where_nothing_is_erased():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert SHIFTS.squares(5, (8, 8), generator) is None
    assert torch.equal(generator.get_state(), before)
