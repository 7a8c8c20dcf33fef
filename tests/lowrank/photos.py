"""Real images that travel with scikit-learn: two photographs and the digits."""

from functools import cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images


@cache
def photo_crops(size: int, count: int = 24) -> np.ndarray:
    """Crops of the photographs, shrunk by half, (count, size, size, 3) uint8."""
    random = np.random.default_rng(7)
    crops = []
    for i in range(count):
        photo = load_sample_images().images[i % 2]
        small = np.asarray(Image.fromarray(photo).resize((320, 214)))
        top, left = (random.integers(0, side - size + 1) for side in small.shape[:2])
        crops.append(small[top : top + size, left : left + size])
    return np.stack(crops)


@cache
def photo_sigma(size: int) -> np.ndarray:
    """Float64 singular values of the crops, (count, 3, size)."""
    planes = photo_crops(size).transpose(0, 3, 1, 2)
    return np.linalg.svd(planes.astype(float), compute_uv=False)


@cache
def digits() -> np.ndarray:
    """The digits, (1797, 8, 8) uint8 from 0 to 240."""
    return (load_digits().images * 15).astype(np.uint8)
