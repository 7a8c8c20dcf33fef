"""Are the ranks those of a float64 SVD? On thousands of real images, at many energies.

python benchmarks/lowrank_ranks.py --images 5000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from common import Table, argument_parser, describe, say, write_result
from rankwise._threads import one_thread
from rankwise.data import load_images
from rankwise.lowrank import _matrices, low_rank_approximation

TITLE = "Ranks against a float64 SVD"
ENERGIES = (0.8, 0.9, 0.95, 0.975, 0.99, 0.999, 0.9999)
RUNS = (  # rank_rule, channels, energy_of
    ("reach", "own", "sigma"),
    ("nearest", "own", "sigma"),
    ("nearest", "shared", "sigma"),
    ("reach", "own", "sigma_squared"),
    ("nearest", "own", "sigma_squared"),
    ("nearest", "shared", "sigma_squared"),
)
# label, data set, side to resize to, share of the images
SETS: tuple[tuple[str, str, int | None, int], ...] = (
    ("mnist", "mnist", None, 1),
    ("fashion_mnist", "fashion_mnist", None, 1),
    ("cifar10", "cifar10", None, 1),
    ("cats_vs_dogs", "cats_vs_dogs", None, 8),
    ("malaria", "malaria", None, 8),
    ("cats_vs_dogs, 224×224", "cats_vs_dogs", 224, 32),
)
QUICK = (("digits", "digits", None, 1), ("digits, 224×224", "digits", 224, 20))
ONE_BY_ONE = 250  # images of a set that are approximated alone as well


def main() -> None:
    """Compare, print, write."""
    parser = argument_parser(__doc__, "lowrank_ranks", None)
    parser.add_argument("--images", type=int, default=4000, help="of each small set")
    args = parser.parse_args()
    rows, data, used = [], {}, []
    with one_thread():
        for label, name, side, share in QUICK if args.quick else SETS:
            images = load_images(
                name if args.quick else Path(args.data) / name,
                "train",
                limit=(200 if args.quick else args.images) // share,
                size=side,
            )
            used += describe(images)
            found = _compare(images.images)
            data[label] = found
            say(f"{label}: {found}")
            rows.append(
                [
                    label,
                    f"{len(images):,}",
                    f"{found['ranks']:,}",
                    str(found["different"]),
                    f"{100 * found['looked_at_twice']:.3f}%",
                ]
            )
    columns = ["", "images", "ranks", "different", "settled by an SVD"]
    table = Table("Ranks that differ from a float64 SVD's", columns, rows)
    different = sum(found["different"] for found in data.values())
    print(f"\n{table.text()}\nbar: no rank differs — {'missed' if different else 'met'}")
    notes = [
        f"Energies {', '.join(map(str, ENERGIES))}, of Σσ and of Σσ²; own ranks (reach, nearest) "
        "and shared ones (nearest).",
        f"In batches, and the first {ONE_BY_ONE} images of each set one by one as well.",
        "Settled by an SVD: images with a threshold within the error bound, of images × runs in "
        "batches.",
    ]
    write_result(args, TITLE, [table], data, {"images": used}, notes)


def _compare(images: NDArray[np.uint8]) -> dict[str, Any]:
    axis = -1 if images.ndim == 4 else None
    planes = images[:, None] if axis is None else images.transpose(0, 3, 1, 2)
    sigma = np.concatenate(
        [
            np.linalg.svd(planes[i : i + 64].astype(np.float64), compute_uv=False)
            for i in range(0, len(planes), 64)
        ]
    )
    looked, total, different = 0, 0, 0
    real = np.linalg.svd

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal looked
        looked += 1
        return real(*arguments, **options)

    for rule, channels, energy_of in RUNS:
        options: dict[str, Any] = {
            "rank_rule": rule,
            "channels": channels,
            "energy_of": energy_of,
            "channel_axis": axis,
            "return_rank": True,
        }
        expected = _expected(sigma, rule, channels, energy_of)
        with patch.object(_matrices.np.linalg, "svd", counting):
            _, ranks = low_rank_approximation(images, energy=ENERGIES, **options)
        few = images[:ONE_BY_ONE]
        alone = [
            [low_rank_approximation(image, energy=energy, **options)[1] for image in few]
            for energy in ENERGIES
        ]
        for found in (ranks, np.array(alone)):
            different += int((found != expected[:, : found.shape[1]]).sum())
            total += found.size
    return {
        "ranks": total,
        "different": different,
        "looked_at_twice": looked / (len(images) * len(RUNS)),
    }


def _expected(sigma: NDArray, rule: str, channels: str, energy_of: str) -> NDArray[np.intp]:
    """Ranks (energies, images, channels) from the singular values (images, channels, n)."""
    weights = sigma if energy_of == "sigma" else sigma**2
    fractions = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
    if channels == "shared":
        fractions = np.broadcast_to(fractions.mean(1, keepdims=True), fractions.shape)
    if rule == "reach":
        return np.stack([(fractions < energy).sum(-1) + 1 for energy in ENERGIES])
    return np.stack([np.abs(fractions - energy).argmin(-1) + 1 for energy in ENERGIES])


if __name__ == "__main__":
    main()
