"""The default augmentation against kornia's warp and obvious special cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.nets import default_augmentation
from rankwise.training.affine import affine_maps


def pictures(n=2, c=3, h=9, w=12, seed=0):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@settings(max_examples=15, deadline=None)
@given(
    st.integers(4, 11),
    st.integers(4, 11),
    st.sampled_from([1, 3]),
    st.floats(-40, 40),
    st.floats(0.8, 1.2),
    st.booleans(),
)
def test_it_is_kornias_flip_and_affine_warp(h, w, c, degrees, stretch, flipped):
    from kornia.geometry.transform import warp_affine

    x = pictures(2, c, h, w)
    angle = torch.full((2,), math.radians(degrees))
    mirror = torch.full((2,), -1.0 if flipped else 1.0)
    found = default_augmentation().warp(
        x, affine_maps((h, w), mirror * angle, torch.full((2,), stretch), mirror=mirror)
    )
    # Forward map in pixels, about the centre: the inverse of the sampling map.
    cosine, sine = math.cos(angle[0]) * stretch, math.sin(angle[0]) * stretch
    sampling = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    forward = torch.linalg.inv(sampling)
    centre = torch.tensor([(w - 1) / 2, (h - 1) / 2], dtype=torch.float64)
    matrix = torch.cat([forward, (centre - forward @ centre)[:, None]], dim=1).float()
    flipped_x = x.flip(3) if flipped else x
    expected = warp_affine(
        flipped_x, matrix.expand(2, 2, 3), (h, w), padding_mode="reflection", align_corners=False
    )
    assert found.shape == x.shape
    # kornia's own grid in `align_corners=False` is the same up to rounding.
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


def test_nothing_and_flips_are_exact():
    x = pictures(64, 1)
    still = default_augmentation(flip=0, rotation=0, zoom=0)(x)
    torch.testing.assert_close(still, x, atol=1e-5, rtol=0)
    every = default_augmentation(flip=1, rotation=0, zoom=0)(x)
    torch.testing.assert_close(every, x.flip(3), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    half = default_augmentation(rotation=0, zoom=0)(x)
    flipped = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(half, x, strict=True)]
    assert 15 < sum(flipped) < 49


def test_a_quarter_turn_is_rot90():
    x = pictures(1, 3, 8, 8)
    quarter = torch.tensor([math.pi / 2])
    one = torch.ones(1)
    found = default_augmentation().warp(x, affine_maps((8, 8), quarter, one))
    torch.testing.assert_close(found, torch.rot90(x, 1, (2, 3)), atol=1e-5, rtol=0)


def test_fills():
    x = torch.full((1, 1, 8, 8), -1.0)
    x[:, :, :, 0] = 1.0
    wide = affine_maps((8, 8), torch.zeros(1), torch.full((1,), 2.0))
    row = {f: default_augmentation(fill=f).warp(x, wide)[0, 0, 4] for f in ("reflect", "nearest")}
    assert row["nearest"][0] == pytest.approx(1.0)
    # Mirrored at the edge: pixels 3, 2, 1, 0 | 0, 1, ... so the corner shows the inside again.
    assert row["reflect"][0] == pytest.approx(-1.0)
    black = default_augmentation(fill="constant").warp(torch.ones(1, 1, 8, 8), wide)[0, 0]
    assert black[0, 0] == pytest.approx(-1.0)
    assert black[4, 4] == pytest.approx(1.0)


def test_each_image_has_its_draw_and_the_seed_decides():
    x = pictures(1, 3, 12, 12).expand(6, 3, 12, 12)
    augment = default_augmentation()
    torch.manual_seed(1)
    one = augment(x)
    torch.manual_seed(1)
    again = augment(x)
    other = augment(x)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len({tuple(image.flatten().tolist()) for image in one}) == 6
    assert one.abs().max() <= 1 + 1e-6


def test_draws_stay_in_the_papers_ranges(monkeypatch):
    seen = {}

    def spy(size, angle, stretch, mirror):
        seen.update(mirror=mirror, angle=angle, stretch=stretch)
        return affine_maps(size, angle, stretch, mirror=mirror)

    monkeypatch.setattr("rankwise.nets.augmentation.affine_maps", spy)
    torch.manual_seed(0)
    default_augmentation()(torch.zeros(4000, 1, 2, 2))
    degrees = seen["angle"].rad2deg()
    assert -36 <= degrees.min() < -35
    assert 35 < degrees.max() <= 36
    assert 0.8 <= seen["stretch"].min() < 0.81
    assert 1.19 < seen["stretch"].max() <= 1.2
    assert seen["mirror"].mean().abs() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip is a probability; got 1.5"),
        ({"rotation": -1}, "rotation must be ≥ 0 and zoom"),
        ({"zoom": 1}, r"zoom in \[0, 1\); got 36.0 and 1"),
        ({"fill": "wrap"}, "unknown fill 'wrap'; accepted: reflect, nearest, constant"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        default_augmentation(**options)
