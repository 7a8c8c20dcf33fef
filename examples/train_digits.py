"""Train on scikit-learn's digits, save the model, load it, predict: the whole life of a model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rankwise import QuadraticClassifier, load_images


def main() -> None:
    """Train, save, load, and check that the loaded model predicts the same."""
    train = load_images("digits", split="train")
    test = load_images("digits", split="test")
    print(train, test, sep="\n")

    model = QuadraticClassifier().fit(train, train.labels)
    print(f"sub-networks ended: {model.statuses_}")
    print(
        f"parameters: {model.n_parameters_units_:,} in the units, "
        f"{model.n_parameters_total_:,} with the output layer"
    )
    print(f"test accuracy: {model.score(test, test.labels):.4f}")

    with TemporaryDirectory() as folder:
        model.save(folder)
        print("saved:", ", ".join(sorted(p.name for p in Path(folder).iterdir())))
        loaded = QuadraticClassifier.load(folder)
    same = np.array_equal(model.predict(test), loaded.predict(test))
    print(f"loaded model predicts the same: {same}")


if __name__ == "__main__":
    main()
