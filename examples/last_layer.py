"""The best last layer for given features in one pass, and the wrong labels that it finds.

The features are the pixels here; `VarProHead(backbone=network)` computes them from images.
"""

from __future__ import annotations

import numpy as np

from rankwise import VarProHead, load_images


def main() -> None:
    """Spoil thirty labels, fit, and look among the most suspicious ones."""
    train, test = (load_images("digits", split=split) for split in ("train", "test"))
    features = train.images.reshape(len(train), -1).astype(np.float32)
    labels = train.labels.copy()
    spoilt = np.random.default_rng(0).permutation(len(labels))[:30]
    labels[spoilt] = (labels[spoilt] + 5) % 10

    head = VarProHead().fit(features, labels)
    accuracy = head.score(test.images.reshape(len(test), -1).astype(np.float32), test.labels)
    print(f"ridge {head.alpha_:.3g} by {head.chosen_by_}, test accuracy {accuracy:.4f}")

    rows, _ = head.likely_wrong_labels(features, labels)
    found = np.isin(rows[:30], spoilt).sum()
    print(f"{found} of the 30 most suspicious labels are among the 30 spoilt ones")


if __name__ == "__main__":
    main()
