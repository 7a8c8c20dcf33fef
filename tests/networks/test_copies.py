"""Copies of images at prediction against plain loops."""

import numpy as np
import pytest

from rankwise.networks.copies import View, outputs_of_copies, views

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 6)])
@pytest.mark.parametrize("shift", [0, 1, -1])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_is_each_pixel_from_where_it_was(shape, shift, mirrored):
    images = IMAGES[:, :, :, 0] if len(shape) == 2 else IMAGES
    found = View(1.0, mirrored, shift).of(images)
    assert found.dtype == images.dtype
    rows, columns = shape[:2]
    for y, x in np.ndindex(rows, columns):
        # Outside, the border is mirrored: place -1 is place 0 again.
        from_y = min(max(y - shift, 0), rows - 1)
        from_x = min(max(x - shift, 0), columns - 1)
        if mirrored:
            from_x = columns - 1 - from_x
        np.testing.assert_array_equal(found[:, y, x], images[:, from_y, from_x])


@pytest.mark.parametrize(
    ("copies", "mirror", "expected"),
    [
        ("mirror", True, [(0.5, False, 0), (0.5, True, 0)]),
        ("shifts", False, [(0.5, False, 0), (0.25, False, 1), (0.25, False, -1)]),
        ("shifts", None, [(0.5, False, 0), (0.25, False, 1), (0.25, False, -1)]),
        (
            "shifts",
            True,
            [(w, side, s) for w, s in ((0.25, 0), (0.125, 1), (0.125, -1)) for side in (0, 1)],
        ),
    ],
)
def test_the_copies_of_a_name(copies, mirror, expected):
    found = views(copies, mirror)
    assert [(v.weight, v.mirrored, v.shift) for v in found] == expected
    assert sum(v.weight for v in found) == 1


def test_outputs_are_the_weighted_mean():
    seen = []

    def outputs(images):
        seen.append(images)
        return seen[-1].reshape(7, -1)[:, :4].astype(float)

    chosen = views("shifts", True)
    found = outputs_of_copies(outputs, IMAGES, chosen)
    expected = sum(v.weight * v.of(IMAGES).reshape(7, -1)[:, :4].astype(float) for v in chosen)
    np.testing.assert_allclose(found, expected)
    assert len(seen) == 6
    assert outputs_of_copies(lambda x: np.zeros((len(x), 2)), IMAGES[:0], chosen).shape == (0, 2)


@pytest.mark.parametrize(
    ("copies", "mirror", "message"),
    [
        ("crops", True, "unknown tta 'crops'; accepted: mirror, shifts, or None"),
        (
            "mirror",
            False,
            "tta='mirror' needs classes that mirror images keep, and the probe of the training "
            "images found that they don't; 'shifts' is accepted",
        ),
        (
            "mirror",
            None,
            "and no probe of the training images has asked whether they do: that takes random "
            "moves of the images, and 200 images to train on; 'shifts' is accepted",
        ),
    ],
)
def test_copies_that_are_refused(copies, mirror, message):
    with pytest.raises(ValueError) as error:
        views(copies, mirror)
    assert message in str(error.value)
