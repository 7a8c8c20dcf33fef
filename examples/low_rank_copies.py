"""Low-rank copies of images: how much energy which rank keeps, and a whole set with its copies."""

from __future__ import annotations

import numpy as np

from rankwise import RandomLowRank, load_images, low_rank_approximation
from rankwise.lowrank import LowRankAugmenter, NormalEnergy


def main() -> None:
    """Print the error at several energies, then augment as in section 3.2 of the paper."""
    train = load_images("digits", split="train")
    images = train.images.astype(np.float64)
    print("energy  mean error")
    for energy in (0.8, 0.9, 0.975, 1.0):
        copies = np.stack([low_rank_approximation(image, energy=energy) for image in images])
        errors = np.linalg.norm(copies - images, axis=(1, 2)) / np.linalg.norm(images, axis=(1, 2))
        print(f"{energy:6.3f}  {errors.mean():10.4f}")

    transform = RandomLowRank(NormalEnergy(0.975, 0.025), skip_threshold=0.8, seed=42)
    augmented = LowRankAugmenter(transform).augment(train)
    n_copies = len(augmented.images) - len(train)
    print(f"{len(train)} images, {n_copies} copies")
    sources = np.unique(augmented.images.source_ids)
    print(f"every copy has the source id of its original: {len(sources) == len(train)}")


if __name__ == "__main__":
    main()
