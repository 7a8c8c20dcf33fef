"""Degraded images: each kind against a slow reference, and what holds for all."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rankwise.errors import DataError
from rankwise.study.degrade import KINDS, PARAMETERS, SEVERITIES, degrade


def photos(n=6, shape=(32, 32, 3)):
    """Smooth images with edges, as photographs have."""
    rng = np.random.default_rng(5)
    height, width, *rest = shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    made = []
    for _ in range(n):
        a, b, c = rng.uniform(2, 9, 3)
        base = 128 + 80 * np.sin(a * x + b * y) + 40 * (x * y > 0.2 * rng.random())
        detail = 12 * rng.standard_normal((height, width))
        image = np.stack([base + detail * (1 + k) + 9 * c * k for k in range(*rest or (1,))], -1)
        made.append(image if rest else image[..., 0])
    return np.clip(made, 0, 255).astype(np.uint8)


GREY, COLOUR = photos(shape=(28, 28)), photos()


def error(images, kind, severity):
    return float(np.abs(degrade(images, kind, severity).astype(float) - images).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shape_type_and_input_are_kept(kind, severity):
    for images in (GREY, COLOUR, GREY[..., None], COLOUR[:0], GREY[:1]):
        before = images.copy()
        done = degrade(images, kind, severity)
        assert done.shape == images.shape
        assert done.dtype == np.uint8
        assert (images == before).all()
        assert done.size == 0 or (done != images).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3), (100, 100, 3), (40, 64)])
def test_every_severity_is_worse_than_the_one_before(kind, shape):
    images = photos(4, shape)
    errors = [error(images, kind, severity) for severity in SEVERITIES]
    assert all(a < b for a, b in pairwise(errors)), errors


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(SEVERITIES),
    st.permutations(range(6)),
    st.integers(1, 6),
)
def test_an_image_s_result_depends_on_it_alone(kind, severity, order, size):
    whole = degrade(COLOUR, kind, severity)
    some = list(order)[:size]
    assert (degrade(COLOUR[some], kind, severity) == whole[some]).all()


def test_blocks_change_nothing(monkeypatch):
    whole = {kind: degrade(GREY, kind, 3) for kind in KINDS}
    monkeypatch.setattr("rankwise.study.degrade._BLOCK", 4)
    for kind in KINDS:
        assert (degrade(GREY, kind, 3) == whole[kind]).all()


def test_one_channel_is_grey():
    for kind in ("jpeg", "downscale", "blur", "svd"):
        assert (degrade(GREY[..., None], kind, 4)[..., 0] == degrade(GREY, kind, 4)).all()


def test_svd_keeps_the_energy_asked_for():
    energy = PARAMETERS["svd"][2]
    for image, done in zip(COLOUR, degrade(COLOUR, "svd", 3), strict=True):
        for c in range(3):
            u, sigma, vt = np.linalg.svd(image[..., c].astype(float))
            rank = int(np.argmax(np.cumsum(sigma) / sigma.sum() >= energy)) + 1
            expected = np.clip(np.rint((u[:, :rank] * sigma[:rank]) @ vt[:rank]), 0, 255)
            # A value next to ½ may be rounded either way.
            assert np.abs(done[..., c] - expected).max() <= 1


def test_jpeg_is_pillow_s():
    for image, done in zip(COLOUR, degrade(COLOUR, "jpeg", 2), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=50, subsampling=2)
        assert (np.asarray(Image.open(buffer)) == done).all()


def test_downscaling_averages_areas():
    # Half the side: every pixel of the small image is the mean of four.
    image = np.repeat(np.repeat(np.array([[0, 100], [200, 40]], np.uint8), 8, 0), 8, 1)
    rough = image.astype(int) + 10 * ((np.indices((16, 16)).sum(0) % 2) * 2 - 1)
    images = np.clip(rough, 0, 255)[None].astype(np.uint8)
    done = degrade(images, "downscale", 2)[0].astype(int)
    assert np.ptp(done[:7, 9:]) <= 1
    assert abs(done[3, 12] - 100) <= 1
    # A checkerboard has no detail left at half the side.
    board = (255 * (np.indices((8, 8)).sum(0) % 2)).astype(np.uint8)[None]
    assert np.ptp(degrade(board, "downscale", 2)) <= 1


def blur_by_hand(image, sigma):
    """Sums over pixels, edges mirrored, Gaussian cut at 4 deviations."""
    reach = int(4 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    height, width = image.shape

    def mirrored(i, n):
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i

    result = np.zeros_like(image, float)
    for y in range(height):
        for x in range(width):
            result[y, x] = sum(
                weights[a + reach]
                * weights[b + reach]
                * image[mirrored(y + a, height), mirrored(x + b, width)]
                for a in offsets
                for b in offsets
            )
    return result


def test_blur_is_gaussian():
    image = GREY[0, :12, :14]
    done = degrade(image[None], "blur", 5)[0]
    expected = blur_by_hand(image.astype(float), 0.07 * 12)
    assert np.abs(done - expected).max() <= 0.51


def test_a_constant_image_stays_constant():
    flat = np.full((2, 20, 20, 3), 77, np.uint8)
    for kind in ("svd", "jpeg", "downscale", "blur"):
        for severity in SEVERITIES:
            # JPEG's coarsest table rounds the mean of a block to steps of several grey levels.
            allowed = 8 if kind == "jpeg" else 1
            assert np.abs(degrade(flat, kind, severity).astype(int) - 77).max() <= allowed


def test_noise_has_its_deviation_and_its_seed():
    flat = np.full((1, 200, 200), 128, np.uint8)
    done = degrade(flat, "noise", 2).astype(float) - 128
    assert done.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(done.mean()) < 0.5
    assert (degrade(flat, "noise", 2) == degrade(flat, "noise", 2)).all()
    assert (degrade(flat, "noise", 2, seed=1) != degrade(flat, "noise", 2)).any()
    # Different images have different noise; severities of one image share a direction.
    two = degrade(np.concatenate([flat, flat + 1]), "noise", 2).astype(int)
    assert (two[0] - 128 != two[1] - 129).any()


def test_refusals():
    with pytest.raises(ValueError, match="kind='fog' isn't one of 'svd', 'jpeg', 'downscale'"):
        degrade(GREY, "fog", 1)
    with pytest.raises(ValueError, match="severity=6 isn't one of 1, 2, 3, 4, 5"):
        degrade(GREY, "jpeg", 6)
    with pytest.raises(DataError, match="images to degrade must be uint8, not float64"):
        degrade(GREY / 255, "jpeg", 1)
    with pytest.raises(DataError, match=r"must be \(n, height, width\) or .*, not \(28, 28\)"):
        degrade(GREY[0], "jpeg", 1)
    with pytest.raises(DataError, match=r"1 or 3\), not \(2, 8, 8, 4\)"):
        degrade(np.zeros((2, 8, 8, 4), np.uint8), "jpeg", 1)
