"""Train one sub-network twice from the same start: Kaufman's Jacobian against Golub and Pereyra's.

The gradient is exact for both; only the Gauss-Newton matrix differs. Which one ends lower depends
on the data and on the damping rule, so the script prints both.
"""

from __future__ import annotations

import numpy as np

from rankwise import VariableProjection, load_images
from rankwise.units import Start, UnitBasis, make_units, random_units


def main() -> None:
    """Print the objective after each iteration for both."""
    digits = load_images("digits", split="train", limit=500)
    images = digits.images.astype(np.float32) / 255
    targets = np.eye(digits.n_classes)[digits.labels]
    units = make_units("bilinear", digits.image_shape)
    params, _ = random_units(units, 20, images, Start(), np.random.default_rng(42))

    histories = {}
    for jacobian in ("kaufman", "golub-pereyra"):
        basis = UnitBasis(units, images, params)
        solver = VariableProjection(
            jacobian=jacobian, ridge=1e-4 * len(images), max_iterations=12, ftol=0.0
        )
        fit = solver.fit(basis, targets, basis.pack(params))
        histories[jacobian] = [entry["objective"] for entry in fit.history]

    print("iteration    kaufman    golub-pereyra")
    for i, (kaufman, full) in enumerate(zip(*histories.values(), strict=True), start=1):
        print(f"{i:9}  {kaufman:9.2f}  {full:15.2f}")


if __name__ == "__main__":
    main()
