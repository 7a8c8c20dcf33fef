"""What anyone would write with an SVD: image in, energy to rank, image out, by each library.

All take one uint8 image, (H, W, C), and an energy, and give a uint8 image. Channels have their own
ranks, the first that reach the energy; arithmetic is float32, as each library prefers it.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

Image = NDArray[np.uint8]


def _planes(image: Image) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def _image(planes: NDArray[np.float32]) -> Image:
    return np.clip(np.rint(planes), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _rank(sigma: NDArray[np.float32], energy: float) -> int:
    total = np.cumsum(sigma)
    return min(int(np.searchsorted(total, energy * total[-1])) + 1, len(sigma))


def numpy_svd(image: Image, energy: float) -> Image:
    """`numpy.linalg.svd`, all channels in one call."""
    planes = _planes(image)
    for plane, u, s, vt in zip(planes, *np.linalg.svd(planes, full_matrices=False), strict=True):
        k = _rank(s, energy)
        np.matmul(u[:, :k] * s[:k], vt[:k], out=plane)
    return _image(planes)


def torch_svd(image: Image, energy: float) -> Image:
    """`torch.linalg.svd`, all channels in one call."""
    planes = torch.from_numpy(_planes(image))
    factors = torch.linalg.svd(planes, full_matrices=False)
    for plane, u, s, vt in zip(planes, *factors, strict=True):
        k = _rank(s.numpy(), energy)
        torch.matmul(u[:, :k] * s[:k], vt[:k], out=plane)
    rounded = planes.round_().clamp_(0, 255).to(torch.uint8)
    return rounded.permute(1, 2, 0).numpy()


def scipy_gesdd(image: Image, energy: float) -> Image:
    """`scipy.linalg.svd` by divide and conquer (LAPACK's gesdd), as the paper says it used."""
    return _scipy(image, energy, "gesdd")


def scipy_gesvd(image: Image, energy: float) -> Image:
    """`scipy.linalg.svd` by QR iteration (LAPACK's gesvd)."""
    return _scipy(image, energy, "gesvd")


def _scipy(image: Image, energy: float, driver: str) -> Image:
    planes = _planes(image)
    for plane in planes:
        u, s, vt = scipy.linalg.svd(
            plane, full_matrices=False, lapack_driver=driver, check_finite=False
        )
        k = _rank(s, energy)
        np.matmul(u[:, :k] * s[:k], vt[:k], out=plane)
    return _image(planes)


def sklearn_randomized(image: Image, energy: float) -> Image:
    """`sklearn.utils.extmath.randomized_svd`; the sum of all σ asks for all of them."""
    planes = _planes(image)
    for plane in planes:
        u, s, vt = randomized_svd(plane, min(plane.shape), random_state=0)
        k = _rank(s, energy)
        np.matmul(u[:, :k] * s[:k], vt[:k], out=plane)
    return _image(planes)


RIVALS = {
    "numpy.linalg.svd": numpy_svd,
    "torch.linalg.svd": torch_svd,
    "scipy svd (gesdd)": scipy_gesdd,
    "scipy svd (gesvd)": scipy_gesvd,
    "sklearn randomized": sklearn_randomized,
}
