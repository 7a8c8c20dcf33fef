"""Are the ranks those of a float64 SVD? On thousands of real images, at many energies.

python benchmarks/lowrank_ranks.py --images 5000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from common import Table, argument_parser, describe, one_thread, say, write_result
from rankwise.data import load_images
from rankwise.lowrank import _matrices, low_rank_approximation

TITLE = "Ranks against a float64 SVD"
ENERGIES = (0.8, 0.9, 0.95, 0.975, 0.99, 0.999, 0.9999)
SETS = (("mnist", 1), ("fashion_mnist", 1), ("cifar10", 1), ("cats_vs_dogs", 8), ("malaria", 8))


def main() -> None:
    """Compare, print, write."""
    parser = argument_parser(__doc__, "lowrank_ranks", None)
    parser.add_argument("--images", type=int, default=4000, help="of each small set")
    args = parser.parse_args()
    rows, data, used = [], {}, []
    with one_thread():
        for name, share in (("digits", 1),) if args.quick else SETS:
            source = name if args.quick else Path(args.data) / name
            images = load_images(
                source, "train", limit=args.images // share if not args.quick else 200
            )
            used += describe(images)
            found = _compare(images.images)
            data[name] = found
            say(f"{name}: {found}")
            rows.append(
                [
                    name,
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
        f"Energies {', '.join(map(str, ENERGIES))}; own ranks (reach, nearest) and shared ones.",
        "Settled by an SVD: images with a threshold within the error bound, of images × runs.",
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
    fractions = np.cumsum(sigma, -1) / sigma.sum(-1, keepdims=True)
    looked, total, different = 0, 0, 0
    real = np.linalg.svd

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal looked
        looked += 1
        return real(*arguments, **options)

    runs = (("reach", "own"), ("nearest", "own"), ("nearest", "shared"))
    for rule, channels in runs:
        with patch.object(_matrices.np.linalg, "svd", counting):
            _, ranks = low_rank_approximation(
                images[: len(images)],
                energy=ENERGIES,
                rank_rule=rule,
                channels=channels,
                channel_axis=axis,
                return_rank=True,
            )
        used = fractions
        if channels == "shared":
            used = np.broadcast_to(fractions.mean(1, keepdims=True), fractions.shape)
        for energy, found in zip(ENERGIES, ranks, strict=True):
            if rule == "reach":
                expected = (used < energy).sum(-1) + 1
            else:
                expected = np.abs(used - energy).argmin(-1) + 1
            different += int((found != expected).sum())
            total += found.size
    return {
        "ranks": total,
        "different": different,
        "looked_at_twice": looked / (len(images) * len(runs)),
    }


if __name__ == "__main__":
    main()
