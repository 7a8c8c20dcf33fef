"""Spectra, errors, PSNR, SSIM, compression: by hand and against plain formulas."""

import numpy as np
import pytest
import torch

from lowrank.photos import photo_crops
from rankwise.lowrank import (
    OptionError,
    approximation_error,
    compression_ratio,
    low_rank_approximation,
    psnr,
    spectrum,
    ssim,
)


def test_spectrum_by_hand_and_in_every_layout():
    assert spectrum(np.diag([3.0, 4.0])).tolist() == [[4.0, 3.0]]
    images = photo_crops(20, 2)
    sigma = spectrum(images)
    assert sigma.shape == (2, 3, 20)
    assert np.allclose(sigma[1, 2], np.linalg.svd(images[1, ..., 2].astype(float))[1])
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    assert torch.equal(spectrum(tensor), torch.from_numpy(sigma))
    joint = spectrum(images, channels="joint")
    assert joint.shape == (2, 1, 20)
    assert np.allclose((joint**2).sum(-1)[:, 0], (sigma**2).sum((-1, -2)))
    luma = spectrum(np.repeat(images[..., :1], 3, -1), channels="luma-chroma")
    assert np.allclose(luma[:, 0], sigma[:, 0])
    assert np.allclose(luma[:, 1:], 0, atol=1e-3)
    with_alpha = np.concatenate([images, images[..., :1]], -1)
    assert np.array_equal(spectrum(with_alpha), sigma)
    with pytest.raises(OptionError, match="finite"):
        spectrum(np.full((4, 4), np.nan))


def test_error_by_hand():
    image = np.array([[3.0, 0.0], [0.0, 4.0]])
    copy = np.array([[0.0, 0.0], [0.0, 4.0]])
    assert approximation_error(image, copy) == pytest.approx(3 / 5)
    assert approximation_error(image, copy, relative=False) == pytest.approx(3)
    assert approximation_error(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    with pytest.raises(OptionError, match="shapes differ"):
        approximation_error(image, np.zeros((3, 3)))


def test_psnr_is_the_formula():
    images = photo_crops(32, 4)
    copies = low_rank_approximation(images, energy=0.8)
    copies[3] = images[3]
    values = psnr(images, copies)
    error = ((images.astype(float) - copies) ** 2).mean((1, 2, 3))
    assert np.allclose(values[:3], 10 * np.log10(255**2 / error[:3]))
    assert np.isinf(values[3])
    halves = psnr(images / 255, copies / 255, data_range=1.0)
    assert np.allclose(halves[:3], values[:3])
    assert psnr(images[:0], copies[:0]).shape == (0,)
    assert np.array_equal(psnr(images, copies.tolist()), values)
    with pytest.raises(OptionError, match="data_range"):
        psnr(images / 255, copies / 255)
    for wrong in (0, -1, np.nan, np.inf):
        with pytest.raises(OptionError, match=f"must be a finite number above 0, not {wrong}"):
            psnr(images / 255, copies / 255, data_range=wrong)


def test_ssim_orders_copies_and_ends_at_one():
    image = photo_crops(60, 1)[0]
    copies = low_rank_approximation(image, energy=[0.5, 0.8, 0.95, 1.0])
    values = [float(ssim(image, copy)) for copy in copies]
    assert values == sorted(values)
    assert values[0] < 0.9
    assert values[-1] == pytest.approx(1)
    with pytest.raises(OptionError, match="11×11"):
        ssim(image[:8, :8], image[:8, :8])


def test_compression_ratio_by_hand():
    assert compression_ratio(100, 100, 10) == pytest.approx(10000 / 2010)
    assert compression_ratio(8, 8, np.array([1, 8])).tolist() == [64 / 17, 64 / 136]
    with pytest.raises(OptionError, match="at least 1"):
        compression_ratio(8, 8, 0)
